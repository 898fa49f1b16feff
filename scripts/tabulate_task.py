"""Write what a task's scorer reports beside scores: its own files, tables and figures, from all checkpoints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import run_step
from milepost.records import read_answers, read_prompts, read_scores, read_summary
from milepost.runtime.processes import end_with_snakemake
from milepost.scorers import CheckpointResults, CheckpointTask, load_scorer


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument(
        "--told", required=True, help="a file of JSON: the task's `scorer` and `title`, and all `ckpts`"
    )
    parser.add_argument("--results", required=True, type=Path, help="folder of scores/, answers/ and summaries/")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--prepared", type=Path, help="results/prepared/{task}, for a scorer that prepares")
    parser.add_argument("--out", required=True, type=Path, help="to write: results/{scorer}/{task}")
    args = parser.parse_args(argv)
    end_with_snakemake()
    told = json.loads(Path(args.told).read_bytes())
    scorer = load_scorer(told["scorer"], CheckpointTask(None, args.task))
    results = [read_results(args.results, ckpt, args.task) for ckpt in told["ckpts"]]
    scorer.tabulate(told["title"], read_prompts(args.prompts).prompts, results, args.prepared, args.out)


def read_results(folder: Path, ckpt: str, task: str) -> CheckpointResults:
    """Read answers, scores and summary of one checkpoint on one task."""
    return CheckpointResults(
        ckpt,
        read_answers(folder / "answers" / ckpt / f"{task}.jsonl"),
        read_scores(folder / "scores" / ckpt / f"{task}.jsonl"),
        read_summary(folder / "summaries" / ckpt / f"{task}.json"),
    )


if __name__ == "__main__":
    run_step(main)
