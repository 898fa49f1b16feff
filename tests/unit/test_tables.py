import csv

import pytest

import tabulate
from milepost.campaign import Campaign, Checkpoint, Serving, Task
from milepost.errors import ConfigError, RecordError
from milepost.records import write_record
from milepost.tables import (
    MetricRow,
    ScoreRow,
    markdown,
    metric_rows,
    read_table,
    samples_cell,
    score_cell,
    score_rows,
    text,
    write_table,
)

CURVES = {"a-0": {"run": "a", "step": 0}, "a-9": {"run": "a", "step": 9}}


def summary(ckpt="a-0", task="sums", value=0.5, ci95=(0.4, 0.6), **more):
    estimate = {"value": value, "stderr": 0.05, "ci95": ci95}
    rates = {"truncated": 0.1, "empty": 0.0, "unreadable": 0.0, "failed": 0.05}
    counts = {"n_items": 10, "n_samples": 19, "n_errors": 1, "n_unscored": 0, "mean_tokens": 7.5}
    names = {"ckpt": ckpt, "task": task, "task_version": 1, "scorer": "match", "metric": "accuracy"}
    rest = {"variance": {"items": None, "decoding": None}, "provenance": {"expected": {"samples": 20}}}
    return {**names, **estimate, **counts, "metrics": {"accuracy": estimate}, "rates": rates, **rest, **more}


def row(**more):
    place = {"ckpt": "a-0", "run": "a", "step": 0, "task": "sums", "title": "Sums", "metric": "accuracy"}
    return ScoreRow(**{**place, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, **more})


def test_rows_follow_the_curves_and_a_missing_summary_leaves_a_row():
    rows = score_rows([summary("a-9", "b"), summary("a-9", "a"), summary("a-0", "a")], CURVES, {"a": "Title"})
    assert [(r.ckpt, r.task, r.title, r.value) for r in rows] == [
        ("a-0", "b", "b", None),
        ("a-0", "a", "Title", 0.5),
        ("a-9", "b", "b", 0.5),
        ("a-9", "a", "Title", 0.5),
    ]


def test_a_row_has_what_stands_beside_the_score():
    found = score_rows([summary(partial={"limit": 20, "of": 100}, chance=0.25, harness=True)], CURVES)[0]
    assert (found.run, found.step, found.ci_low, found.ci_high) == ("a", 0, 0.4, 0.6)
    assert (found.n_samples, found.n_expected, found.truncated, found.failed) == (19, 20, 0.1, 0.05)
    assert (found.partial, found.chance, found.harness, found.mean_tokens) == ("20/100", 0.25, True, 7.5)


def test_rows_survive_the_file(tmp_path):
    rows = score_rows([summary(partial={"limit": 20, "of": 100}), summary("a-9", "b", None, None)], CURVES)
    write_table(tmp_path / "new/scores.csv", ScoreRow, rows)
    assert read_table(tmp_path / "new/scores.csv", ScoreRow) == rows
    metrics = metric_rows([summary("a-9"), summary()], CURVES)
    write_table(tmp_path / "metrics.csv", MetricRow, metrics)
    assert read_table(tmp_path / "metrics.csv", MetricRow) == metrics
    assert [r.ckpt for r in metrics] == ["a-0", "a-9"]


def test_a_name_that_looks_like_a_number_stays_a_name(tmp_path):
    write_table(tmp_path / "scores.csv", ScoreRow, [row(ckpt="007", run="1e3", title="12")])
    found = read_table(tmp_path / "scores.csv", ScoreRow)[0]
    assert (found.ckpt, found.run, found.title) == ("007", "1e3", "12")


@pytest.mark.parametrize("content", ["ckpt,other\na,b\n", "ckpt,value\na,high\n"])
def test_another_table_is_an_error(tmp_path, content):
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(RecordError, match="not a table of this version"):
        read_table(tmp_path / "scores.csv", ScoreRow)


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        read_table(tmp_path / "scores.csv", ScoreRow)


@pytest.mark.parametrize(
    ("summaries", "error", "message"),
    [
        ([summary("zz")], ConfigError, "checkpoint 'zz'. Checkpoints of this table: a-0, a-9"),
        ([summary(), summary()], RecordError, "Two summaries are of checkpoint 'a-0' and task 'sums'"),
    ],
)
def test_summaries_that_do_not_fit(summaries, error, message):
    with pytest.raises(error, match=message):
        score_rows(summaries, CURVES)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "0.500 [0.400, 0.600]"),
        ({"ci_low": None, "ci_high": None}, "0.500"),
        ({"partial": "2/9"}, "0.500 [0.400, 0.600] PARTIAL 2/9"),
        ({"harness": True}, "0.500 [0.400, 0.600] (harness)"),
        ({"value": None}, "not scored"),
        ({"metric": None, "value": None}, "missing"),
    ],
)
def test_score_cell(changes, expected):
    assert score_cell(row(**changes)) == expected


@pytest.mark.parametrize(
    ("read", "asked", "cell"), [(None, None, "-"), (20, 20, "20"), (20, None, "20"), (19, 20, "19 of 20")]
)
def test_samples_cell(read, asked, cell):
    assert samples_cell(row(n_samples=read, n_expected=asked)) == cell


def test_markdown_has_both_tables_and_escapes_titles():
    page = markdown([row(title="A|B <script> `x`\n2", partial="2/9", truncated=0.125)])
    assert "| checkpoint | run | step | A\\|B \\<script\\> \\`x\\` 2 |" in page
    assert "12.5 %" in page
    assert "PARTIAL: only so many" in page
    assert "harness:" not in page


def test_text_is_aligned_and_wide_tables_turn_long():
    rows = [row(), row(ckpt="a-10000", step=10000)]
    wide = text(rows).splitlines()
    assert wide[0].split() == ["checkpoint", "run", "step", "Sums"]
    assert len({line.index("0.500") for line in wide[1:3]}) == 1
    assert text(rows, width=20).splitlines()[0].split() == ["checkpoint", "task", "score", "items", "samples"]


def test_no_run_and_no_step_need_no_columns():
    assert text([row(run=None, step=None)]).splitlines()[0].split() == ["checkpoint", "Sums"]


def test_command(tmp_path, monkeypatch):
    checkpoint = Checkpoint("a-9", "model", None, "a", 9, 1, Serving())
    campaign = Campaign({}, {"a-9": checkpoint}, {"sums": Task("sums", {"title": "Sums & more"})})
    monkeypatch.setattr(tabulate, "load_campaign", lambda: campaign)
    write_record(tmp_path / "summaries/a-9/sums.json", {**summary(), "ckpt": "a-9"})
    out = {name: str(tmp_path / f"tables/{name}") for name in ("csv", "metrics", "markdown", "text")}
    places = [word for name, path in out.items() for word in (f"--{name}", path)]
    tabulate.main(["--summaries", str(tmp_path / "summaries"), *places])
    with open(out["csv"], newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["ckpt"], line["run"], line["title"], line["value"], line["step"]) for line in lines] == [
        ("a-9", "a", "Sums & more", "0.5", "9"),
    ]
    assert "Sums & more" in (tmp_path / "tables/markdown").read_text()
    assert "Sums & more" in (tmp_path / "tables/text").read_text()
