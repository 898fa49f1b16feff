import csv
import re
import shutil
import subprocess
import zipfile
from xml.etree import ElementTree

import pytest

import tabulate
from milepost.campaign.shown import Point, Shown, ShownTask
from milepost.comparisons.rows import ComparisonRow, RankRow, StepRow, TrendRow
from milepost.errors import ConfigError, RecordError
from milepost.records import write_record
from milepost.report.formats import escape_latex, latex, markdown, text
from milepost.report.tables import (
    MetricRow,
    ScoreRow,
    metric_rows,
    read_table,
    samples_cell,
    score_cell,
    score_rows,
    short,
    short_cell,
    with_marks,
    write_table,
)
from milepost.report.tables_to_read import (
    MOST_LINES,
    Table,
    comparison_table,
    coverage_table,
    metric_tables,
    score_table,
    trend_table,
)
from milepost.report.workbook import write_workbook

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
    titles = {"a": "Title", "c": "No score at all"}
    rows = score_rows([summary("a-9", "b"), summary("a-9", "a"), summary("a-0", "a")], CURVES, titles)
    assert [(r.ckpt, r.task, r.title, r.value) for r in rows] == [
        ("a-0", "a", "Title", 0.5),
        ("a-0", "c", "No score at all", None),
        ("a-0", "b", "b", None),
        ("a-9", "a", "Title", 0.5),
        ("a-9", "c", "No score at all", None),
        ("a-9", "b", "b", 0.5),
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
    rows = [row(title="A|B <script> `x`\n2 [a](javascript:b) _c_ d_e &lt;", partial="2/9", truncated=0.125)]
    page = markdown([score_table(rows), coverage_table(rows)])
    title = r"A\|B \<script> \`x\` 2 [a]\(javascript:b) \_c\_ d_e \&lt;"
    assert f"| checkpoint | run | step | {title} |" in page
    assert page.startswith("# Scores\n")
    assert "## Coverage\n" in page
    assert "12.5 %" in page
    assert "PARTIAL: only so many" in page
    assert "harness:" not in page


def test_unfinished_reasoning_and_its_tokens_stand_beside_the_coverage():
    table = coverage_table([row(reasoning_cut=0.25, reasoning_tokens=120.5), row(ckpt="b")])
    assert table.header[-3:] == ["reasoning cut", "mean tokens", "of reasoning"]
    assert [line[-3::2] for line in table.lines] == [["25 %", "120.5"], ["-", "-"]]
    assert "of reasoning" not in coverage_table([row()]).header


def test_text_is_aligned_and_wide_tables_turn_long():
    rows = [row(), row(ckpt="a-10000", step=10000)]
    wide = text(rows).splitlines()
    assert wide[0].split() == ["checkpoint", "run", "step", "Sums"]
    assert len({line.index("0.500") for line in wide[1:3]}) == 1
    assert text(rows, width=20).splitlines()[0].split() == ["checkpoint", "task", "score", "items", "samples"]


def test_no_run_and_no_step_need_no_columns():
    assert text([row(run=None, step=None)]).splitlines()[0].split() == ["checkpoint", "Sums"]


@pytest.mark.parametrize(
    ("value", "stderr", "shown"),
    [
        (0.74166, 0.0349, "0.742(35)"),
        (0.5, 0.1, "0.50(10)"),
        (0.5, 0.0996, "0.50(10)"),
        (0.5, 0.00997, "0.500(10)"),
        (0.5, 0.0000123, "0.500000(12)"),
        (-0.25, 0.05, "-0.250(50)"),
        (-61.28, 1.23, "-61.3(1.2)"),
        (-61.28, 9.96, "-61(10)"),
        (1234.5, 123.0, "1,234(123)"),
        (1.0, 0.0, "1.000"),
        (0.5, None, "0.500"),
    ],
)
def test_short_form_has_two_digits_of_the_error(value, stderr, shown):
    assert short(value, stderr) == shown


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "0.500(40)"),
        ({"change": "better", "letters": "ab"}, "0.500(40)↑ ab"),
        ({"change": "worse"}, "0.500(40)↓"),
        ({"partial": "2/9", "letters": "c"}, "0.500(40) c PARTIAL 2/9"),
        ({"harness": True}, "0.500(40) (harness)"),
        ({"value": None}, "not scored"),
        ({"metric": None, "value": None}, "missing"),
    ],
)
def test_short_cell(changes, expected):
    assert short_cell(row(**{"stderr": 0.04, **changes})) == expected


