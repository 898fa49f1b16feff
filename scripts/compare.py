"""Compare the checkpoints of a campaign on the items that they share: pairs, steps of a run, and ranks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

# Read when numpy is first imported. Its matrices are small here: on a busy host, the threads of a product would wait for
# each other tens of times longer than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from milepost.campaign.shown import read_shown
from milepost.comparisons.compare import compare_campaign
from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.errors import run_step
from milepost.report.tables import write_table
from milepost.runtime.processes import end_with_snakemake


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="what the rule tells this step, a file")
    parser.add_argument("--scores", required=True, type=Path, help="folder of {ckpt}/{task}.jsonl")
    parser.add_argument("--summaries", required=True, type=Path, help="folder of {ckpt}/{task}.json")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help="folder of comparisons.csv, flips.csv, steps.csv, trends.csv, ranking.csv",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    compared = compare_campaign(read_shown(args.settings), args.scores, args.summaries)
    write_table(args.out / "comparisons.csv", ComparisonRow, compared.comparisons)
    write_table(args.out / "flips.csv", FlipRow, compared.flips)
    write_table(args.out / "steps.csv", StepRow, compared.steps)
    write_table(args.out / "trends.csv", TrendRow, compared.trends)
    write_table(args.out / "ranking.csv", RankRow, compared.ranking)


if __name__ == "__main__":
    run_step(main)
