import errno
import json
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.errors import StoreError
from milepost.store.answers import TaskStore, mend, open_stores, read_lines, read_settled


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ckpt" / "task.jsonl"


def answer(ident, content="yes", **fields):
    return {"id": ident, "sample": 0, "content": content, **fields}


def failure(ident, kind="server"):
    return {"id": ident, "sample": 0, "error": {"type": kind, "message": "no"}}


def store_all(path, attempt, *entries):
    """Append (key, answer, final) in one job."""
    store = TaskStore(path, attempt)
    for entry in entries:
        store.append(*entry)
    store.close()
    return store


def keys(path):
    return [line["key"] for line in read_lines(path)]


def test_stored_answers_are_there_for_the_next_job(path):
    store_all(path, "one", ("k1", answer("a")), ("k2", failure("b", "context")))
    store = TaskStore(path, "two")
    assert store.settled == {"k1", "k2"}
    store.append("k3", answer("c", "ü\n\0"))
    store.close()
    assert keys(path) == ["k1", "k2", "k3"]
    assert len(path.read_bytes().splitlines()) == 3
    assert read_settled(path)["k3"] == answer("c", "ü\n\0")
    assert read_settled(path)["k2"] == failure("b", "context")


@pytest.mark.parametrize("jobs_before", [0, 1])
def test_an_answer_is_never_stored_twice(path, jobs_before):
    store = TaskStore(path, "one")
    store.append("k", answer("a"))
    if jobs_before:
        store.close()
        store = TaskStore(path, "two")
    with pytest.raises(StoreError, match="already holds an answer to 'a', sample 0"):
        store.append("k", answer("a"))
    store.close()
    assert keys(path) == ["k"]


@pytest.mark.parametrize("torn", [1, 2, 5, 60])
def test_a_torn_last_line_is_cut_off(path, torn):
    store_all(path, "one", ("k1", answer("a")), ("k2", answer("b")))
    whole = path.read_bytes()
    path.write_bytes(whole[:-torn])
    assert list(read_settled(path)) == ["k1"], "a reader beside the writer passes over it"
    store = TaskStore(path, "two")
    assert store.settled == {"k1"}
    store.append("k2", answer("b"))
    store.close()
    assert keys(path) == ["k1", "k2"]


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 200_000])
def test_mend_finds_the_last_line_end_however_far_it_is(path, length):
    path.parent.mkdir()
    path.write_bytes(b'{"key": "k"}\n' + b"x" * length)
    mend(path)
    assert path.read_bytes() == b'{"key": "k"}\n'
    path.write_bytes(b"x" * length)
    mend(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("where", ["end", "middle", "between", "whole"])
def test_blocks_of_zeros_are_asked_again(path, where):
    store_all(path, "one", *((f"k{n}", answer(str(n), "x" * 50)) for n in range(9)))
    lines = path.read_bytes().splitlines(keepends=True)
    zeros = b"\0" * 4096
    damaged = {
        "end": b"".join(lines) + zeros,
        "middle": b"".join(lines[:4]) + lines[4][:20] + zeros + lines[5][30:] + b"".join(lines[6:]),
        "between": b"".join(lines[:4]) + zeros + b"".join(lines[4:]),
        "whole": b"\0" * len(b"".join(lines)),
    }[where]
    left = {"end": range(9), "middle": [0, 1, 2, 3, 6, 7, 8], "between": [0, 1, 2, 3, 5, 6, 7, 8], "whole": []}[where]
    path.write_bytes(damaged)
    store = TaskStore(path, "two")
    assert store.settled == {f"k{n}" for n in left}
    for n in set(range(9)) - set(left):
        store.append(f"k{n}", answer(str(n)))
    store.close()
    assert set(read_settled(path)) == {f"k{n}" for n in range(9)}


@pytest.mark.parametrize("line", [b"{", b"[1]", b'"k"', b"7", b"null", b'{"id": "a"}', b"", b"\xff"])
def test_a_line_damaged_by_hand_is_an_error_with_file_and_line(path, line):
    store_all(path, "one", ("k1", answer("a")), ("k2", answer("b")))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, lines[1], b""]))
    for reading in (lambda: TaskStore(path, "two"), lambda: read_settled(path)):
        with pytest.raises(StoreError, match=rf"{path}, line 2 is damaged.*remove it"):
            reading()


def test_an_error_that_may_go_away_is_final_after_three_jobs(path):
    for number in range(3):
        store = TaskStore(path, f"job{number}")
        assert "k" not in store.settled
        # However often it fails within a job, that is one try.
        for _ in range(3):
            if "k" not in store.settled:
                store.append("k", failure("a"), final=False)
        assert ("k" in store.settled) == (number == 2), "the third job knows that there is nothing left to ask"
        store.close()
        assert ("k" in read_settled(path)) == (number == 2)
    assert "k" in TaskStore(path, "next").settled
    assert read_settled(path)["k"] == failure("a")


