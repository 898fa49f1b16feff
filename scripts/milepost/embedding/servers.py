"""Asks servers of embedders and rerankers, by the interface of OpenAI and vLLM or of Text Embeddings Inference.

Requests carry texts of like length, so that none is padded to a much longer one, and as many are under way as the
endpoint takes: a server batches the requests of many answers together.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from milepost.embedding.vectors import Keep, hash_of
from milepost.endpoints import Endpoint
from milepost.endpoints.calls import Calls, Read
from milepost.errors import CallError, JudgeError

Api = Literal["openai", "vllm", "tei"]

# Text Embeddings Inference refuses more in one request, unless it is told otherwise.
BATCH = 32
# Pairs in one request to vLLM's scoring, of several answers.
PAIRS = 256
# Requests that are made up ahead: enough to keep a server busy, and little to hold in memory.
_AHEAD = 256

_Item = TypeVar("_Item")

# Cut on the left: the end of an answer is where its statement is. vLLM's -1 is the model's own limit.
_CUT: Mapping[Api, Mapping[str, Any]] = {
    "openai": {},
    "vllm": {"truncate_prompt_tokens": -1, "truncation_side": "left"},
    "tei": {"truncate": True, "truncation_direction": "Left"},
}


def address_of(endpoint: Endpoint, api: Api) -> Endpoint:
    """The endpoint with the base address that its interface needs: that of Text Embeddings Inference is not under `/v1`."""
    return replace(endpoint, url=endpoint.url.removesuffix("/v1")) if api == "tei" else endpoint


async def embed_texts(calls: Calls, api: Api, texts: Sequence[str], keep: Keep) -> dict[str, str]:
    """Embed distinct texts, shortest first, and hand over their vectors batch by batch.

    Returns:
        Texts that the server refuses, such as those that are too long for the model, and what it says of each.

    Raises:
        CallError: The endpoint failed for good.
    """
    ordered = sorted(texts, key=lambda text: (len(text), text))
    batches = [ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH)]
    too_long: dict[str, str] = {}

    async def embed(batch: Sequence[str]) -> None:
        path, body = embedding_request(api, batch, calls.endpoint.model)
        try:
            keep(batch, await calls.post(path, body, read_vectors(api, len(batch))))
        except CallError as error:
            if not error.lasting:
                raise
            if len(batch) == 1:
                too_long[batch[0]] = str(error)
                return
            half = len(batch) // 2
            await embed(batch[:half])
            await embed(batch[half:])

    await _all(embed, batches)
    return too_long


async def rerank_pairs(
    calls: Calls, api: Api, pairs: Iterable[tuple[str, Sequence[str]]]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Score documents against queries.

    Args:
        calls: The endpoint.
        api: Its interface.
        pairs: Queries, each with distinct documents.

    Returns:
        The score of each document, by query; and texts that it refuses, such as those that are too long, with what it says.

    Raises:
        CallError: The endpoint failed for good.
    """
    scores: dict[str, dict[str, float]] = {}
    too_long: dict[str, str] = {}

    async def rerank(pair: tuple[str, Sequence[str]]) -> None:
        query, documents = pair
        path, body = rerank_request(api, query, documents, calls.endpoint.model)
        try:
            found = await calls.post(path, body, read_scores(api, len(documents)))
        except CallError as error:
            if not error.lasting:
                raise
            blamed = max((query, *documents), key=len) if error.kind == "context" else query
            if blamed == query or len(documents) == 1:
                too_long[blamed] = str(error)
                return
            half = len(documents) // 2
            await rerank((query, documents[:half]))
            await rerank((query, documents[half:]))
            return
        scores.setdefault(query, {}).update(zip(documents, found, strict=True))

    batches = [
        (query, documents[at : at + BATCH - 1])
        for query, documents in pairs
        for at in range(0, len(documents), BATCH - 1)
    ]
    await _all(rerank, sorted(batches, key=lambda batch: len(batch[0])))
    return scores, too_long


async def score_pairs(calls: Calls, pairs: Sequence[tuple[str, str]], keep: Keep) -> dict[str, str]:
    """Score queries and documents pair by pair, as vLLM can: one request holds pairs of many answers.

    Args:
        calls: The endpoint.
        pairs: Distinct queries with documents.
        keep: Gets the names of pairs (`pair_name`), and a score in a list for each.

    Returns:
        Texts that the server refuses, such as those that are too long (the longer one of a pair), with what it says.

    Raises:
        CallError: The endpoint failed for good.
    """
    ordered = sorted(pairs, key=lambda pair: (len(pair[0]) + len(pair[1]), pair))
    batches = [ordered[at : at + PAIRS] for at in range(0, len(ordered), PAIRS)]
    too_long: dict[str, str] = {}

    async def score(batch: Sequence[tuple[str, str]]) -> None:
        queries, documents = map(list, zip(*batch, strict=True))
        body = {"model": calls.endpoint.model, "text_1": queries, "text_2": documents, **_CUT["vllm"]}
        try:
            scores = await calls.post("/score", body, _read_pairs(len(batch)))
        except CallError as error:
            if not error.lasting:
                raise
            if len(batch) == 1:
                too_long[max(batch[0], key=len) if error.kind == "context" else batch[0][0]] = str(error)
                return
            half = len(batch) // 2
            await score(batch[:half])
            await score(batch[half:])
            return
        keep([pair_name(*pair) for pair in batch], [[number] for number in scores])

    await _all(score, batches)
    return too_long


