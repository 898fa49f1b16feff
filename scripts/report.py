"""Write the report: one HTML page with the tables, the figures, the costs and what the numbers rest on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from milepost.campaign import load_campaign
from milepost.errors import run_step
from milepost.processes import end_with_snakemake
from milepost.records import read_record, read_summary
from milepost.report import render_report
from milepost.tables import MetricRow, ScoreRow, read_table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", required=True, help="results/tables/scores.csv")
    parser.add_argument("--metrics", required=True, help="results/tables/metrics.csv")
    parser.add_argument("--figures", type=Path, required=True, help="the folder of the figures")
    parser.add_argument("--results", type=Path, required=True, help="folder with evaluated/ and summaries/")
    parser.add_argument("--out", type=Path, required=True, help="the page")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    campaign = load_campaign()
    page = render_report(
        campaign.config.get("title", "Checkpoint evaluation"),
        read_table(args.scores, ScoreRow),
        read_table(args.metrics, MetricRow),
        args.figures,
        [read_record(args.results / "evaluated" / f"{ckpt}.json") for ckpt in campaign.checkpoints],
        [
            read_summary(args.results / "summaries" / ckpt / f"{task}.json")
            for ckpt in campaign.checkpoints
            for task in campaign.tasks
        ],
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_step(main)
