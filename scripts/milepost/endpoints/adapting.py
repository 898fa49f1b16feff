"""Which parameters an endpoint refuses, found by asking it one harmless question until it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp

from milepost.client.connections import ConnectError
from milepost.client.shape import Shape, change_for
from milepost.endpoints import Endpoint
from milepost.endpoints.open import PROBES, send, words_of

MOST = 6  # parameters that are learnt; more are no matter of parameters
# As tasks ask: what most models take.
TYPICAL: Mapping[str, Any] = {"max_tokens": 16, "temperature": 0, "seed": 1}
REFUSED = (400, 422)
NONE = "null"


async def adapted(
    endpoint: Endpoint, parameters: Mapping[str, Any] = TYPICAL, path: str | None = None
) -> tuple[Endpoint, list[str]]:
    """Learn how an endpoint takes requests.

    Args:
        endpoint: The server.
        parameters: What is going to be asked with.
        path: Where it is asked, after its address; where chats are if not given.

    Returns:
        The endpoint as it takes these parameters, and what it said to refuse others. It is the same where nothing that it
        says names a parameter: then the first real question says what is wrong.
    """
    default, question = PROBES["chat"]
    asked = {"model": endpoint.model, **question, **parameters}
    said: list[str] = []
    for _ in range(MOST):
        body = endpoint.shape.body(asked)
        try:
            status, reply = await send("POST", default if path is None else path, endpoint, body)
        except (aiohttp.ClientError, ConnectError, OSError, TimeoutError):
            break
        message = words_of(reply) if status in REFUSED else ""
        change = change_for(message, body) if message else None
        if change is None:
            break
        said.append(message)
        # By the name that tasks have for it.
        names = {other: name for name, other in endpoint.shape.parameters.items() if other}
        name = names.get(change[0], change[0])
        if name not in asked:
            break
        shape = replace(endpoint.shape, parameters={**endpoint.shape.parameters, name: change[1]})
        endpoint = replace(endpoint, shape=shape)
    return endpoint, said


def line_of(shape: Shape) -> str:
    """The line of an entry in config/endpoints.yaml that says how parameters go.

    >>> line_of(Shape({"max_tokens": "max_completion_tokens", "seed": None}))
    'parameters: {max_tokens: max_completion_tokens, seed: null}'
    """
    return f"parameters: {{{', '.join(f'{name}: {other or NONE}' for name, other in shape.parameters.items())}}}"
