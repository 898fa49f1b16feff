"""Prepare what a task's scorer reports beside scores: the part of it that rests on the task alone, once for all checkpoints."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import run_step
from milepost.records import read_prompts
from milepost.runtime.processes import end_with_snakemake
from milepost.scorers import CheckpointTask, load_scorer


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--scorer", required=True, help="a file of JSON: the task's `scorer`")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--out", required=True, type=Path, help="to write: results/prepared/{task}")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    end_with_snakemake()
    scorer = load_scorer(json.loads(Path(args.scorer).read_bytes()), CheckpointTask(None, args.task))
    scorer.prepare(read_prompts(args.prompts).prompts, args.out)


if __name__ == "__main__":
    run_step(main)
