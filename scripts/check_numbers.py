"""Say which numbers are marked, and fail if nothing could be scored of a task: the last step of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import run_step
from milepost.records import write_record
from milepost.report.tables import ScoreRow, read_table
from milepost.runtime.processes import end_with_snakemake

SHOWN = 12  # numbers that are named


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", required=True, help="results/tables/scores.csv")
    parser.add_argument("--out", required=True, type=Path, help="to write, if there is a number for every task")
    args = parser.parse_args(argv)
    end_with_snakemake()
    rows = read_table(args.scores, ScoreRow)
    marked = [row for row in rows if row.marks]
    unscored = [row for row in rows if row.value is None]
    if marked:
        print(f"{len(marked)} of {len(rows)} numbers are not what they seem:", file=sys.stderr)
        for row in marked[:SHOWN]:
            print(f"! {row.ckpt}, {row.task}: {row.reasons}", file=sys.stderr)
        if len(marked) > SHOWN:
            print(f"! {len(marked) - SHOWN} more: see the column `reasons` of {args.scores}", file=sys.stderr)
    if unscored:
        named = ", ".join(f"{row.ckpt}/{row.task}" for row in unscored[:SHOWN])
        named += " and others" * (len(unscored) > SHOWN)
        sys.exit(
            f"NothingScoredError: {len(unscored)} of {len(rows)} numbers are missing, because nothing could be scored:"
            f" {named}. All else is made: results/report.html has what there is, and the reasons. Correct what they name,"
            " then have the questions asked again (`snakemake forget_refusals`, or `generation` in the task's file)."
        )
    write_record(args.out, {"numbers": len(rows), "marked": [f"{row.ckpt}/{row.task}" for row in marked]})


if __name__ == "__main__":
    run_step(main)
