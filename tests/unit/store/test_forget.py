"""Refusals that are to be asked again: what was stored as final by an older rule."""

import json
from pathlib import Path

import pytest

import forget_refusals
from milepost.errors import ConfigError
from milepost.store.answers import TaskStore, read_settled

GOOD = {"id": "a", "sample": 0, "content": "Paris."}


def failed(ident, kind):
    return {"id": ident, "sample": 0, "error": {"type": kind, "message": f"402: {kind}"}}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """One answer, and one error of each kind, for two tasks."""
    monkeypatch.chdir(tmp_path)
    for task in ("t1", "t2"):
        store = TaskStore(Path(f"results/store/c1/{task}.jsonl"), "first")
        store.append("good", GOOD)
        for kind in ("refused", "filtered", "context", "timeout"):
            store.append(kind, failed(kind, kind), final=True)
        store.close()
    for folder in ("evaluated/c1.json", "answers/c1/t1.jsonl", "answers/c1/t2.jsonl"):
        path = Path("results") / folder
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return Path("results/store/c1/t1.jsonl")


@pytest.mark.parametrize(
    ("options", "left"), [([], {"good", "context", "timeout"}), (["--failures"], {"good", "context"})]
)
def test_what_is_forgotten_is_missing_and_what_was_answered_is_not(stored, capsys, options, left):
    before = stored.read_bytes()
    forget_refusals.main(["--of", "c1/t1", *options])
    assert f"c1: {5 - len(left)} answers to t1 are asked for again by the next run" in capsys.readouterr().out
    assert read_settled(stored).keys() == left
    assert stored.read_bytes().startswith(before), "nothing is removed"
    assert len(read_settled(Path("results/store/c1/t2.jsonl"))) == 5
    there = [
        Path(f"results/{name}").exists() for name in ("evaluated/c1.json", "answers/c1/t1.jsonl", "answers/c1/t2.jsonl")
    ]
    assert there == [False, False, True]
    store = TaskStore(stored, "second")
    assert store.settled == left
    store.append("refused", {**GOOD, "id": "refused"})
    store.close()
    assert read_settled(stored)["refused"]["content"] == "Paris."
    forget_refusals.main([])
    assert "refused" in read_settled(stored), "an answer is no refusal"


def test_failures_before_it_count_no_more(stored):
    lines = [{"key": "x", **failed("x", "timeout"), "attempt": f"job {n}", "final": False} for n in range(3)]
    with stored.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    assert "x" in read_settled(stored)
    forget_refusals.main(["--failures"])
    with stored.open("a") as file:
        file.write(json.dumps({**lines[0], "attempt": "job 4"}) + "\n")
    assert "x" not in read_settled(stored)


def test_nothing_to_forget_is_said(stored, capsys):
    forget_refusals.main([])
    capsys.readouterr()
    forget_refusals.main([])
    assert "nothing was refused" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="Nothing is stored of checkpoint 'c2'. Stored in results/store: c1"):
        forget_refusals.main(["--of", "c2"])