def step_row(ckpt, **more):
    place = {"run": "a", "task": "sums", "title": "Sums", "metric": "m", "step": 1.0, "reference": "a-0"}
    return StepRow(ckpt=ckpt, **{**place, **more})


def compared(**more):
    names = {"family": "against", "ckpt_a": "a-9", "ckpt_b": "a-0", "task": "sums", "title": "Sums"}
    return ComparisonRow(**{**names, "delta": -0.2, "significant": True, "change": "worse", **more})


def ranked(ckpt, letters):
    return RankRow(task="sums", title="Sums", metric="m", rank=1, ckpt=ckpt, run="a", step=0.0, letters=letters)


def test_marks_come_from_the_first_step_or_from_the_reference_that_is_named():
    rows = [row(), row(ckpt="a-9", step=9)]
    steps = [step_row("a-0"), step_row("a-9", better=True)]
    ranking = [ranked("a-9", "a"), ranked("a-0", None)]
    found = with_marks(rows, [compared(family="pairs")], steps, ranking)
    assert [(r.reference, r.change, r.letters) for r in found] == [(None, None, None), ("a-0", "better", "a")]
    found = with_marks(rows, [compared()], steps, ranking)
    assert [(r.reference, r.change) for r in found] == [("a-9", "worse"), (None, None)]
    assert "↑ ↓: better or worse than a-9" in " ".join(score_table(found).notes)
    # What is not significant has no arrow, and a row over tasks is none of a task.
    assert [r.change for r in with_marks(rows, [compared(significant=False, change=None)], steps, [])] == [None, None]
    assert [r.change for r in with_marks(rows, [compared(task=None)], steps, [])] == [None, None]


def test_two_runs_have_a_first_step_each():
    rows = [row(ckpt="x", reference="a", change="worse"), row(ckpt="y", reference="b", change="better")]
    assert "than the first step of its run" in " ".join(score_table(rows).notes)


def test_comparisons_to_read():
    rows = [
        compared(ci_low=-0.3, ci_high=-0.1, p_adjusted=0.00001, n_a=9, n_b=10, n_common=8, value_a=0.7, better=0),
        compared(delta=None, significant=False, change=None, note="no scores yet: a-0", partial="2/9"),
    ]
    table = comparison_table(rows)
    first, second = (dict(zip(table.header, line, strict=True)) for line in table.lines)
    assert first["B - A"] == "-0.200 [-0.300, -0.100]↓"
    assert (first["p"], first["items"], first["gained"], first["lost"]) == ("<0.001", "8 of 9 and 10", "0", "-")
    assert (second["B - A"], second["note"]) == ("-", "PARTIAL 2/9; no scores yet: a-0")


def test_tables_say_so_where_lower_is_better():
    assert score_table([row(direction="lower"), row(ckpt="b")]).header[-1] == "Sums (lower is better)"
    better = compared(change="better", direction="lower")
    assert comparison_table([better]).lines[0][2] == "Sums (lower is better)"
    assert comparison_table([better]).lines[0][5] == "-0.200↑"


def test_very_many_comparisons_are_shown_over_tasks():
    rows = [compared(ckpt_b=f"c{n}") for n in range(MOST_LINES)] + [compared(task=None, title="Mean of 2 tasks")]
    table = comparison_table(rows)
    assert [line[2] for line in table.lines] == ["Mean of 2 tasks"]
    assert f"1 of {MOST_LINES + 1} comparisons are shown" in " ".join(table.notes)


def test_trends_to_read():
    places = {"run": "a", "task": "sums", "title": "Sums", "metric": "m", "n_scored": 3, "reference_step": 0.0}
    known = {"better_since_step": 100.0, "p_better_adjusted": 0.012, "regressed_since_step": 300.0}
    fell = {"regressed_since": "a-300", "regressed_below_step": 200.0}
    rows = [TrendRow(n_steps=3, **places, **known, **fell), TrendRow(n_steps=1, **places)]
    assert trend_table(rows).lines == [["a", "Sums", "0", "100", "0.012", "-", "300 (worse than 200)", ""]]


