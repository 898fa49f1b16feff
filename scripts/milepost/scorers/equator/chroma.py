"""The worker that keeps an answer key in a Chroma collection. Run by keys.py with the interpreter of envs/equator.

It reads one JSON object from standard input, writes one to standard output, and ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

COLLECTION = "answer_key"
BATCH = 1000  # below what SQLite takes as variables of one statement


def main() -> None:
    """Build what standard input asks for."""
    # A pipe of our own: what libraries print must not get into the reply.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reply = build(**json.load(sys.stdin))
    json.dump(reply, replies)
    replies.close()


def build(folder: str, keys: list[dict[str, Any]], vectors: list[list[float]], queries: list[list[float]]) -> Any:
    """Make the collection in an empty folder, and search for the key that is nearest to each query.

    Args:
        folder: Where it is to lie.
        keys: `id`, `question`, `answer`, `category` of each.
        vectors: One per key, of its question.
        queries: Vectors to search with.

    Returns:
        For each query the id of the nearest key, and its cosine distance.
    """
    collection = _client(folder).create_collection(
        COLLECTION, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    for at in range(0, len(keys), BATCH):
        batch = keys[at : at + BATCH]
        collection.add(
            ids=[key["id"] for key in batch],
            documents=[key["question"] for key in batch],
            metadatas=[{"answer": key["answer"], "category": key["category"]} for key in batch],
            embeddings=vectors[at : at + BATCH],
        )
    nearest: list[tuple[str, float]] = []
    for at in range(0, len(queries), BATCH):
        result = collection.query(query_embeddings=queries[at : at + BATCH], n_results=1, include=["distances"])
        nearest += [(ids[0], distances[0]) for ids, distances in zip(result["ids"], result["distances"], strict=True)]
    return {"nearest": nearest}


def _client(folder: str) -> Any:
    # Here, not above: this module is also imported where it is not installed.
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))


if __name__ == "__main__":
    main()
