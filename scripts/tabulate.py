"""Put the summaries of all checkpoints and tasks into tables: CSV, Markdown, plain text, LaTeX, XLSX."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from milepost.campaign.shown import Shown, read_shown
from milepost.comparisons.rows import ComparisonRow, RankRow, StepRow, TrendRow
from milepost.errors import RecordError, run_step
from milepost.records import Summary, read_summary
from milepost.report.formats import latex, markdown, text
from milepost.report.tables import (
    Curve,
    MetricRow,
    ScoreRow,
    metric_rows,
    read_table,
    score_rows,
    with_marks,
    write_table,
)
from milepost.report.tables_to_read import comparison_table, coverage_table, metric_tables, score_table, trend_table
from milepost.report.workbook import write_workbook
from milepost.runtime.processes import end_with_snakemake


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="what the rule tells this step, a file")
    parser.add_argument("--summaries", required=True, type=Path, help="folder of {ckpt}/{task}.json")
    parser.add_argument("--compared", type=Path, help="folder of comparisons.csv and the files beside it, for marks")
    parser.add_argument("--csv", help="write the headline scores here, long")
    parser.add_argument("--metrics", help="write every metric here, long")
    parser.add_argument("--markdown", help="write the tables to read here")
    parser.add_argument("--text", help="write the summary table for a terminal here")
    parser.add_argument("--also", nargs="*", default=[], type=Path, help="write these, too: .tex for a paper, .xlsx")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    campaign = read_shown(args.settings)
    summaries = read_summaries(args.summaries, campaign)
    curves = {name: Curve(run=ckpt.run, step=ckpt.step) for name, ckpt in campaign.checkpoints.items()}
    shares = campaign.config.get("marks")
    rows = score_rows(summaries, curves, {name: task.title for name, task in campaign.tasks.items()}, shares)
    metrics = metric_rows(summaries, curves, shares)
    comparisons: list[ComparisonRow] = []
    trends: list[TrendRow] = []
    ranking: list[RankRow] = []
    if args.compared:
        comparisons = read_table(args.compared / "comparisons.csv", ComparisonRow)
        trends = read_table(args.compared / "trends.csv", TrendRow)
        ranking = read_table(args.compared / "ranking.csv", RankRow)
        rows = with_marks(rows, comparisons, read_table(args.compared / "steps.csv", StepRow), ranking)
    scores = [score_table(rows)]
    if campaign.config["tables"]["metrics"] == "all":
        scores += metric_tables(rows, metrics)
    compared = [table for table in (comparison_table(comparisons), trend_table(trends)) if table.lines]
    if args.csv:
        write_table(args.csv, ScoreRow, rows)
    if args.metrics:
        write_table(args.metrics, MetricRow, metrics)
    if args.markdown:
        _write(args.markdown, markdown([*scores, *compared, coverage_table(rows)]))
    if args.text:
        _write(args.text, text(rows))
    for path in args.also:
        if path.suffix == ".tex":
            _write(path, latex(scores, campaign.config["title"]))
        else:
            write_workbook(
                path,
                [*scores, *compared, coverage_table(rows)],
                {"scores": rows, "metrics": metrics, "comparisons": comparisons, "trends": trends, "ranking": ranking},
            )


def read_summaries(folder: Path, campaign: Shown) -> list[Summary]:
    """Read the summaries that exist; the tables show a gap for a missing one.

    Raises:
        RecordError: There is none: the folder is another one.
        StaleNumberError: One that another configuration than today's has made.
    """
    paths = [folder / ckpt / f"{task}.json" for ckpt in campaign.checkpoints for task in campaign.tasks]
    summaries = [campaign.check(read_summary(path), path) for path in paths if path.is_file()]
    if not summaries:
        raise RecordError(
            f"{folder} holds no summary of this campaign's checkpoints and tasks. Score answers first (`snakemake`), or "
            "correct the folder."
        )
    return summaries


def _write(path: str | Path, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    run_step(main)
