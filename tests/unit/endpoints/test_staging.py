"""A model's copy on the node's own disk: what goes there, and that it goes again, however the job ends."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from milepost.endpoints import staging
from milepost.endpoints.staging import staged
from milepost.errors import ServerError
from milepost.runtime.processes import Watchdog

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
# Stages a model, says so, and waits.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from milepost.runtime.processes import Watchdog
from milepost.endpoints.staging import staged

async def main():
    async with staged(Path("model"), Path("log"), Watchdog()) as copy:
        print(copy, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A model, and an empty disk of the node."""
    model, disk = tmp_path / "model", tmp_path / "disk"
    disk.mkdir()
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "elsewhere").write_bytes(b"w" * 100_000)
    (model / "model.safetensors").symlink_to("../elsewhere")
    # What training keeps beside them.
    (model / "optimizer.pt").write_bytes(b"o" * 1000)
    (model / "global_step7").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    return disk


def stage(act=lambda copy: None):
    """Stage the model, and act while the copy is there."""

    async def main():
        watchdog = Watchdog()
        try:
            async with staged(Path("model"), Path("log"), watchdog) as copy:
                act(copy)
                return {path.name: path.read_bytes() for path in copy.iterdir() if not path.is_symlink()}
        finally:
            watchdog.close()

    return asyncio.run(main())


def test_what_is_served_is_copied_and_removed_at_the_end(disk):
    assert stage() == {"config.json": b"{}", "model.safetensors": b"w" * 100_000}
    assert list(disk.iterdir()) == []


def test_a_failure_removes_it_as_well(disk):
    with pytest.raises(ZeroDivisionError):
        stage(lambda copy: 1 / 0)
    assert list(disk.iterdir()) == []


def test_without_room_nothing_is_copied(disk, monkeypatch):
    usage = shutil.disk_usage(disk)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda place: usage._replace(free=100_001))
    with pytest.raises(ServerError, match=r"take 0\.0 GB, and .*disk has 0\.0 GB free: .* Set TMPDIR to a larger disk"):
        stage()
    assert list(disk.iterdir()) == []


def test_a_copy_that_fails_is_no_model(disk, monkeypatch):
    files = [*staging.model_files(Path("model")), Path("/proc/self/mem")]
    monkeypatch.setattr(staging, "model_files", lambda folder: files)
    with pytest.raises(ServerError, match=r"cp ended with 1\): cp: .*/proc/self/mem"):
        stage()
    assert list(disk.iterdir()) == []


def test_it_is_removed_after_a_kill(disk):
    env = {**os.environ, "TMPDIR": str(disk), "PYTHONPATH": str(SCRIPTS)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True)
    copy = Path(process.stdout.readline().strip())
    assert copy.parent == disk
    assert (copy / "model.safetensors").stat().st_size == 100_000
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while copy.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(disk.iterdir()) == []
