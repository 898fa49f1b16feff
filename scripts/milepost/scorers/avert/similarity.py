"""Computes A-VERT's similarities, by the embedder that comes with Milepost or an endpoint that embeds or reranks.

All that will be compared is known beforehand: each distinct text is embedded once, each answer reranked once, and what
was computed is kept in results/judged for the next time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from milepost.campaign.types import Serving
from milepost.embedding.embedders import MINILM_IDENTITY, CosineSimilarity, Embed, MiniLM, checked_vectors
from milepost.embedding.servers import address_of, embed_texts, pair_name, rerank_pairs, score_pairs
from milepost.embedding.vectors import Keep, VectorStore
from milepost.endpoints.calls import Calls
from milepost.errors import CallError
from milepost.scorers import CheckpointTask
from milepost.scorers.avert.settings import BUILT_IN, Settings, Template

JUDGED = Path("results/judged")
VECTORS = ".vectors"  # no checkpoint is named so
# Texts that the built-in embedder gets at once: what a crash costs at most.
CHUNK = 1024
# What servers answer that rerank, but have no scoring of pairs.
NO_SCORING = (404, 405)


@dataclass(frozen=True)
class TextsToCompare:
    """All texts that will be compared.

    Attributes:
        pairs: The documents of each query.
        plain: Texts whose embeddings are compared as they are, without a template.
    """

    pairs: dict[str, list[str]]
    plain: list[str] = field(default_factory=list)


class Similarities:
    """The similarities that were computed.

    Attributes:
        too_long: Texts that the model could not take, without a template, and what the server says.
        plain: Cosines of plain texts; None where the model does not embed.
    """

    def __init__(
        self,
        found: CosineSimilarity | Mapping[str, Mapping[str, float]],
        template: Template | None,
        too_long: Mapping[str, str],
        plain: CosineSimilarity | None,
    ) -> None:
        self._found = found
        self._template = template
        self.too_long = too_long
        self.plain = plain

    def __call__(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Look up the similarity of each document to the query."""
        if self._template is not None:
            query, documents = self._template.queried(query), list(map(self._template.documented, documents))
        if isinstance(self._found, CosineSimilarity):
            return self._found(query, documents)
        scores = self._found[query]
        return [scores[document] for document in documents]


def find_similarities(
    settings: Settings,
    wanted: TextsToCompare,
    place: CheckpointTask | None = None,
    embed: Embed | None = None,
    *,
    double: bool = False,
) -> Similarities:
    """Compute the similarities of all texts that will be compared.

    Args:
        settings: The model, and how it is asked.
        wanted: The texts.
        place: Whose answers they are; None keeps nothing.
        embed: Makes vectors of texts, instead of the embedder that the settings name.
        double: Whether to keep vectors in double precision.

    Raises:
        CallError: The endpoint failed for good.
        EndpointError: It does not answer, or not as the model that was named.
        EnvironmentMissingError: The built-in embedder is not installed.
        ServerError: Vectors that cannot be compared.
    """
    template = settings.template
    pairs = {
        template.queried(query): list(map(template.documented, documents)) for query, documents in wanted.pairs.items()
    }
    too_long: dict[str, str] = {}
    untemplated = template.query is None and template.document is None
    original = {text: text for text in wanted.plain}
    original |= {template.documented(text): text for documents in wanted.pairs.values() for text in documents}
    original |= {template.queried(query): query for query in wanted.pairs}
    if settings.method == "rerank":
        scores, too_long = asyncio.run(_rerank(settings, pairs, place)) if pairs else ({}, {})
        plain = None
        if wanted.plain:
            with MiniLM() as minilm:
                plain = CosineSimilarity(_kept(minilm, MINILM_IDENTITY, place, double), wanted.plain)
        return Similarities(
            scores,
            None if untemplated else template,
            {original[text]: reason for text, reason in too_long.items()},
            plain,
        )
    texts = {*pairs, *wanted.plain, *(document for documents in pairs.values() for document in documents)}
    if embed is not None:
        found = CosineSimilarity(embed, texts)
    elif settings.endpoint == BUILT_IN:
        with MiniLM() as minilm:
            found = CosineSimilarity(_kept(minilm, MINILM_IDENTITY, place, double), texts)
    else:

        def ask(missing: Sequence[str], keep: Keep) -> None:
            too_long.update(asyncio.run(_embed(settings, missing, keep)))

        with VectorStore(_folder(settings, place), _identity(settings), double=double) as store:
            found = CosineSimilarity(lambda distinct: store.embed(distinct, ask), texts)
    return Similarities(
        found, None if untemplated else template, {original[text]: reason for text, reason in too_long.items()}, found
    )