def test_metrics_on_demand():
    def metric(task, name, value):
        place = {"ckpt": "a-0", "run": "a", "step": 0.0, "ci_low": None, "ci_high": None}
        return MetricRow(task=task, metric=name, value=value, stderr=0.01, **place)

    found = metric_tables(
        [row(), row(task="one")], [metric("sums", "m_a", 0.5), metric("sums", "b", None), metric("one", "m", 1)]
    )
    assert [(table.title, table.header[3:], table.lines[0][3:]) for table in found] == [
        ("Metrics of Sums", ["m a", "b"], ["0.500(10)", "-"])
    ]


HOSTILE = "\\input{/etc/passwd} 50 % & _x_ #1 $y$ {z} ^~ <a> | \"q\" 'r' `s` [t] *u* --v \x00\x07 \\\\"


def undone(latex_text):
    """What LaTeX would print: every escape undone; anything that is not escaped fails."""
    words = {
        "textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "textless": "<", "textgreater": ">",
        "textbar": "|", "textasciigrave": "`",
    }  # fmt: skip
    latex_text = latex_text.replace(r"{\ttfamily\char34}", "\x00")
    token = re.compile(r"\\([a-z]+)\{\}|\\([{}$&#%_])|\{([\[\]*'-])\}|([^\\{}$&#%_^~<>|\"`\[\]*'-])")
    place, shown = 0, ""
    while place < len(latex_text):
        found = token.match(latex_text, place)
        assert found, f"not escaped: {latex_text[place:]!r}"
        shown += words[found[1]] if found[1] else found[2] or found[3] or found[4]
        place = found.end()
    return shown.replace("\x00", '"')


def test_latex_prints_hostile_text_as_it_is():
    assert undone(escape_latex(HOSTILE)) == HOSTILE.replace("\x00\x07 ", "")
    assert escape_latex("a\n\tb") == "a b"
    assert escape_latex("ä ↑ ≤") == r"ä $\uparrow$ $\leq$"
    assert escape_latex("e\u0301") == "é"


def test_latex_is_a_table_of_as_many_columns_as_it_says():
    rows = [row(title=HOSTILE, run="a_b", stderr=0.04, change="better", reference="z"), row(ckpt="-x*", title=HOSTILE)]
    page = latex([score_table(rows)], HOSTILE)
    columns = re.search(r"begin\{tabular\}\{([lr]+)\}", page)[1]
    assert columns == "llrr"
    lines = [line for line in page.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [3, 3, 3]
    assert page.count(r"\begin{") == page.count(r"\end{") == 2
    # Outside of what is printed there are commands of ours only.
    assert "\\input" not in page
    assert len(re.findall(r"(?<!\\)\{", page)) == len(re.findall(r"(?<!\\)\}", page))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on this machine")
@pytest.mark.parametrize("encoding", ["OT1", "T1"])
def test_latex_compiles_within_the_text_width(tmp_path, encoding):
    names = [HOSTILE, "≥ → ≤", *(f"task {number}" for number in range(9))]
    rows = [row(task=name, title=name, stderr=0.04, change="better", reference="z", letters="a") for name in names]
    page = latex([score_table(rows), score_table(rows[1:2])], HOSTILE)
    packages = rf"\usepackage[{encoding}]{{fontenc}}\usepackage{{booktabs,graphicx}}"
    paper = rf"\documentclass{{article}}{packages}\begin{{document}}{page}\end{{document}}"
    (tmp_path / "paper.tex").write_text(paper, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    ran = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, errors="replace")
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert not re.search(r"Overfull.*\n?.*in paragraph", ran.stdout), ran.stdout


def cells_of(path):
    """The sheets of a workbook as {sheet: {cell: value}}, read from its XML; a formula fails."""
    space = {"x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    sheets = {}
    with zipfile.ZipFile(path) as book:
        strings = [
            "".join(item.itertext())
            for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml")).findall("x:si", space)
        ]
        names = [
            sheet.get("name")
            for sheet in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{{{space['x']}}}sheet")
        ]
        for number, name in enumerate(names, 1):
            root = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))
            assert not list(root.iter(f"{{{space['x']}}}f")), "a formula"
            assert not list(root.iter(f"{{{space['x']}}}hyperlink")), "a link"
            sheets[name] = {}
            for cell in root.iter(f"{{{space['x']}}}c"):
                value = cell.find("x:v", space)
                if value is not None:
                    kind = cell.get("t", "n")
                    sheets[name][cell.get("r")] = strings[int(value.text)] if kind == "s" else (kind, float(value.text))
    return sheets


