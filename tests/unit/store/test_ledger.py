import itertools
import json
import os

import pytest

from milepost.errors import StoreError
from milepost.store import ledger as ledger_module
from milepost.store.ledger import LEDGER, Ledger, append_line, gpu_type, sum_lines
from milepost.store.provenance import engine_versions


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is turned."""
    now = [100.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])

    def turn(seconds):
        now[0] += seconds

    return turn


def test_every_second_of_the_server_is_counted_once(clock):
    ledger = Ledger("a", 0, {"engine": "x"})
    clock(1000)  # before it is started
    ledger.starting()
    clock(10)
    ledger.ready()
    clock(1)
    with ledger.busy():
        clock(2)
        with ledger.busy():
            clock(3)
        clock(4)
        assert ledger.line()["busy_s"] == 9, "the line of a heartbeat counts what is under way"
    clock(5)
    ledger.over()
    clock(1000)
    line = ledger.line("done")
    assert (line["start_s"], line["busy_s"], line["idle_s"], line["end"]) == (10, 9, 6, "done")


def test_a_server_that_ends_under_requests(clock):
    ledger = Ledger("a", 0, {})
    ledger.ready()
    with ledger.busy():
        clock(2)
        ledger.over()
        clock(5)
    assert ledger.line()["busy_s"] == 2
    assert ledger.line()["idle_s"] == 0


def test_answers_and_failures_are_requests():
    ledger = Ledger("a", 2, {})
    ledger.answered({"id": "a", "sample": 0, "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
    ledger.answered({"id": "b", "sample": 0, "error": {"type": "server", "message": ""}})
    line = ledger.line()
    assert (line["requests"], line["tokens_in"], line["tokens_out"], line["gpus"]) == (2, 5, 7, 2)


def test_the_fields_of_a_line(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    line = Ledger("a", 0, {"engine": "x"}).line("SIGTERM")
    assert set(line) == {
        "attempt", "host", "job", "gpus", "gpu_type", "start_s", "busy_s", "idle_s", "requests", "tokens_in",
        "tokens_out", "versions", "end",
    }  # fmt: skip
    assert (line["job"], line["end"], line["gpu_type"]) == ("77", "SIGTERM", None)


def line_of(attempt, clock=None, gpus=1, **fields):
    return {**Ledger(attempt, 0, {"engine": attempt}).line("done"), "gpus": gpus, **fields}


def test_sums_weigh_time_by_gpus(tmp_path):
    append_line(tmp_path, line_of("a", gpus=2, start_s=10, busy_s=20, idle_s=1, requests=3, tokens_in=5, tokens_out=7))
    append_line(tmp_path, line_of("b", gpus=0, start_s=1, busy_s=2, idle_s=3, requests=1, tokens_in=1, tokens_out=1))
    assert sum_lines(tmp_path) == {
        "attempts": 2, "start_s": 11, "busy_s": 22, "idle_s": 4, "requests": 4, "tokens_in": 6, "tokens_out": 8,
        "gpu_s": 62,
    }  # fmt: skip


def test_sums_without_any_attempt(tmp_path):
    assert sum_lines(tmp_path)["attempts"] == 0
    assert sum_lines(tmp_path)["gpu_s"] == 0


def test_an_attempt_that_died_after_its_last_line_is_not_counted_twice(tmp_path):
    append_line(tmp_path, line_of("a", busy_s=5))
    append_line(tmp_path, line_of("a", busy_s=4, end="killed"))
    assert sum_lines(tmp_path)["attempts"] == 1
    assert sum_lines(tmp_path)["busy_s"] == 5


@pytest.mark.parametrize("remains", [b'{"attempt": "t', b"\0" * 100, b"\0" * 50 + b"\n"])
def test_a_torn_line_of_a_crash_is_passed_over(tmp_path, remains):
    append_line(tmp_path, line_of("a"))
    with (tmp_path / LEDGER).open("ab") as file:
        file.write(remains)
    assert sum_lines(tmp_path)["attempts"] == 1
    append_line(tmp_path, line_of("b"))
    assert sum_lines(tmp_path)["attempts"] == 2


def test_a_full_disk_is_an_error_that_says_so(tmp_path, monkeypatch):
    def full(file, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=r"\.ledger\.jsonl cannot be written: No space left on device"):
        append_line(tmp_path, line_of("a"))


def test_versions_are_those_of_the_last_attempt_that_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert engine_versions("c") == {}
    store = tmp_path / "results" / "store" / "c"
    store.mkdir(parents=True)
    for attempt in ("old", "new"):
        append_line(store, line_of(attempt))
    assert engine_versions("c") == {"engine": "new"}


@pytest.mark.parametrize(
    ("script", "name"), [("echo 'NVIDIA A40'; echo 'NVIDIA A40'", "NVIDIA A40"), ("exit 9", None), ("true", None)]
)
def test_the_gpus_name_is_what_its_driver_says(tmp_path, monkeypatch, script, name):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_type() == name
    assert Ledger("a", 1, {}).line()["gpu_type"] == name


def test_without_a_driver_it_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_type() is None


def test_lines_are_json_lines(tmp_path):
    for attempt in itertools.islice("abc", 3):
        append_line(tmp_path, line_of(attempt))
    assert [json.loads(line)["attempt"] for line in (tmp_path / LEDGER).read_text().splitlines()] == ["a", "b", "c"]
