"""How an endpoint takes its requests: parameters by other names or not at all, more in the body, headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QUESTION = ("model", "messages", "prompt")
# Without them, an answer is asked for in the same way.
INERT = frozenset({"seed", "max_tokens", "max_completion_tokens"})


@dataclass(frozen=True)
class Shape:
    """What is different about requests to an endpoint.

    Attributes:
        parameters: Other names of parameters; None leaves one out.
        extra_body: Further keys of every body.
        headers: Further headers of every request.
        key_header: The header that holds the key, if it is not `Authorization`.
    """

    parameters: Mapping[str, str | None] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    key_header: str | None = None

    def body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A body as this endpoint takes it.

        >>> Shape({"max_tokens": "max_completion_tokens", "seed": None}).body({"max_tokens": 9, "seed": 1})
        {'max_completion_tokens': 9}
        """
        named = {self.parameters.get(key, key): value for key, value in body.items()}
        return {**{key: value for key, value in named.items() if key is not None}, **self.extra_body}

    def sent_with(self, key: str) -> dict[str, str]:
        """The headers of every request, the key among them."""
        proof = {self.key_header: key} if self.key_header else {"Authorization": f"Bearer {key}"}
        return {**proof, **self.headers}

    @property
    def identity(self) -> dict[str, Any]:
        """The parts of the shape that may change answers. A parameter by another name does not, nor does the place of a key.

        >>> Shape({"seed": None, "temperature": None, "max_tokens": "max_completion_tokens"}).identity
        {'left_out': ['temperature']}
        """
        left_out = sorted(name for name, other in self.parameters.items() if other is None and name not in INERT)
        told = {"left_out": left_out, "extra_body": dict(self.extra_body), "headers": dict(self.headers)}
        return {name: value for name, value in told.items() if value}


def change_for(message: str, body: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The parameter that a refusal names, and its other name, or None to leave it out; None if it names none.

    >>> change_for("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", {"max_tokens": 9})
    ('max_tokens', 'max_completion_tokens')
    """
    for name in body:
        if name not in QUESTION and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", message):
            other = re.search(r"(?i)\buse\W+(?:the\W+)?([a-z][a-z0-9_]+)", message)
            return name, other[1] if other and "_" in other[1] and other[1] != name else None
    return None


def line_for(message: str, body: Mapping[str, Any]) -> str | None:
    """The line of an endpoint's entry that leaves out or renames the parameter that a refusal names; None if it names none.

    >>> line_for("Extra inputs are not permitted: body.seed", {"messages": [], "seed": 1})
    'parameters: {seed: null}'
    """
    change = change_for(message, body)
    return f"parameters: {{{change[0]}: {change[1] or 'null'}}}" if change else None
