import json
import threading
from pathlib import Path

import pytest

from milepost.errors import StoreError
from milepost.records import write_records
from milepost.store.answers import TaskStore
from milepost.store.forget import forget_attempt
from milepost.store.lease import acquire


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def store(task, attempt, *keys):
    held = TaskStore(Path(f"results/store/c/{task}.jsonl"), attempt)
    for key in keys:
        held.append(key, {"id": key, "sample": 0, "content": attempt})
    held.close()


def test_what_an_attempt_stored_is_gone_and_nothing_else():
    store("t", "good", "a", "b")
    store("t", "bad", "c")
    store("u", "good", "a")
    for number, attempts in enumerate((["good", "bad"], ["good"])):
        write_records(f"results/store/c/n/0/run-{number}.requests.jsonl", [{"attempt": each} for each in attempts])
        write_records(f"results/store/c/n/0/run-{number}/done.json", [{}])
    made = ("evaluated/c.json", "answers/c/t.jsonl", "answers/c/u.jsonl", "harness/c/n/results.yml")
    for name in made:
        write_records(Path("results", name), [{}])
    assert forget_attempt("c", "bad") == {"t": 1, "n": 1}
    lines = [json.loads(line) for line in Path("results/store/c/t.jsonl").read_text().splitlines()]
    assert [(line["key"], line["attempt"]) for line in lines] == [("a", "good"), ("b", "good")]
    assert TaskStore(Path("results/store/c/t.jsonl"), "new").settled == {"a", "b"}
    assert [path.name for path in sorted(Path("results/store/c/n/0").iterdir())] == ["run-1", "run-1.requests.jsonl"]
    assert [name for name in made if Path("results", name).exists()] == ["answers/c/u.jsonl"]
    assert not Path("results/store/c/.lease").exists()


def test_what_is_not_there_is_said():
    store("t", "good", "a")
    write_records("results/store/c/.ledger.jsonl", [{"attempt": "good"}])
    with pytest.raises(StoreError, match=r"nothing of attempt 'bad'\. Attempts in its ledger: good\."):
        forget_attempt("c", "bad")
    with pytest.raises(StoreError, match=r"Checkpoints in results/store: c\."):
        forget_attempt("d", "bad")


def test_not_while_a_job_writes_there():
    store("t", "good", "a")
    lease, _ = acquire(Path("results/store/c/.lease"), print)
    beat = threading.Timer(1.5, lease.beat, [{}])
    beat.start()
    try:
        with pytest.raises(StoreError, match="is being written by"):
            forget_attempt("c", "good")
    finally:
        lease.release()
    assert len(Path("results/store/c/t.jsonl").read_text().splitlines()) == 1
