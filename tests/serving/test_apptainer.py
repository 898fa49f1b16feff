"""A real server in a real image: it serves, keeps its key, says why it cannot start, and leaves nothing behind.

The image is a small Debian, into which envs/vllm is bound.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import STEPS
from serve_once import session_of

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("serve_once.py")
NOBODY = 65534


@pytest.fixture
def play(image):
    """Starts serve_once.py as an ordinary user: the tests' own, or nobody where that is root."""
    # Not pytest's own folder: nobody could not reach it.
    folder = Path(tempfile.mkdtemp(prefix="milepost-serving-"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"HOME": str(folder), "PYTHONPATH": str(ROOT / "scripts")}
    before = []
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        before = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def start(*words):
        return subprocess.Popen(
            [*before, sys.executable, str(SCRIPT), *words, "--image", str(image)],
            cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    yield start
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def model(models):
    """A model that anybody can read: not in pytest's own folder."""
    folder = Path(tempfile.mkdtemp(prefix="milepost-model-"))
    shutil.copytree(models[STEPS[-1]], folder / "model")
    folder.chmod(0o755)
    yield folder / "model"
    shutil.rmtree(folder)


def life_of(process):
    """What a server's life gave."""
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    return json.loads(out)


def test_a_model_is_served_in_an_image(play, model):
    seen = life_of(play("serve", "--model", str(model)))
    assert "error" not in seen, seen["error"]
    assert seen["answer"]["choices"][0]["message"]["content"]
    assert seen["refused"] == 401, "the guard stands before it, inside, too"
    assert seen["version"].startswith("vllm-0.")
    assert (seen["key_shown"], seen["key_logged"]) == (False, False)
    assert any("squashfuse" in command or "Apptainer" in command for command in seen["processes"].values())
    assert seen["left"] == {}
    assert seen["stop_s"] < 8


def test_a_server_without_room_for_its_cache_says_so_and_what_to_change(play, model):
    error = life_of(play("starve", "--model", str(model)))["error"]
    told = error.partition("\n")[0]
    assert (
        "ended before it answered (exit code 1). It said: ValueError: No available memory for the cache blocks" in told
    )
    assert "It ran out of memory. Change gpus and tensor-parallel-size, gpu-memory-utilization, max-model-len" in told
    assert "nothing was lowered by itself" in told


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_of_an_image_is_left(play, end):
    process = play("stop" if end == "stop" else "sleep")
    started = json.loads(process.stdout.readline())
    assert len(started["processes"]) >= 3, started
    if end == "kill":
        process.kill()
    process.wait(timeout=30)
    # The watchdog gives a program three seconds after TERM.
    deadline = time.monotonic() + 8
    while session_of(started["group"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session_of(started["group"]) == {}
