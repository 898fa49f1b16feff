"""Opens endpoints by their specification, and checks that the model that answers is the one that was named."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import orjson

from milepost.campaign.types import EndpointSpec
from milepost.client.connections import ConnectError, address
from milepost.client.outside import open_session, reason_of, way_to
from milepost.client.replies import MARK
from milepost.endpoints import ENDPOINTS, Endpoint
from milepost.errors import EndpointError, did_you_mean

LIMIT_S = 30.0  # until the error is reported
TRY_S = 8.0
PAUSE_S = 1.0
SHOWN = 8
# Answers of servers that list no models.
NO_LIST = (404, 405, 501)
PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}),
    "embedding": ("/embeddings", {"input": ["yes"]}),
    "reranker": ("/rerank", {"query": "yes", "documents": ["yes", "no"]}),
}


def open_endpoint(spec: EndpointSpec, *, verified: bool = True) -> AbstractAsyncContextManager[Endpoint]:
    """Open an endpoint for as long as the context lasts.

    Args:
        spec: Whose.
        verified: Whether to check that the model that answers is the one that was named; False is only for servers
            without OpenAI's interface.

    Raises:
        EndpointError: Nobody answers, the key is refused, or another model answers; within 30 s, in one paragraph.
        ServerError: A server of our own did not start.
    """
    return spec.open(verified=verified)


async def verify(endpoint: Endpoint, spec: EndpointSpec, patience_s: float = LIMIT_S - 2 * TRY_S) -> None:
    """Check that a server has the model that was named, by the list of models that it reports.

    Args:
        endpoint: The server.
        spec: What it should be.
        patience_s: Seconds for which one that does not answer is asked again. One more look, and a question where a
            server lists no models, take a further 16 s at most.

    Raises:
        EndpointError: It is not, or it cannot be told within 30 s.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while True:
        try:
            status, body = await send("GET", "/models", endpoint)
            if status < 500 and status != 429:
                break
            problem = f"answered {status}: {words_of(body)}"
        except (aiohttp.ClientError, ConnectError, OSError, TimeoutError) as error:
            problem = f"could not be reached{way_to(endpoint.url)}: {_reason(error)}"
        if loop.time() > deadline or _is_final(problem):
            raise EndpointError(
                f"Endpoint {spec.name!r}: {endpoint.url} {problem}. See that the server runs and that this host may reach it"
                f" (compute nodes often have no way out), or correct the address in {ENDPOINTS}."
            )
        await asyncio.sleep(PAUSE_S)
    if status in NO_LIST:
        await probe(endpoint, spec)
        return
    if status != 200:
        raise refused(status, body, endpoint, spec)
    names = _model_names(body)
    if names is None:
        raise EndpointError(
            f"Endpoint {spec.name!r}: {endpoint.url}/models answers, but with no list of models as OpenAI's interface has it:"
            f" {words_of(body)}. Another program listens there, or the address is wrong: correct it in {ENDPOINTS}."
        )
    # Ollama names a model without its tag by this one.
    if not {endpoint.model, f"{endpoint.model}:latest"} & set(names):
        raise wrong_model(names, endpoint, spec)


async def probe(endpoint: Endpoint, spec: EndpointSpec) -> float:
    """Ask one small question; returns the seconds until its answer.

    Raises:
        EndpointError: It was not answered, or by a model of another name.
    """
    path, question = PROBES[spec.kind]
    begun = asyncio.get_running_loop().time()
    try:
        status, body = await send("POST", path, endpoint, endpoint.shape.body({"model": endpoint.model, **question}))
    except (aiohttp.ClientError, ConnectError, OSError, TimeoutError) as error:
        raise EndpointError(
            f"Endpoint {spec.name!r}: a first question to {endpoint.url}{path} failed: {_reason(error)}. The server is"
            " overloaded or has ended: try again, or ask whoever runs it."
        ) from None
    if status != 200:
        raise refused(status, body, endpoint, spec, path)
    reported = body.get("model") if isinstance(body, dict) else None
    # Some report a dated version of what was asked for.
    if reported is not None and not str(reported).startswith(endpoint.model):
        raise wrong_model([str(reported)], endpoint, spec)
    return asyncio.get_running_loop().time() - begun


def refused(status: int, body: Any, endpoint: Endpoint, spec: EndpointSpec, path: str = "/models") -> EndpointError:
    """The error for a reply with another status than 200: what it means, and what to do."""
    if status in (401, 403):
        where = spec.key_from
        key, advice = f"the key in {where}", "Correct the key"
        if where is None:
            key, advice = "a request without a key", f"Name the key's variable: key_env in {ENDPOINTS}"
        return EndpointError(
            f"Endpoint {spec.name!r}: {endpoint.url} refused {key} ({status}). {advice}, or ask whoever runs the server for"
            " one."
        )
    if 300 <= status < 400:
        return EndpointError(
            f"Endpoint {spec.name!r}: {endpoint.url} sends elsewhere ({status}), where the key is not sent after it. Write the"
            f" final address into {ENDPOINTS}."
        )
    return EndpointError(
        f"Endpoint {spec.name!r}: {endpoint.url}{path} answered {status}: {words_of(body)}. See that it serves a model of kind"
        f" {spec.kind!r} named {spec.model!r}, or correct {ENDPOINTS}."
    )


def wrong_model(names: list[str], endpoint: Endpoint, spec: EndpointSpec) -> EndpointError:
    """The error for a server that reports another model than the one that was named."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = ", ".join(_plain(name) for name in sorted(names)[:SHOWN]) or "none"
    return EndpointError(
        f"Endpoint {spec.name!r}: {endpoint.url} reports no model {endpoint.model!r}. It reports: {listed}{rest}."
        f"{did_you_mean(endpoint.model, map(_plain, names))} Nothing was asked. Correct 'model' in {ENDPOINTS}, or the address."
    )


async def send(method: str, path: str, endpoint: Endpoint, body: Any = None) -> tuple[int, Any]:
    """Send one request; returns the status, and the body as JSON, or else its first characters."""
    async with (
        open_session(endpoint.url, TRY_S, endpoint.shape.sent_with(endpoint.key)) as session,
        # A redirect would carry the key to another address.
        session.request(method, address(endpoint.url, path), json=body, allow_redirects=False) as response,
    ):
        content = await response.read()
    try:
        return response.status, orjson.loads(content.removeprefix(MARK))
    except ValueError:
        return response.status, content[:500].decode(errors="replace")


def _model_names(body: Any) -> list[str] | None:
    """Read the names in a reply that lists models; some servers send the bare list."""
    entries = body.get("data") if isinstance(body, dict) else body
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
        return None
    return [str(entry["id"]) for entry in entries]


def _is_final(problem: str) -> bool:
    """Whether an error of a connection will not go away: an unknown host name, a certificate that is not trusted."""
    return any(words in problem for words in ("not known", "No address", "Name or service", "certificate", "SSL"))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TRY_S:.0f} s"
    return _plain(reason_of(getattr(error, "os_error", None) or error))


def words_of(body: Any) -> str:
    """A server's words for a message: short, on one line, without control characters."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    return _plain(text)[:200].rstrip(".") or "nothing"


def _plain(text: str) -> str:
    """A text without line ends and control characters, which a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
