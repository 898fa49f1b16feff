"""Copy the answers of one checkpoint to one task out of the store, sorted; fail if any is missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import run_step
from milepost.evaluation.collect import IncompleteError, collect_answers, stamp, withdraw
from milepost.records import read_prompts, read_record, write_records
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--model", required=True, help="results/models/{ckpt}.json")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--evaluated", required=True, type=Path, help="results/evaluated/{ckpt}.json, the note")
    parser.add_argument("--out", required=True, type=Path, help="results/answers/{ckpt}/{task}.jsonl")
    parser.add_argument("--code", required=True, help="digest of the code that collects")
    args = parser.parse_args(argv)
    end_with_snakemake()
    prompts, digest = read_prompts(args.prompts), read_record(args.model)["digest"]
    try:
        answers = collect_answers(args.ckpt, digest, prompts)
    except IncompleteError as error:
        sys.exit(withdraw(args.evaluated, prompts.header["task"], error))
    write_records(args.out, answers)
    stamp(args.out, prompts.header.get("asked"), digest, args.code)


if __name__ == "__main__":
    run_step(main)
