"""Writes how the judges of a task compare, from the scores of all checkpoints."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from milepost.judges.comparison import JudgedAnswers, JudgePair, compare_judges, draw_pairs
from milepost.scorers import CheckpointResults


def write_comparison(out: Path, title: str, results: Sequence[CheckpointResults], names: Mapping[str, str]) -> None:
    """Write judges.csv and, where there are pairs to draw, judges.svg and judges.png.

    Args:
        out: A folder that is there.
        title: The task's.
        results: Those of every checkpoint.
        names: By judge, the name of its headline metric.
    """
    judged = {}
    for judge, name in names.items():
        lines = [(one.ckpt, score) for one in results for score in one.scores]
        judged[judge] = JudgedAnswers(
            {
                (ckpt, score["id"], score["sample"]): value
                for ckpt, score in lines
                if (value := score["metrics"].get(name)) is not None
            },
            {
                (ckpt, score["id"], score["sample"], one["about"]): one["value"]
                for ckpt, score in lines
                for one in score.get("judged", {}).get(judge, [])
                if one["value"] is not None
            },
        )
    pairs = compare_judges(judged, [one.ckpt for one in results])
    with (out / "judges.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [column.name for column in fields(JudgePair)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(pair) for pair in pairs)
    if pairs:
        draw_pairs(out / "judges", title, pairs, judged)
