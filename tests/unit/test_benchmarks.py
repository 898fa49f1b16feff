import importlib
import os
import sys
from pathlib import Path

import pytest

from milepost.endpoints.specs import load_endpoints
from milepost.errors import ConfigError
from milepost.scorers.avert.sentences import read_sentences
from milepost.scorers.avert.statement import Options

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    module = importlib.import_module("measuring")
    monkeypatch.setattr(module, "DOCUMENT", tmp_path / "performance.md")
    monkeypatch.setattr(module, "PEERS", tmp_path / "peers")
    monkeypatch.setattr(module, "COMMAND", ["python", "benchmarks/one.py", "--more"])
    return module


def test_a_table_is_put_where_its_marks_are_and_nowhere_else(measuring):
    begin, end = "<!-- one: written by the command below -->", "<!-- end of one -->"
    measuring.DOCUMENT.write_text(
        f"before\n{begin}\n| old | 99 |\n{end}\nafter\n<!-- two: written by the command below -->\n"
    )
    table = measuring.Table("one")
    table.rows(["client", "s"], [["ours", "1"]])
    table.say("Words.")
    table.write()
    text = measuring.DOCUMENT.read_text()
    assert text.startswith(
        f"before\n{begin}\n| client | s |\n| --- | ---: |\n| ours | 1 |\n\nWords.\n\n`python benchmarks/one.py --more`, 20"
    )
    assert text.endswith(f".\n{end}\nafter\n<!-- two: written by the command below -->\n")
    assert "99" not in text
    assert "load " in text
    assert "commit " in text


def test_a_table_without_a_place_is_an_error(measuring):
    measuring.DOCUMENT.write_text("nothing")
    with pytest.raises(measuring.BenchmarkError, match="lacks the marks"):
        measuring.Table("one").write()
    assert measuring.DOCUMENT.read_text() == "nothing"


def test_a_table_says_how_much_others_took_and_counts_nothing_of_its_own(measuring, monkeypatch):
    table = measuring.Table("one")
    # A minute in which everybody together took 90 s of cores, and this program 30.
    began = table.begun
    monkeypatch.setattr(measuring, "busy_seconds", lambda: (began[0] + 60, began[1] + 90, began[2] + 30))
    monkeypatch.setattr(measuring.os, "cpu_count", lambda: 4)
    assert table.others() == "; others took 25 % of its cores meanwhile"
    assert measuring.Table("one", orphans=True).others() == ""
    monkeypatch.undo()
    before = measuring.busy_seconds()
    measuring.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"])
    seconds, all_, own = (b - a for a, b in zip(before, measuring.busy_seconds(), strict=True))
    assert 0.2 < own < 1
    assert own - 0.1 < all_ <= seconds * os.cpu_count() + 0.1


def test_the_page_has_a_place_for_each_table():
    page = (FOLDER.parent / "docs" / "performance.md").read_text()
    for name in ("client", "latency", "million", "resume", "plan", "steps", "idle", "served"):
        assert page.count(f"<!-- {name}: written by the command below -->") == 1
        assert page.count(f"<!-- end of {name} -->") == 1


def test_a_peer_that_cannot_be_installed_says_so_and_is_tried_again(measuring, tmp_path):
    peer = measuring.Peer("nobody", (str(tmp_path / "nothing-1.0-py3-none-any.whl"),))
    for _ in range(2):
        with pytest.raises(measuring.BenchmarkError, match="not installed: .*nothing"):
            measuring.install(peer)


def test_what_a_process_took_and_how_it_failed(measuring):
    took = measuring.run(
        [sys.executable, "-c", "x = bytearray(b'x') * 80_000_000; sum(range(10**6))"], core=min(os.sched_getaffinity(0))
    )
    assert 0.01 < took.cpu < 5
    assert took.seconds >= 0.01
    assert took.peak_mb > 60
    with pytest.raises(measuring.BenchmarkError, match="failed: the reason"):
        measuring.run([sys.executable, "-c", "import sys; sys.exit('the reason')"])
    with pytest.raises(measuring.BenchmarkError, match="took more than 0 s"):
        measuring.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


@pytest.fixture
def labelled(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    return importlib.import_module("labelled")


def test_styles_are_read_without_an_embedder(labelled):
    agree = {True: [], False: []}
    rows = labelled.generated()["styles"]
    for row in rows:
        options = Options(tuple(row.options), len(row.options))
        stated = options.stated(read_sentences(row.text), lambda sentence, option: 0.0)
        best = max(stated)
        agree[row.label].append(
            ([at for at, one in enumerate(stated) if one == best > 0] == [row.correct]) == row.label
        )
    assert len(rows) > 1000
    # Of those that only their meaning would tell apart, some are missed.
    assert sum(agree[True]) / len(agree[True]) > 0.99
    assert sum(agree[False]) / len(agree[False]) > 0.97


def test_every_form_of_an_answer_is_filled_in_and_labelled(labelled):
    for rows in labelled.generated().values():
        assert {row.label for row in rows} == {True, False}
        assert all(row.options[row.correct] for row in rows)
        assert not any("{said}" in row.text or "{L}" in row.text for row in rows)
        said = next(row for row in rows if row.label)
        assert said.options[said.correct].casefold() in said.text.casefold()


def test_a_judge_given_by_its_address_becomes_an_endpoint(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    validity = importlib.import_module("validity")
    monkeypatch.chdir(tmp_path)
    assert validity.endpoint_named("http://127.0.0.1:1/v1,Qwen/Qwen3-Reranker-0.6B,A_KEY", "reranker") == (
        "reranker-Qwen3-Reranker-0.6B"
    )
    judge = validity.endpoint_named("http://127.0.0.1:2/v1,small", "judge")
    assert validity.endpoint_named(judge, "judge") == "judge-small"
    known = load_endpoints()
    reranker = known["reranker-Qwen3-Reranker-0.6B"]
    assert (reranker.kind, reranker.model, reranker.key_env) == ("reranker", "Qwen/Qwen3-Reranker-0.6B", "A_KEY")
    assert (known[judge].kind, known[judge].url, known[judge].key_env) == ("chat", "http://127.0.0.1:2/v1", None)
    with pytest.raises(ConfigError, match="Write URL,MODEL"):
        validity.endpoint_named("http://127.0.0.1:2/v1", "judge")
