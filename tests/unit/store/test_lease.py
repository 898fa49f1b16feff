import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from milepost.errors import StoreError
from milepost.store import lease as lease_module
from milepost.store.lease import acquire, started


def refuse_links(*args):
    raise PermissionError(errno.EPERM, "Operation not permitted")  # as FAT, exFAT and some servers of files do


@pytest.fixture(params=["links", "no links"])
def path(request, tmp_path, monkeypatch):
    """Where a lease may lie, on file systems with and without hard links."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse_links)
        assert lease_module.os.link is refuse_links
    return tmp_path / "store" / ".lease"


@pytest.fixture
def said():
    return []


def edit(path, **changes):
    """Make the lease look as if another had written it, without a beat."""
    times = path.stat()
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def age(path, seconds):
    changed = time.time() - seconds
    os.utime(path, (changed, changed))


def squeue(tmp_path, monkeypatch, script):
    """A squeue that says what the test wants."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_free_lease_is_taken_at_once_and_given_back(path, said):
    lease, dead = acquire(path, said.append)
    assert (dead, said, lease.held()) == (None, [], True)
    lease.release()
    assert os.listdir(path.parent) == [], "nothing is left, no drafts either"
    lease.release()


def test_a_lease_that_beats_is_refused_and_its_holder_named(path, said, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    held, _ = acquire(path, said.append)
    over = threading.Event()

    def beat():
        while not over.wait(0.05):
            held.beat({})

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(StoreError, match=r"is being written by process \d+ on .*, SLURM job 77.*wait for it"):
            acquire(path, said.append, stale_s=5)
    finally:
        over.set()
        heart.join()
    assert len(said) == 1
    assert "waiting to see whether it lives (at most 5 s)" in said[0]
    assert held.held()


def test_a_silent_lease_is_taken_over_with_what_its_holder_had_said(path, said):
    old, _ = acquire(path, said.append)
    old.beat({"attempt": "old", "busy_s": 7})
    age(path, 61)
    new, dead = acquire(path, said.append)
    assert dead == {"attempt": "old", "busy_s": 7}
    assert said == []
    assert new.held()
    assert not old.held()
    with pytest.raises(StoreError, match=r"taken over by another evaluation.*stops here"):
        old.beat({})
    old.release()
    assert new.held(), "the old holder gives nothing back that is not its own"


def test_a_holder_that_noted_nothing_leaves_nothing_to_its_successor(path, said):
    acquire(path, said.append)
    age(path, 61)
    assert acquire(path, said.append)[1] is None


def test_a_silent_lease_is_watched_before_it_is_taken_over(path, said):
    acquire(path, said.append)
    begun = time.monotonic()
    acquire(path, said.append, stale_s=0.5)
    assert 0.3 < time.monotonic() - begun < 5


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("reused", [False, True])
def test_a_dead_process_of_this_host_is_taken_over_at_once(path, said, reused):
    acquire(path, said.append)
    # Its number may have gone to another process by now, which began at another time.
    edit(path, **({"started": "1"} if reused else {"pid": dead_pid()}))
    acquire(path, said.append)
    assert said == []


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_process_id_of_another_host_says_nothing(path, said, field):
    acquire(path, said.append)
    edit(path, pid=dead_pid(), **{field: "elsewhere"})
    begun = time.monotonic()
    acquire(path, said.append, stale_s=0.6)
    assert time.monotonic() - begun > 0.4
    assert len(said) == 1


@pytest.fixture
def on_alvis(monkeypatch):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "alvis")


@pytest.mark.parametrize(
    ("says", "job", "cluster", "silent_s", "at_once"),
    [
        ("echo CANCELLED", "77", "alvis", 16, True),
        ("echo CANCELLED", "77", "alvis", 5, False),  # its heart may beat still
        ("echo RUNNING", "77", "alvis", 16, False),
        ("exit 0", "77", "alvis", 16, False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "77", "alvis", 16, False),
        ("echo CANCELLED", "77", "vera", 16, False),  # its number is another's here
        ("echo CANCELLED", "77", None, 16, False),
        ("echo CANCELLED", None, "alvis", 16, False),
    ],
)
def test_a_lease_elsewhere_is_taken_early_only_from_a_job_of_this_cluster_that_ended(
    path, said, tmp_path, monkeypatch, on_alvis, says, job, cluster, silent_s, at_once
):
    squeue(tmp_path, monkeypatch, says)
    acquire(path, said.append)
    edit(path, host="elsewhere", job=job, cluster=cluster)
    age(path, silent_s)
    monkeypatch.setattr(lease_module, "MISSED_S", 15.0)
    acquire(path, said.append, stale_s=silent_s + 0.5)
    assert (len(said) == 0) == at_once


def test_a_heart_that_beats_is_never_taken_whatever_slurm_says(path, said, tmp_path, monkeypatch, on_alvis):
    squeue(tmp_path, monkeypatch, "echo CANCELLED")
    held, _ = acquire(path, said.append)
    held.owner |= {"host": "elsewhere", "job": "77", "cluster": "alvis"}
    over = threading.Event()

    def beat():
        while not over.wait(0.05):
            held.beat({})

    held.beat({})
    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(StoreError, match="on elsewhere, SLURM job 77 of cluster alvis"):
            acquire(path, said.append, stale_s=5)
    finally:
        over.set()
        heart.join()
    assert held.held()


