"""Build the Chroma collection of a task's answer key, and try how well a search for the nearest question finds its keys."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from milepost.embedding.embedders import MiniLM
from milepost.errors import listed, run_step
from milepost.records import read_prompts, write_record
from milepost.runtime.processes import end_with_snakemake
from milepost.scorers.equator.keys import build_collection, read_answer_key

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", required=True, help="the answer key, the task's `scorer: {answer_key: …}`")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--collection", required=True, help="to make: results/answer_keys/{task}/collection")
    parser.add_argument("--retrieval", required=True, help="to write: results/answer_keys/{task}/retrieval.json")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    end_with_snakemake()
    keys, prompts = read_answer_key(args.key), read_prompts(args.prompts).prompts
    with MiniLM() as embed:
        retrieval = build_collection(Path(args.collection), keys, prompts, embed)
    if retrieval.without_key:
        log.warning(
            "%d of %d items have no entry in %s, or one without an answer, and will not be scored: %s.",
            len(retrieval.without_key),
            len(prompts),
            args.key,
            listed(retrieval.without_key),
        )
    log.info("The nearest question is an item's own for %d of %d items.", retrieval.n_found, retrieval.n)
    write_record(args.retrieval, retrieval.record())


if __name__ == "__main__":
    run_step(main)