def describe(settings: Settings) -> dict[str, str | None]:
    """Who compares, as the scores' provenance says it: never an address or a key, but a digest of all that decides.

    >>> from milepost.scorers.avert.settings import settings_of
    >>> describe(settings_of({}, environ={}))["model"]
    'all-MiniLM-L6-v2'
    """
    told: dict[str, str | None]
    identity: Mapping[str, object]
    if settings.endpoint == BUILT_IN:
        told, identity = {"endpoint": BUILT_IN, "model": MINILM_IDENTITY["model"]}, MINILM_IDENTITY
    elif settings.address is not None:
        told, identity = {"endpoint": "AVERT_MODEL_ENDPOINT", "model": settings.model}, _identity(settings)
    else:
        from milepost.endpoints.specs import find_endpoint

        spec = find_endpoint(settings.endpoint, "The scorer avert")
        told = {"endpoint": spec.name, "model": spec.model, "revision": spec.revision}
        identity = _identity(settings)
    digest = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()
    return {**told, "digest": digest}


def _kept(embed: Embed, identity: Mapping[str, str], place: CheckpointTask | None, double: bool) -> Embed:
    """The embedder, with what it gave before kept on disk."""

    def ask(missing: Sequence[str], keep: Keep) -> None:
        for at in range(0, len(missing), CHUNK):
            chunk = missing[at : at + CHUNK]
            keep(chunk, checked_vectors(embed(chunk), len(chunk)))

    def embedded(texts: Sequence[str]) -> object:
        folder = JUDGED / BUILT_IN / VECTORS / place.task if place else None
        with VectorStore(folder, identity, double=double) as store:
            return store.embed(texts, ask)

    return embedded


async def _rerank(
    settings: Settings, pairs: Mapping[str, list[str]], place: CheckpointTask | None
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    folder = None if place is None or place.ckpt is None else JUDGED / _name(settings) / place.ckpt
    if settings.api == "vllm":
        try:
            return await _score_pairs(settings, pairs, folder and folder / str(place and place.task))
        except CallError as error:
            if error.status not in NO_SCORING:
                raise
    async with AsyncExitStack() as stack:
        calls = await _open(settings, folder and folder / f"{place and place.task}.jsonl", stack)
        return await rerank_pairs(calls, settings.api, pairs.items())


async def _score_pairs(
    settings: Settings, pairs: Mapping[str, list[str]], folder: Path | None
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Score queries and documents pair by pair by a reranker, and keep each pair's score."""
    named = {pair_name(query, document): (query, document) for query, found in pairs.items() for document in found}
    with VectorStore(folder, _identity(settings), double=True) as store:
        missing = store.missing(list(named))
        too_long: dict[str, str] = {}
        if missing:
            async with AsyncExitStack() as stack:
                calls = await _open(settings, None, stack)
                too_long = await score_pairs(calls, [named[name] for name in missing], store.keep)
        found = store.get(list(named))[:, 0].tolist()
    scores: dict[str, dict[str, float]] = {}
    for (query, document), score in zip(named.values(), found, strict=True):
        scores.setdefault(query, {})[document] = score
    return scores, too_long


async def _embed(settings: Settings, texts: Sequence[str], keep: Keep) -> dict[str, str]:
    async with AsyncExitStack() as stack:
        # Vectors are kept in a form of their own, by text.
        calls = await _open(settings, None, stack)
        return await embed_texts(calls, settings.api, texts, keep)


async def _open(settings: Settings, path: Path | None, stack: AsyncExitStack) -> Calls:
    endpoint = settings.address
    if endpoint is not None:
        # No file of the campaign says so.
        print(f"avert: {endpoint.url} compares, as AVERT_MODEL_ENDPOINT says.", file=sys.stderr)
        serving = Serving(gpus=0)
        calls = Calls(
            address_of(endpoint, settings.api), path, identity=_identity(settings),
            concurrency=serving.concurrency, timeout_s=serving.request_timeout_s, retries=serving.retries,
        )  # fmt: skip
    else:
        from milepost.endpoints.open import open_endpoint
        from milepost.endpoints.specs import find_endpoint

        spec = find_endpoint(settings.endpoint, "The scorer avert")
        # Text Embeddings Inference has no list of models, nor reranking under /v1: its first answer shows whether it is there.
        endpoint = await stack.enter_async_context(open_endpoint(spec, verified=settings.api != "tei"))
        endpoint = address_of(endpoint, settings.api)
        calls = Calls.of(spec, endpoint, path, folder=JUDGED / spec.name, identity=_identity(settings))
    return await stack.enter_async_context(calls)


def _identity(settings: Settings) -> dict[str, object]:
    """What decides the numbers: who answers, and in what way it is asked."""
    address = settings.address
    if address is not None:
        return {"url": address.url, "model": address.model, "api": settings.api}
    from milepost.endpoints.specs import find_endpoint

    return {**find_endpoint(settings.endpoint, "The scorer avert").identity, "api": settings.api}


def _folder(settings: Settings, place: CheckpointTask | None) -> Path | None:
    return None if place is None else JUDGED / _name(settings) / VECTORS / place.task


def _name(settings: Settings) -> str:
    """The name of the folder that keeps what an endpoint answered."""
    return settings.endpoint if settings.address is None else "environment"
