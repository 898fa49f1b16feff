"""Copy the results of one checkpoint on one NeMo Evaluator task out of the store; fail if a run is missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import run_step
from milepost.evaluation.collect import IncompleteError, finished_runs, stamp, withdraw
from milepost.nemo.runs import collect
from milepost.records import read_prompts, read_record
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--model", required=True, help="results/models/{ckpt}.json")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--evaluated", required=True, type=Path, help="results/evaluated/{ckpt}.json, the note")
    parser.add_argument("--out", required=True, type=Path, help="results/harness/{ckpt}/{task}")
    parser.add_argument("--code", required=True, help="digest of the code that collects")
    args = parser.parse_args(argv)
    end_with_snakemake()
    header, digest = read_prompts(args.prompts).header, read_record(args.model)["digest"]
    try:
        folders = finished_runs(args.ckpt, digest, header)
    except IncompleteError as error:
        sys.exit(withdraw(args.evaluated, header["task"], error))
    collect(folders, args.out)
    stamp(args.out, header.get("asked"), digest, args.code)


if __name__ == "__main__":
    run_step(main)
