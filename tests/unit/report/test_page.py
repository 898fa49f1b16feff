import re
from html.parser import HTMLParser

import pytest

import report
from milepost.campaign.shown import Point, Shown, ShownTask
from milepost.comparisons.rows import ComparisonRow, FlipRow, RankRow, StepRow, TrendRow
from milepost.errors import RecordError
from milepost.records import write_record
from milepost.report.page import SHOWN, UNFOLDED, Content, chosen, inline_svg, render_report
from milepost.report.partial import MissingRow
from milepost.report.parts import (
    advised,
    asked,
    costs,
    coverage,
    findings,
    flips_of,
    marks_of,
    needs_a_look,
    provenance,
)
from milepost.report.tables import MetricRow, ScoreRow, write_table
from milepost.report.tables_to_read import ALWAYS

NASTY = '<script>alert("1")</script>'


def row(ckpt="a", task="sums", **more):
    place = {"ckpt": ckpt, "run": "r", "step": 1, "task": task, "title": f"Title {NASTY}", "metric": "accuracy"}
    return ScoreRow(**{**place, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "truncated": 0.25, **more})


def metric(name, ckpt="a"):
    return MetricRow(
        ckpt=ckpt, run=None, step=1, task="sums", metric=name, value=0.5, stderr=0.1, ci_low=0.4, ci_high=0.6
    )


def summary(ckpt="a", task="sums", **facts):
    return {"ckpt": ckpt, "task": task, "task_version": 1, "scorer": "match", "provenance": facts}


def pair(task="sums", title="Sums", **more):
    numbers = {"value_a": 0.2, "value_b": 0.7, "delta": 0.5, "ci_low": 0.3, "ci_high": 0.7, "p_adjusted": 0.0123}
    return ComparisonRow(family="pairs", ckpt_a="a", ckpt_b="b", task=task, title=title, **{**numbers, **more})


def trend(title="Sums", run="r", **more):
    place = {"run": run, "task": title.lower(), "title": title, "metric": "m", "n_steps": 4, "n_scored": 4}
    return TrendRow(**{**place, "reference": "a", "reference_step": 0.0, **more})


def step_row(ckpt="a", **more):
    return StepRow(**{"run": "r", "task": "sums", "title": "Sums", "metric": "m", "ckpt": ckpt, "step": 1.0, **more})


