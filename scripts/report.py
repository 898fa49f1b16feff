"""Write the report: one HTML page with the tables, the figures, the costs and what the numbers rest on."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from milepost.campaign.shown import read_shown
from milepost.client.bills import read_bills
from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.errors import RecordError, run_step
from milepost.records import read_records, read_summary
from milepost.report.page import Content, render_report
from milepost.report.partial import MissingRow
from milepost.report.tables import MetricRow, ScoreRow, read_table
from milepost.runtime.processes import end_with_snakemake
from milepost.store.ledger import sums_so_far

# What decides tables, tests and figures.
PACKAGES = ("numpy", "scipy", "statsmodels", "polars", "pandas", "matplotlib", "seaborn", "snakemake")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="what the rule tells this step, a file")
    parser.add_argument("--tables", type=Path, required=True, help="the folder of the tables")
    parser.add_argument("--figures", type=Path, required=True, help="the folder of the figures")
    parser.add_argument("--summaries", type=Path, required=True, help="folder of {ckpt}/{task}.json")
    parser.add_argument("--store", type=Path, required=True, help="results/store, for what each checkpoint took")
    parser.add_argument("--bills", type=Path, help="results/bills.json, for what was paid to others")
    parser.add_argument("--prompts", type=Path, help="folder of {task}.jsonl, for how each task asks")
    parser.add_argument("--missing", help="missing.csv: what has no score yet; marks the page PARTIAL")
    parser.add_argument("--out", type=Path, required=True, help="the page")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    campaign = read_shown(args.settings)
    summaries = [args.summaries / ckpt / f"{task}.json" for ckpt in campaign.checkpoints for task in campaign.tasks]
    page = render_report(
        Content(
            title=campaign.config["title"],
            scores=read_table(args.tables / "scores.csv", ScoreRow),
            metrics=read_table(args.tables / "metrics.csv", MetricRow),
            comparisons=read_if_any(args.tables / "comparisons.csv", ComparisonRow),
            flips=read_if_any(args.tables / "flips.csv", FlipRow),
            steps=read_if_any(args.tables / "steps.csv", StepRow),
            trends=read_if_any(args.tables / "trends.csv", TrendRow),
            ranking=read_if_any(args.tables / "ranking.csv", RankRow),
            figures=args.figures,
            ledgers={ckpt: ledger for ckpt in campaign.checkpoints if (ledger := sums_so_far(args.store / ckpt))},
            bills=read_bills(args.bills) if args.bills else {},
            summaries=[campaign.check(read_summary(path), path) for path in summaries if path.exists()],
            headers=headers(args.prompts, campaign.tasks) if args.prompts else [],
            packages=packages(),
            missing=read_table(args.missing, MissingRow) if args.missing else [],
        )
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(page, encoding="utf-8")


def read_if_any(path: Path, kind: type[Any]) -> list[Any]:
    return read_table(path, kind) if path.exists() else []


def headers(folder: Path, tasks: Iterable[str]) -> list[dict[str, Any]]:
    """Read the headers of the prompts files that exist."""
    heads = []
    for task in tasks:
        try:
            header = next(read_records(folder / f"{task}.jsonl"), {})
        except RecordError:
            continue
        if "task" in header and "samples" in header:
            heads.append(header)
    return heads


def packages() -> dict[str, str]:
    """Versions of the packages that make tables, tests and figures, as far as they are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    run_step(main)
