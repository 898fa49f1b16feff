"""Reads the item means of many checkpoints, by columns: a campaign's scores may be millions of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milepost.errors import RecordError
from milepost.records import read_records
from milepost.statistics.sign_flips import Scores

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class TaskScores:
    """The item means of all checkpoints on one task, items aligned by their ids.

    `means` has shape (n_ckpts, n_items), NaN where a checkpoint has no readable sample of an item, or no scores at all.
    `clusters` is None where no item names one; an item without a cluster is one of its own. `samples` is the largest
    number of readable samples of an item, for each checkpoint.
    """

    rows: Mapping[str, int]
    items: Sequence[str]
    means: Scores
    clusters: Sequence[str] | None
    samples: Sequence[int]

    def of(self, ckpt: str) -> Scores:
        """One checkpoint's item means, shape (n_items,)."""
        means: Scores = self.means[self.rows[ckpt]]
        return means

    def several(self, ckpts: Sequence[str]) -> Scores:
        """Item means of some checkpoints in their order, shape (n, n_items)."""
        return self.means[[self.rows[ckpt] for ckpt in ckpts]]


def read_task(folder: Path, ckpts: Sequence[str], task: str) -> TaskScores:
    """Read {folder}/{ckpt}/{task}.jsonl of every checkpoint; a missing or empty file is a row of NaN.

    Raises:
        RecordError: A malformed line, a sample that stands twice, or an item in two clusters.
    """
    import polars as pl

    tables = [read_items(folder / ckpt / f"{task}.jsonl") for ckpt in ckpts]
    rows = pl.concat([table.with_columns(row=pl.lit(row)) for row, table in enumerate(tables)])
    items = rows["id"].unique().sort()
    # Without any item, polars overlooks the type that is asked for.
    columns = rows["id"].replace_strict(items, np.arange(len(items)), return_dtype=pl.Int64).cast(pl.Int64)
    means = np.full((len(ckpts), len(items)), np.nan)
    means[rows["row"].to_numpy(), columns.to_numpy()] = rows["mean"].to_numpy()
    return TaskScores(
        rows={ckpt: row for row, ckpt in enumerate(ckpts)},
        items=items.to_list(),
        means=means,
        clusters=_clusters(rows, folder, task),
        samples=[max(table["samples"], default=0) for table in tables],
    )


def read_items(path: Path) -> pl.DataFrame:
    """One line per item of a file of scores: `id`, `mean` and number of readable `samples`, and `cluster`.

    Raises:
        RecordError: A malformed line, a sample that stands twice, or an item in two clusters.
    """
    import polars as pl

    schema = {"id": pl.String, "sample": pl.Int64, "score": pl.Float64, "cluster": pl.String}
    try:
        lines = pl.read_ndjson(path, schema=schema) if path.is_file() else pl.DataFrame(schema=schema)
    except pl.exceptions.PolarsError as error:
        # polars does not name the line; Milepost's own reader does, if the line is no JSON at all.
        for _ in read_records(path):
            pass
        raise RecordError(f"{path} is no file of scores: {error}. Score the answers again.") from None
    if lines["id"].null_count() or lines["sample"].null_count():
        raise RecordError(f"{path} is no file of scores: a line lacks 'id' or 'sample'. Score the answers again.")
    twice = lines.filter(lines.select("id", "sample").is_duplicated())
    if len(twice):
        raise RecordError(
            f"{path} holds sample {twice['sample'][0]} of item {twice['id'][0]!r} twice. Score the answers again."
        )
    items = lines.group_by("id", maintain_order=True).agg(
        mean=pl.col("score").mean(),
        samples=pl.col("score").count(),
        cluster=pl.col("cluster").drop_nulls().first(),
        clusters=pl.col("cluster").drop_nulls().n_unique(),
    )
    _check_clusters(items, str(path))
    return items.drop("clusters")


def _clusters(found: pl.DataFrame, folder: Path, task: str) -> list[str] | None:
    """The cluster of each item, in the order of their ids."""
    import polars as pl

    if found["cluster"].null_count() == len(found):
        return None
    items = (
        found.group_by("id")
        .agg(
            cluster=pl.col("cluster").drop_nulls().first(),
            clusters=pl.col("cluster").drop_nulls().n_unique(),
        )
        .sort("id")
    )
    _check_clusters(items, f"{folder}/*/{task}.jsonl")
    return items.select(pl.col("cluster").fill_null(pl.col("id")))["cluster"].to_list()


def _check_clusters(items: pl.DataFrame, where: str) -> None:
    torn = items.filter(items["clusters"] > 1)
    if len(torn):
        raise RecordError(
            f"{where}: item {torn['id'][0]!r} is in {torn['clusters'][0]} clusters. An item belongs to one: correct the "
            "task's data, and score the answers again."
        )