@pytest.fixture
def figures(tmp_path):
    (tmp_path / "sums.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return tmp_path


def render(figures, rows=None, **more):
    return render_report(Content(title=f"A {NASTY}", scores=rows or [row()], figures=figures, **more))


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


@pytest.fixture
def hostile(figures):
    """A page of which every text is a script."""
    bad = {"title": NASTY, "note": NASTY, "metric": NASTY, "partial": NASTY}
    return render(
        figures,
        [row(partial=NASTY, harness=True, run=NASTY), row(ckpt=NASTY, value=None, metric=None)],
        metrics=[metric("accuracy"), metric(NASTY)],
        comparisons=[
            ComparisonRow(family=NASTY, ckpt_a=NASTY, ckpt_b=NASTY, task=NASTY, delta=delta, **bad)
            for delta in (None, 0.1)
        ],
        flips=[
            FlipRow(ckpt_a=NASTY, ckpt_b="b", task=NASTY, item=NASTY, score_a=0, score_b=1, delta=1, change="better")
        ],
        steps=[step_row(NASTY, first_better=True)],
        trends=[
            TrendRow(run=NASTY, task=NASTY, n_steps=2, n_scored=2, reference=NASTY, correction=NASTY, better_since=NASTY,
                     better_since_step=1, lost_since=NASTY, regressed_since=NASTY, **bad)
        ],
        ranking=[
            RankRow(task=NASTY, rank=rank, ckpt=NASTY, run=NASTY, step=1, value=rank, letters=NASTY, **bad)
            for rank in (None, 1)
        ],
        ledgers={NASTY: {"requests": 3}},
        summaries=[
            {**summary(commit=NASTY, model=NASTY), "advice": NASTY, "stderr": 0.1},
            {**summary(ckpt=NASTY, commit="x", model="y"), "advice": NASTY, "stderr": 0.2},
        ],
        headers=[{"task": "sums", "samples": 1, "sampling": {"stop": [NASTY]}}],
        packages={"numpy": NASTY},
        missing=[MissingRow(ckpt=NASTY, task=NASTY, title=NASTY, state=NASTY, reason=NASTY)],
    )  # fmt: skip


def test_the_page_is_whole_loads_nothing_and_runs_nothing(hostile):
    outline = Outline()
    outline.feed(hostile)
    assert outline.open == []
    assert "script" not in outline.tags
    assert NASTY not in hostile
    assert hostile.count("&lt;script&gt;") > 40
    for name, value in outline.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml;base64,", "#"))
    assert not re.search(r"url\(|@import|https?://", hostile)
    assert "default-src 'none'" in hostile


def test_links_inside_the_page_lead_somewhere(hostile):
    outline = Outline()
    outline.feed(hostile)
    ids = {value for name, value in outline.attributes if name == "id"}
    assert {value[1:] for name, value in outline.attributes if name == "href"} <= ids


def test_a_page_of_scores_alone_says_what_is_absent(figures):
    page = render(figures)
    for words in ["No comparison was made", "No evaluation has left an account", "No score is there whose origin"]:
        assert words in page
    for words in ['class="banner"', "Ranking", "Since when?"]:
        assert words not in page


def test_what_is_partial_or_missing_is_said_first(figures):
    page = render(figures, [row(partial="2/9"), row(ckpt="b", value=None, metric=None)])
    assert "Only part of the items was asked" in page
    assert "<b>Gaps.</b> 1 of 2 scores" in page
    missing = [MissingRow(ckpt="b", task="sums", title="Sums", state="not finished", reason="9 answers stored so far")]
    page = render(figures, [row(), row(ckpt="b", value=None, metric=None)], missing=missing)
    assert "<title>PARTIAL: A" in page
    assert "1 of 2 scores are missing" in page
    assert "1 not finished" in page
    assert "9 answers stored so far" in page


def test_scores_and_coverage_are_there(figures):
    page = render(figures, [row(n_samples=19, n_expected=20, harness=True)])
    for words in ["<b>0.500</b>", "[0.400, 0.600]", "25 %", "19 of 20", ">harness<"]:
        assert words in page


def test_unfinished_reasoning_and_its_tokens_are_there(figures):
    page = render(figures, [row(reasoning_cut=0.375, reasoning_tokens=120.5)])
    for words in ["reasoning cut", "37.5 %", "of reasoning", "120.5", "reasoning that did not end"]:
        assert words in page
    assert "of reasoning<" not in render(figures, [row()])


def test_comparisons_are_there(figures):
    rows = [
        pair(significant=True, detectable=0.21, n_a=9, n_b=8, n_common=7, better=5, worse=1),
        pair(delta=None, note="too little overlap"),
    ]
    page = render(figures, comparisons=rows, trends=[trend(better_since="b", better_since_step=300.0, p_better=0.02)])
    for words in ["+0.500", "[+0.300, +0.700]", "0.012", "0.210", "of 9 and 8", "too little overlap", "step 300"]:
        assert words in page


def test_a_large_campaign_stays_usable(figures):
    ckpts = [f"c{number:03}" for number in range(500)]
    rows = [row(ckpt, step=number, run="r") for number, ckpt in enumerate(ckpts)]
    pairs = [pair(title=f"pair {number}") for number in range(500)]
    page = render(figures, rows, ledgers={ckpt: {"busy_s": 3600.0} for ckpt in ckpts}, comparisons=pairs)
    assert page.count("<tr") < 5 * UNFOLDED + 2 * SHOWN
    assert "400 of 500 lines are shown; all are in <code>tables/scores.csv</code>" in page
    # In the first table: the ends of the run.
    first = page[page.index('class="scores"') : page.index("<details>")]
    assert [ckpt for ckpt in ckpts if f">{ckpt}<" in first] == ["c000", "c499"]


def test_of_too_many_checkpoints_the_telling_ones_are_chosen():
    rows = {f"{run}{number}": [row(f"{run}{number}", run=run, step=number)] for run in "ab" for number in range(30)}
    rows["base"] = [row("base", run=None, step=None)]
    assert chosen(rows, {("a7", "sums"): "first", ("a8", "sums"): "better"}) == ["a0", "a7", "a29", "b0", "b29", "base"]
    assert chosen({"x": [row("x")]}, {}) == ["x"]


def test_marks_tell_the_first_better_step_from_later_ones():
    steps = [step_row("a"), step_row("b", better=True, first_better=True), step_row("c", better=True)]
    assert marks_of([*steps, step_row("d", worse=True)]) == {
        ("b", "sums"): "first", ("c", "sums"): "better", ("d", "sums"): "worse",
    }  # fmt: skip


def test_findings_are_sentences():
    proven = {"p_better": 0.01, "p_better_adjusted": 0.03, "p_regressed_adjusted": 0.03}
    rows = [
        trend("Sums", better_since="b", better_since_step=2.0, lost_since="d", lost_since_step=4.0, **proven),
        trend(
            "Words",
            regressed_since="c",
            regressed_since_step=3.0,
            regressed_below="b",
            regressed_below_step=2.0,
            p_better=0.5,
            p_better_adjusted=0.5,
            p_regressed_adjusted=0.04,
        ),
        # Each passes by itself; one of so many tasks does by luck.
        trend(
            "Luck",
            better_since="b",
            better_since_step=2.0,
            p_better=0.04,
            p_better_adjusted=0.4,
            regressed_since="c",
            regressed_since_step=3.0,
            p_regressed=0.04,
            p_regressed_adjusted=0.4,
        ),
        trend("Blank", note="no other step to compare with"),
        trend("Sums", run="short", n_scored=1),
    ]
    assert findings(rows) == [
        ("r", [
            "Better than its start on 1 of 3 tasks: Sums (first at step 2).",
            "No longer shown to be better than its start: Sums (from step 4).",
            "Regressed: Words (from step 3, worse than step 2).",
            "Not tested: Blank.",
        ]),
        ("short", ["Fewer than two steps with scores: nothing to compare."]),
    ]  # fmt: skip


def test_flips_are_counted_with_examples():
    def flip(item, change):
        return FlipRow(
            ckpt_a="a", ckpt_b="b", task="t", item=item, score_a=0, score_b=1, delta=1 if change == "better" else -1,
            change=change,
        )  # fmt: skip

    (found,) = flips_of([flip(f"i{number}", "better") for number in range(5)] + [flip("j", "worse")])
    assert (found.better, found.worse) == (5, 1)
    assert found.examples == {"better": ["i0", "i1", "i2"], "worse": ["j"]}


def test_coverage_names_the_worst():
    rows = [
        row("a", truncated=0.1),
        row("b", truncated=0.3, empty=0.0),
        row("c", value=None, metric=None, truncated=None),
    ]
    (found,) = coverage(rows, ALWAYS)
    assert (found["scored"], found["of"]) == (2, 3)
    assert found["worst"]["truncated"] == (0.3, "b")
    assert found["worst"]["failed"] == (None, None)
    assert [needs_a_look(r) for r in [row(truncated=0.01), *rows]] == [False, True, True, True]


def test_a_missing_figure_is_an_error(tmp_path):
    with pytest.raises(RecordError, match=r"plot\.py"):
        inline_svg(tmp_path / "sums.svg")


def test_what_would_narrow_the_widest_interval_of_each_task_is_said(figures):
    def advising(ckpt, stderr, advice, task="sums"):
        return {**summary(ckpt, task), "stderr": stderr, "advice": advice}

    summaries = [
        advising("a", None, "Nothing varies."),
        advising("b", 0.02, "100 more items by 40 %."),
        advising("c", 0.01, "100 more items by 20 %."),
        {**summary("d"), "stderr": 0.9},  # a harness's own number
    ]
    assert {task: told["ckpt"] for task, told in advised(summaries).items()} == {"sums": "b"}
    page = render(figures, [row("a"), row("b"), row("c")], summaries=summaries)
    assert page.count("more items by") == 1
    assert re.search(r'</b> 100 more items by 40 %\. <span class="ci">\(b\)</span>', page)
    assert "What would narrow" not in render(figures, summaries=summaries[3:])


def test_costs_are_summed_and_columns_of_zeros_left_out():
    found = costs({"a": {"start_s": 30, "gpu_s": 0, "requests": 1200}, "b": {"start_s": 90, "requests": 1}})
    assert found["headings"] == ["server start", "requests"]
    assert found["lines"] == [["a", "30.0 s", "1,200"], ["b", "1 min 30 s", "1"]]
    assert found["total"] == ["all", "2 min 0 s", "1,201"]


def test_costs_name_gpu_hours_and_the_idle_share_of_all_time():
    first = {"start_s": 60.0, "busy_s": 120.0, "idle_s": 20.0, "gpu_s": 7200.0}
    found = costs({"a": first, "b": {"busy_s": 200.0, "gpu_s": 1800.0}})
    assert found["headings"] == ["server start", "busy", "idle", "idle share", "GPU hours"]
    assert [line[4:] for line in found["lines"]] == [["10.0 %", "2.00"], ["0.0 %", "0.50"]]
    assert found["total"][4:] == ["5.0 %", "2.50"]
    assert found["sums"]["gpu_s"] == "2.50"


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


def test_how_a_task_asks_comes_with_its_seed():
    header = {"task": "sums", "kind": "native", "samples": 4, "generation": 1, "sampling": {"temperature": 0.7}}
    assert asked([header]) == {"sums": {"samples": "4", "generation": "1", "seed": "0", "temperature": "0.7"}}
    assert asked([{**header, "sampling": {"seed": 7}}])["sums"]["seed"] == "7"
    nemo = {**header, "sampling": {}, "harness": {"eval_type": "ifeval", "params": {"temperature": 0}}}
    assert asked([nemo])["sums"] == {
        "samples": "4", "generation": "1", "eval type": "ifeval", "params.temperature": "0",
    }  # fmt: skip


def test_command(figures):
    ckpt, task = summary()["ckpt"], summary()["task"]
    shown = Shown({ckpt: Point(ckpt, "a", 0.0)}, {task: ShownTask(task)}, {"title": "Tiny"})
    write_record(figures / "settings.json", shown.record())
    write_table(figures / "scores.csv", ScoreRow, [row()])
    write_table(figures / "metrics.csv", MetricRow, [metric("accuracy")])
    write_table(figures / "trends.csv", TrendRow, [trend(better_since="x", better_since_step=1234.0)])
    write_table(figures / "missing.csv", MissingRow, [])
    write_record(figures / f"store/{ckpt}/.ledger.jsonl", {"attempt": "x", "gpus": 1, "busy_s": 36000.0, "requests": 3})
    write_record(figures / f"summaries/{ckpt}/{task}.json", summary(commit="abc"))
    write_record(figures / f"{task}.jsonl", {"task": task, "samples": 4, "sampling": {"seed": 77}})
    inputs = ["--tables", f"{figures}", "--figures", f"{figures}", "--prompts", f"{figures}"]
    inputs += ["--missing", f"{figures}/missing.csv"]
    inputs += ["--settings", f"{figures}/settings.json", "--store", f"{figures}/store"]
    report.main([*inputs, "--summaries", f"{figures}/summaries", "--out", f"{figures}/new/report.html"])
    page = (figures / "new/report.html").read_text()
    for words in ["<title>Tiny</title>", "step 1234", "<code>77</code>", "<code>abc</code>", "scipy", "10.00"]:
        assert words in page


def test_a_mark_says_what_something_is_better_than(figures):
    said = render(
        figures, comparisons=[pair(significant=True)], trends=[trend(regressed_since="c", regressed_below_step=3.0)]
    )
    assert 'title="better than a"' in said
    assert 'title="worse than step 3"' in said


def test_the_page_shows_no_end_that_a_number_is_not_at(figures):
    rows = [row(value=0.9999, ci_low=-0.0001, ci_high=0.99996, truncated=0.9999, mean_tokens=0.04)]
    said = render(figures, rows)
    for shown in ("0.9999", "[-0.0001, 0.99996]", "&gt;99.9 %", ">0.04<"):
        assert shown in said