def test_a_lease_says_which_cluster_its_job_is_of(path, said, monkeypatch, on_alvis):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    acquire(path, said.append)
    holder = json.loads(path.read_text())
    assert (holder["job"], holder["cluster"]) == ("77", "alvis")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_an_unreadable_lease_counts_when_it_is_old(path, said, content):
    path.parent.mkdir()
    path.write_bytes(content)
    age(path, 61)
    assert acquire(path, said.append)[0].held()


def test_a_holder_whose_lease_was_removed_stops(path, said):
    lease, _ = acquire(path, said.append)
    path.unlink()
    with pytest.raises(StoreError):
        lease.beat({})


def test_a_full_disk_is_an_error_and_the_lease_stays_whole(path, said, monkeypatch):
    lease, _ = acquire(path, said.append)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease_module, "_write", full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        lease.beat({})
    assert lease.held()


def try_once(path):
    """What `acquire` does with a lease that is free or dead, without its waiting: threads share a process's id."""
    owner = {**lease_module._this_process(), "nonce": os.urandom(8).hex()}
    holder = lease_module.read_lease(path)
    age = lease_module.file_age(path)
    if age is None:
        return lease_module.Lease(path, owner) if lease_module._create(path, owner) else None
    return lease_module.Lease(path, owner) if age > 90 and lease_module._take_over(path, holder, owner) else None


@pytest.mark.parametrize("state", ["free", "dead"])
def test_only_one_of_many_threads_gets_the_lease(path, said, state):
    path.parent.mkdir()
    gate = threading.Barrier(8)

    def race(_):
        gate.wait()
        return try_once(path)

    for _ in range(10):
        if state == "dead":
            acquire(path, said.append)
            age(path, 100)
        with ThreadPoolExecutor(8) as pool:
            winners = [lease for lease in pool.map(race, range(8)) if lease]
        held = [lease for lease in winners if lease.held()]
        assert len(held) == 1
        held[0].release()


def test_only_one_of_many_processes_takes_over_a_dead_lease(path, said):
    link = ["refuse"] if os.link is refuse_links else []
    acquire(path, said.append)
    edit(path, pid=dead_pid())
    code = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from milepost.errors import StoreError
        from milepost.store.lease import acquire
        path = Path(sys.argv[1])
        def refuse_links(*args):
            raise PermissionError(1, "Operation not permitted")
        if "refuse" in sys.argv:
            os.link = refuse_links
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            lease, _ = acquire(path, lambda text: None)
        except StoreError:
            print("refused", flush=True)
        else:
            print("got it", flush=True)
            for _ in range(40):
                lease.beat({})
                time.sleep(0.05)
        """
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), *link], stdin=-1, stdout=-1, text=True, env=env)
        for _ in range(4)
    ]
    for racer in racers:
        racer.stdout.readline()
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = sorted(racer.communicate(timeout=20)[0].strip() for racer in racers)
    assert said == ["got it", "refused", "refused", "refused"]


def test_started_tells_processes_apart():
    assert started(os.getpid()) == started(os.getpid())
    assert started(dead_pid()) is None
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert started(process.pid) is None, "what remains of an ended process until its parent looks is no process"
    process.wait()


def test_a_folder_that_is_away_for_a_while_is_not_lost(path, said):
    lease, _ = acquire(path, said.append)
    away = path.parent.rename(path.parent.with_name("away"))
    lease.beat({})
    with pytest.raises(StoreError, match="no longer the folder that was opened"):
        lease.confirm()
    away.rename(path.parent)
    lease.beat({"requests": 7})
    lease.confirm()
    assert json.loads(path.read_text())["content"] == {"requests": 7}
    path.parent.rename(away)
    lease._beaten -= 45
    with pytest.raises(StoreError, match="no longer the folder that was opened"):
        lease.beat({})
    assert not path.parent.exists(), "nothing is made in its place"
    lease.release()


def test_another_folder_in_the_place_of_the_one_that_was_opened_is_not_written(path, said):
    lease, _ = acquire(path, said.append)
    path.parent.rename(path.parent.with_name("away"))
    path.parent.mkdir()
    for look in (lease.confirm, lambda: lease.beat({})):
        with pytest.raises(StoreError):
            look()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO, errno.ENFILE])
def test_a_lease_that_cannot_be_read_for_a_moment_is_not_lost(path, said, monkeypatch, number):
    lease, _ = acquire(path, said.append)
    read = Path.read_bytes

    def fails(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fails)
    lease.beat({})
    lease._beaten -= 45
    with pytest.raises(StoreError, match="cannot be written"):
        lease.beat({})
    lease.release()
    monkeypatch.setattr(Path, "read_bytes", read)
    lease.beat({})
    assert lease.held()


def test_a_process_whose_name_is_no_utf8_has_a_start(tmp_path):
    name = "utvärdering_kör".encode()[:15]  # cut within a letter, as the kernel does
    program = tmp_path.joinpath(os.fsdecode(name))
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "60"])
    try:
        deadline = time.monotonic() + 10
        while Path(f"/proc/{process.pid}/comm").read_bytes().strip() != name and time.monotonic() < deadline:
            time.sleep(0.01)
        assert started(process.pid).isdigit()
    finally:
        process.kill()
        process.wait()
