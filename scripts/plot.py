"""Draw the scores of each task over the training step, and a sheet of all tasks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.campaign.shown import read_shown
from milepost.comparisons.rows import StepRow
from milepost.errors import run_step
from milepost.report.figures import Look, draw_figures, make_panels
from milepost.report.tables import MetricRow, ScoreRow, read_table
from milepost.runtime.processes import end_with_snakemake


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="what the rule tells this step, a file")
    parser.add_argument("--scores", required=True, help="results/tables/scores.csv")
    parser.add_argument("--metrics", required=True, help="results/tables/metrics.csv")
    parser.add_argument("--steps", help="results/tables/steps.csv, for the marks of first better steps")
    parser.add_argument("--out", required=True, help="the folder of the figures")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    campaign = read_shown(args.settings)
    beside = {name: task.beside for name, task in campaign.tasks.items()}
    scores, metrics = read_table(args.scores, ScoreRow), read_table(args.metrics, MetricRow)
    look = Look(**campaign.config["figures"])
    steps = read_table(args.steps, StepRow) if args.steps else []
    first_better = {(row.task, row.ckpt) for row in steps if row.first_better}
    draw_figures(args.out, make_panels(scores, metrics, beside, first_better, look))


if __name__ == "__main__":
    run_step(main)