def test_failures_count_by_item(path):
    for number in range(3):
        store_all(path, f"job{number}", *((f"k{n}", failure(str(n)), False) for n in range(number + 1)))
    assert set(read_settled(path)) == {"k0"}


@pytest.mark.parametrize(
    ("lines", "settled"),
    [
        (["e1", "e2", "s:first"], "first"),
        (["s:first", "f"], "first"),
        (["f", "s:later"], "later"),
        (["s:first", "s:latest"], "latest"),
        (["e1", "e2", "e3", "s:after"], "after"),
        (["s:first", "e1", "e2", "e3"], "first"),
        (["e1", "e1", "e1"], None),
        (["e1", "e2", "e3"], "error"),
        (["f"], "error"),
    ],
)
def test_the_latest_success_wins_over_any_error(path, lines, settled):
    path.parent.mkdir()
    records = []
    for line in lines:
        kind, _, content = line.partition(":")
        record = answer("a", content) if kind == "s" else {**failure("a"), "final": kind == "f"}
        records.append({"key": "k", **record, "attempt": kind})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = read_settled(path).get("k")
    assert (found and ("error" if "error" in found else found["content"])) == settled


@pytest.mark.parametrize("fault", ["nothing written", "a part written"])
def test_a_full_disk_is_an_error_that_says_so_and_leaves_whole_lines(path, monkeypatch, fault):
    store = TaskStore(path, "one")
    store.append("k1", answer("a"))
    write = os.write

    def full(file, line):
        if fault == "nothing written":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, line[: len(line) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=r"task.jsonl cannot be written: No space left on device.*make room"):
        store.append("k2", answer("b"))
    monkeypatch.undo()
    assert "k2" not in store.settled
    # Another answer may come before the job is over: nothing of the torn line may stand before it.
    store.append("k3", answer("c"))
    store.close()
    assert keys(path) == ["k1", "k3"]


def test_a_disk_that_cannot_sync_is_an_error(path, monkeypatch):
    store = TaskStore(path, "one")
    store.append("k1", answer("a"))

    def broken(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(StoreError, match="Input/output error"):
        store.sync()
    with pytest.raises(StoreError):
        store.close()


def test_sync_writes_only_what_is_new(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    store = TaskStore(path, "one")
    store.sync()
    assert synced == []
    store.append("k", answer("a"))
    store.sync()
    store.sync()
    assert len(synced) == 1
    store.close()
    assert len(synced) == 2, "closing leaves nothing to a sync that another thread may not have begun"


def test_stores_are_closed_whatever_happens(tmp_path):
    opened = []

    def fail(stores):
        opened.extend(stores.values())
        raise RuntimeError

    with pytest.raises(RuntimeError), open_stores(tmp_path, ["a", "b"], "one") as stores:
        fail(stores)
    for store in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(store._file)


def test_a_killed_writer_leaves_whole_lines(path):
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from milepost.store.answers import TaskStore
        store = TaskStore(Path(sys.argv[1]), "one")
        for n in range(50):
            store.append(f"k{n}", {"id": str(n), "sample": 0, "content": "x" * 5000})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=False).returncode == -9
    assert TaskStore(path, "two").settled == {f"k{n}" for n in range(50)}


ENTRY = st.tuples(st.sampled_from("abcdef"), st.text(max_size=8), st.sampled_from(["answer", "final", "passing"]))


@settings(max_examples=60, deadline=None)
@given(jobs=st.lists(st.tuples(st.lists(ENTRY, max_size=6), st.floats(0, 1)), max_size=5))
def test_any_crash_leaves_exactly_the_whole_lines_and_the_store_goes_on(jobs, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "task.jsonl"
    expected = []
    for number, (entries, where) in enumerate(jobs):
        store = TaskStore(path, f"job{number}")
        assert [(line["key"], line.get("content")) for line in read_lines(path)] == expected
        begin = path.stat().st_size
        ends = []
        for key, content, kind in entries:
            if key in store.settled:
                with pytest.raises(StoreError):
                    store.append(key, answer(key))
                continue
            record = answer(key, content) if kind == "answer" else failure(key)
            store.append(key, record, final=kind != "passing")
            ends.append((path.stat().st_size, (key, record.get("content"))))
        store.close()
        # The crash: the file ends at any byte of what this job wrote.
        cut = begin + round(where * (path.stat().st_size - begin))
        os.truncate(path, cut)
        expected += [line for end, line in ends if end <= cut]
    assert [(line["key"], line.get("content")) for line in read_lines(path)] == expected
    store = TaskStore(path, "last")
    store.append("new", answer("new"))
    store.close()
    assert read_settled(path)["new"]["content"] == "yes"