def test_workbook_holds_text_as_text_and_numbers_as_numbers(tmp_path):
    evil = ['=HYPERLINK("http://x")', "+1", "-1+1", "@SUM(A1)", "https://x.example", "007", "\x07"]
    table = Table(
        name="a/b: [tasks] of a very long name indeed", title="T", header=["=h"], lines=[[text] for text in evil]
    )
    rows = [row(title="=1+1", harness=True, value=0.1, n_items=7)]
    write_workbook(tmp_path / "x.xlsx", [table, table], {"scores": rows, "metrics": []})
    sheets = cells_of(tmp_path / "x.xlsx")
    assert list(sheets) == [
        "a-b- -tasks- of a very long nam",
        "a-b- -tasks- of a very long 2",
        "scores.csv",
        "metrics.csv",
    ]
    first = next(iter(sheets.values()))
    assert [first[f"A{number}"] for number in range(1, 8)] == ["=h", *evil[:6]]
    named = {sheets["scores.csv"][f"{chr(65 + k)}1"]: chr(65 + k) for k in range(25)}
    cell = {name: sheets["scores.csv"].get(f"{column}2") for name, column in named.items()}
    assert (cell["title"], cell["value"], cell["n_items"], cell["harness"]) == (
        "=1+1",
        ("n", 0.1),
        ("n", 7.0),
        ("b", 1.0),
    )
    assert cell["partial"] is None


def test_workbook_is_the_same_each_time(tmp_path):
    for name in ("one.xlsx", "two.xlsx"):
        write_workbook(tmp_path / name, [score_table([row()])], {"scores": [row()]})
    assert (tmp_path / "one.xlsx").read_bytes() == (tmp_path / "two.xlsx").read_bytes()


@pytest.fixture
def settings(tmp_path):
    """What the step is told of a campaign of one checkpoint and one task, as words of its command line."""
    options = {"title": "A_b", "tables": {"metrics": "all"}}
    shown = Shown({"a-9": Point("a-9", "a", 9)}, {"sums": ShownTask("Sums & more")}, options)
    write_record(tmp_path / "settings.json", shown.record())
    return ["--settings", str(tmp_path / "settings.json")]


def test_command(tmp_path, settings):
    write_record(tmp_path / "summaries/a-9/sums.json", {**summary(), "ckpt": "a-9"})
    out = {name: str(tmp_path / f"tables/{name}") for name in ("csv", "metrics", "markdown", "text")}
    places = [word for name, path in out.items() for word in (f"--{name}", path)]
    also = ["--also", str(tmp_path / "scores.tex"), str(tmp_path / "scores.xlsx")]
    tabulate.main([*settings, "--summaries", str(tmp_path / "summaries"), *places, *also])
    with open(out["csv"], newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["ckpt"], line["run"], line["title"], line["value"], line["step"]) for line in lines] == [
        ("a-9", "a", "Sums & more", "0.5", "9"),
    ]
    assert "Sums & more" in (tmp_path / "tables/markdown").read_text()
    assert "Sums & more" in (tmp_path / "tables/text").read_text()
    assert r"\caption{A\_b: Scores}" in (tmp_path / "scores.tex").read_text()
    assert cells_of(tmp_path / "scores.xlsx")["scores.csv"]["E2"] == "Sums & more"


def test_no_summary_at_all_is_an_error(tmp_path, settings):
    with pytest.raises(RecordError, match="holds no summary of this campaign"):
        tabulate.main([*settings, "--summaries", str(tmp_path)])