def pair_name(query: str, document: str) -> bytes:
    """The hash of a pair, under which its score is kept."""
    return hash_of(f"{len(query)} {query}{document}")


async def _all(work: Callable[[_Item], Awaitable[None]], items: Sequence[_Item]) -> None:
    """Await all calls at once; the first failure cancels the rest, but for those that are paid for."""
    waiting = iter(items)
    stopped: list[JudgeError] = []

    async def worker() -> None:
        for item in waiting:
            try:
                await work(item)
            except JudgeError as error:
                stopped.append(error)
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AHEAD, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        # All of them failed because of the same server: the first failure says enough.
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    if stopped:
        # Only now: what was under way is paid for, and kept.
        raise stopped[0]


def embedding_request(api: Api, texts: Sequence[str], model: str) -> tuple[str, dict[str, Any]]:
    """Path and body of a request for the vectors of texts."""
    if api == "tei":
        return "/embed", {"inputs": list(texts), **_CUT[api]}
    return "/embeddings", {"model": model, "input": list(texts), "encoding_format": "float", **_CUT[api]}


def rerank_request(api: Api, query: str, documents: Sequence[str], model: str) -> tuple[str, dict[str, Any]]:
    """Path and body of a request for the scores of documents."""
    name = "texts" if api == "tei" else "documents"
    body = {"query": query, name: list(documents), **_CUT[api]}
    return "/rerank", body if api == "tei" else {"model": model, **body}


def read_vectors(api: Api, count: int) -> Read:
    """Make a function that reads the vectors of a reply, in the order of the texts."""
    import numpy as np

    def read(reply: Any) -> Any:
        rows = reply if api == "tei" else _field(reply, "data")
        if not isinstance(rows, list) or len(rows) != count:
            raise ValueError(f"a reply with {_count(rows)} vectors for {count} texts")
        vectors = rows if api == "tei" else _ordered(rows, "embedding", count)
        sizes = {len(vector) if isinstance(vector, list) else 0 for vector in vectors}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"a reply with vectors of different sizes: {', '.join(map(str, sorted(sizes)))}")
        try:
            array = np.array(vectors, dtype=float)
        except (ValueError, TypeError):
            array = np.full(1, np.nan)
        if not np.isfinite(array).all():
            raise ValueError("a reply with a vector that holds something else than finite numbers")
        return array

    return read


def read_scores(api: Api, count: int) -> Read:
    """Make a function that reads the scores of a reply, in the order of the documents."""

    def read(reply: Any) -> list[float]:
        rows = reply if api == "tei" else _field(reply, "results")
        if not isinstance(rows, list) or len(rows) != count:
            raise ValueError(f"a reply with {_count(rows)} scores for {count} documents")
        return _checked(_ordered(rows, "score" if api == "tei" else "relevance_score", count))

    return read


def _read_pairs(count: int) -> Read:
    def read(reply: Any) -> list[float]:
        rows = _field(reply, "data")
        if not isinstance(rows, list) or len(rows) != count:
            raise ValueError(f"a reply with {_count(rows)} scores for {count} pairs")
        return _checked(_ordered(rows, "score", count))

    return read


def _checked(scores: Sequence[Any]) -> list[float]:
    wrong = [at for at, score in enumerate(scores) if not _is_number(score)]
    if wrong:
        raise ValueError(
            f"a reply in which the score of document {wrong[0]} is {scores[wrong[0]]!r}, not a finite number"
        )
    return [float(score) for score in scores]


def _ordered(rows: Sequence[Any], name: str, count: int) -> list[Any]:
    """The values of rows in the order of their `index`."""
    by_index = {row.get("index"): row for row in rows if isinstance(row, dict)}
    missing = [at for at in range(count) if at not in by_index]
    if missing:
        raise ValueError(f"a reply without the index {missing[0]}: it has {sorted(map(str, by_index))[:8]}")
    if any(name not in by_index[at] for at in range(count)):
        raise ValueError(f"a reply whose entries have no {name!r}: {str(rows[0])[:100]}")
    return [by_index[at][name] for at in range(count)]


def _field(reply: Any, name: str) -> Any:
    if not isinstance(reply, dict) or name not in reply:
        raise ValueError(f"a reply without {name!r}: {str(reply)[:100]}")
    return reply[name]


def _count(rows: Any) -> str:
    return str(len(rows)) if isinstance(rows, list) else "no list of"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
