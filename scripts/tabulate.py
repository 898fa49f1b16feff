"""Put the summaries of all checkpoints and tasks into tables: CSV, Markdown, plain text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from milepost.campaign import load_campaign
from milepost.errors import run_step
from milepost.processes import end_with_snakemake
from milepost.records import read_summary
from milepost.tables import Curve, MetricRow, ScoreRow, markdown, metric_rows, score_rows, text, write_table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summaries", required=True, type=Path, help="folder of {ckpt}/{task}.json")
    parser.add_argument("--csv", help="write the headline scores here, long")
    parser.add_argument("--metrics", help="write every metric here, long")
    parser.add_argument("--markdown", help="write the tables to read here")
    parser.add_argument("--text", help="write the summary table for a terminal here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    campaign = load_campaign()
    summaries = [
        read_summary(args.summaries / ckpt / f"{task}.json") for ckpt in campaign.checkpoints for task in campaign.tasks
    ]
    curves = {name: Curve(run=ckpt.run, step=ckpt.step) for name, ckpt in campaign.checkpoints.items()}
    rows = score_rows(summaries, curves, {name: task.title for name, task in campaign.tasks.items()})
    if args.csv:
        write_table(args.csv, ScoreRow, rows)
    if args.metrics:
        write_table(args.metrics, MetricRow, metric_rows(summaries, curves))
    if args.markdown:
        _write(args.markdown, markdown(rows))
    if args.text:
        _write(args.text, text(rows))


def _write(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    run_step(main)
