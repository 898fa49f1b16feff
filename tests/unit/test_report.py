import re
from html.parser import HTMLParser

import pytest

import report
from milepost.campaign import Campaign, Checkpoint, Serving, Task
from milepost.errors import RecordError
from milepost.records import write_record
from milepost.report import costs, inline_svg, provenance, render_report, unfinished
from milepost.tables import MetricRow, ScoreRow, write_table

NASTY = '<script>alert("1")</script>'


def row(ckpt="a", task="sums", **more):
    place = {"ckpt": ckpt, "run": "r", "step": 1, "task": task, "title": f"Title {NASTY}", "metric": "accuracy"}
    return ScoreRow(**{**place, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "truncated": 0.25, **more})


def metric(name, ckpt="a"):
    return MetricRow(
        ckpt=ckpt, run=None, step=1, task="sums", metric=name, value=0.5, stderr=0.1, ci_low=0.4, ci_high=0.6
    )


def note(ckpt="a", tasks=None, **ledger):
    return {"ckpt": ckpt, "tasks": tasks or {"sums": {"done": 9, "missing": 0}}, "ledger": ledger}


def summary(ckpt="a", task="sums", **facts):
    return {"ckpt": ckpt, "task": task, "task_version": 1, "scorer": "match", "provenance": facts}


@pytest.fixture
def figures(tmp_path):
    (tmp_path / "sums.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return tmp_path


def render(figures, rows=None, metrics=(), evaluated=(), summaries=()):
    return render_report(f"A {NASTY}", rows or [row()], metrics, figures, evaluated, summaries)


class Outline(HTMLParser):
    """The tags that are open, and every tag and attribute met."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(figures):
    errors = {"sums": {"done": 1, "missing": 2, "error": NASTY}}
    page = render(
        figures,
        [row(partial="2/9", harness=True), row(ckpt="b", value=None, metric=None)],
        [metric("accuracy"), metric(NASTY)],
        [note(tasks=errors, requests=3)],
        [summary(commit=NASTY)],
    )
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert "script" not in outline.tags
    assert NASTY not in page
    assert "&lt;script&gt;" in page
    for name, value in outline.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml;base64,", "#"))
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_what_is_partial_missing_or_unfinished_is_said_first(figures):
    plain = render(figures)
    assert 'class="banner"' not in plain
    page = render(figures, [row(partial="2/9"), row(ckpt="b", value=None, metric=None)])
    assert "<b>PARTIAL.</b>" in page
    assert "<b>Gaps.</b> 1 of 2 scores" in page
    page = render(figures, evaluated=[note(tasks={"sums": {"done": 1, "missing": 2}})])
    assert "<b>Not finished.</b>" in page
    assert "2 missing" in page


def test_scores_and_coverage_are_there(figures):
    page = render(figures, [row(n_samples=19, n_expected=20, harness=True)])
    for words in ["<b>0.500</b>", "[0.400, 0.600]", "25 %", "19 of 20", ">harness<"]:
        assert words in page


def test_a_missing_figure_is_an_error(tmp_path):
    with pytest.raises(RecordError, match=r"plot\.py"):
        inline_svg(tmp_path / "sums.svg")


def test_costs_are_summed_and_columns_of_zeros_left_out():
    found = costs([note("a", start_s=30, gpu_s=0, requests=1200), note("b", start_s=90, requests=1)])
    assert found["headings"] == ["server start", "requests"]
    assert found["lines"] == [["a", "30.0 s", "1,200"], ["b", "1 min 30 s", "1"]]
    assert found["total"] == ["all", "2 min 0 s", "1,201"]


def test_unfinished_tasks_are_those_with_a_gap_or_an_error():
    tasks = {"a": {"done": 1, "missing": 0}, "b": {"done": 1, "missing": 2}, "c": {"error": "no"}}
    assert unfinished([note("x", tasks)]) == [
        {"ckpt": "x", "task": "b", "done": 1, "missing": 2, "error": None},
        {"ckpt": "x", "task": "c", "done": 0, "missing": 0, "error": "no"},
    ]


def test_provenance_is_said_once():
    found = provenance(
        summary(ckpt, task, prompts=f"p-{task}", model=f"m-{ckpt}", commit=f"{ckpt}{task}", versions={"vllm": "1"})
        for ckpt in "ab"
        for task in ("s", "t")
    )
    assert found["common"] == {"task version": "1", "scorer": "match", "versions.vllm": "1"}
    assert found["by_task"] == {"prompts": {"s": "p-s", "t": "p-t"}}
    assert found["by_ckpt"] == {"model": {"a": "m-a", "b": "m-b"}}
    assert found["other"] == {"commit": ["as", "at", "bs", "bt"]}


def test_command(figures, monkeypatch):
    ckpt, task = summary()["ckpt"], summary()["task"]
    checkpoint = Checkpoint(ckpt, "model", None, "a", 0.0, 1, Serving())
    campaign = Campaign({"title": "Tiny"}, {ckpt: checkpoint}, {task: Task(task, {})})
    monkeypatch.setattr(report, "load_campaign", lambda: campaign)
    write_table(figures / "scores.csv", ScoreRow, [row()])
    write_table(figures / "metrics.csv", MetricRow, [metric("accuracy")])
    write_record(figures / f"evaluated/{ckpt}.json", note(requests=3))
    write_record(figures / f"summaries/{ckpt}/{task}.json", summary(commit="abc"))
    inputs = ["--scores", f"{figures}/scores.csv", "--metrics", f"{figures}/metrics.csv", "--figures", f"{figures}"]
    report.main([*inputs, "--results", f"{figures}", "--out", f"{figures}/new/report.html"])
    assert "<title>Tiny</title>" in (figures / "new/report.html").read_text()
