"""Milepost as a harness of NeMo Evaluator: its own command runs our scorers, and its results hold our numbers."""

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import run_eval

from milepost.evaluation.work import sample_seed

ROOT = Path(__file__).parents[2]
BIN = ROOT / "envs" / "nemo" / ".venv" / "bin"
KEY = "the-endpoints-secret-key"
ITEMS = ["What's red?", "What is blue?", 'Say "$HOME"', "Say `date`"]


@pytest.fixture(scope="module", autouse=True)
def nemo():
    subprocess.run([ROOT / "envs" / "setup.sh", "workflow", "nemo", "semantic"], check=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model that answers `QUESTION, said with seed SEED`, and wants a key."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = [sys.executable, ROOT / "tests" / "stub_server.py", "-m", "any", "--model", folder]
    process = subprocess.Popen(
        [*command, "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "VLLM_API_KEY": KEY, "STUB_LOG": str(folder / "log")},
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(100):
            try:
                request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {KEY}"})
                urllib.request.urlopen(request, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path):
    """With the data: two of the four items have the answer to their first sample as target."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    with open(folder / "items.jsonl", "w") as file:
        for number, question in enumerate(ITEMS):
            seed = sample_seed(0, f"item-{number}", 0)
            target = f"{question}, said with seed {seed}" if number < 2 else "never"
            messages = [{"role": "user", "content": question}]
            file.write(json.dumps({"id": f"item-{number}", "messages": messages, "target": target.upper()}) + "\n")
    return folder


def test_results_hold_our_numbers_with_stderr_and_n(folder, server):
    params = {
        "parallelism": 2,
        "temperature": 0.5,
        "max_new_tokens": 8,
        "extra": {"data": "items.jsonl", "samples": 2, "scorer": {"ignore_case": True}},
    }
    done, results = run_eval(folder, server, {"type": "milepost.exact_match", "params": params}, KEY)
    assert done.returncode == 0, done.stdout
    score = results["tasks"]["exact_match"]["metrics"]["exact_match"]["scores"]["exact_match"]
    # Items: 1/2, 1/2, 0, 0.
    assert score["value"] == 0.25
    assert score["stats"]["stderr"] == pytest.approx(math.sqrt(1 / 12) / 2)
    assert score["stats"]["count"] == 4
    rates = results["tasks"]["exact_match"]["metrics"]["rates"]["scores"]
    assert {name: rate["value"] for name, rate in rates.items()} == {
        "truncated": 0.0,
        "empty": 0.0,
        "unreadable": 0.0,
        "failed": 0.0,
        "refused": 0.0,
        "filtered": 0.0,
        "reasoning_only": 0.0,
        "tool_calls": 0.0,
        "identical": 0.0,
    }
    answers = [json.loads(line) for line in (folder / "out" / "milepost" / "answers.jsonl").read_text().splitlines()]
    assert len({answer["content"] for answer in answers}) == 8
    header = json.loads((folder / "out" / "milepost" / "prompts.jsonl").read_text().splitlines()[0])
    assert header["sampling"] == {"temperature": 0.5, "max_tokens": 8, "seed": 0}


def test_any_scorer_under_a_name_of_ones_own_and_a_limit(folder, server):
    params = {"limit_samples": 0.5, "extra": {"data": "items.jsonl", "scorer": {"name": "constraints"}}}
    text = (folder / "items.jsonl").read_text()
    (folder / "items.jsonl").write_text(
        text.replace('"target"', '"meta": {"constraints": [{"kind": "end_with", "word": "x"}]}, "target"')
    )
    done, results = run_eval(folder, server, {"type": "milepost.manners", "params": params}, KEY)
    assert done.returncode == 0, done.stdout
    (task,) = results["tasks"]
    assert task == "manners"
    summary = json.loads((folder / "out" / "milepost" / "summary.json").read_text())
    assert summary["partial"] == {"limit": 2, "of": 4}
    assert summary["n_items"] == 2


def test_the_key_is_in_no_argument_and_no_file(folder, server):
    params = {"extra": {"data": "items.jsonl"}}
    done, results = run_eval(folder, server, {"type": "milepost.exact_match", "params": params}, KEY)
    assert results
    assert KEY not in done.stdout
    holders = [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holders == []


@pytest.mark.parametrize(
    ("config", "key", "said"),
    [
        ({"type": "milepost.exact_match", "params": {"extra": {"data": "items.jsonl"}}}, "wrong", "401"),
        (
            {"type": "milepost.exact_match", "params": {"extra": {"data": "nowhere.jsonl"}}},
            KEY,
            "nowhere.jsonl does not",
        ),
        (
            {"type": "milepost.exact_match", "params": {"extra": {"data": "items.jsonl", "scorer": {"strp": 1}}}},
            KEY,
            "Did you mean 'strip'?",
        ),
        ({"type": "milepost.exact_mach", "params": {"extra": {"data": "items.jsonl"}}}, KEY, "has no name"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_counts_as_a_result(folder, server, config, key, said):
    done, results = run_eval(folder, server, config, key)
    assert done.returncode != 0
    assert said in done.stdout
    assert results is None


def test_nemo_lists_our_tasks_beside_its_own():
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0"}
    listed = subprocess.run([BIN / "nemo-evaluator", "ls"], env=env, capture_output=True, text=True, check=True).stdout
    ours = listed.split("milepost: \n")[1].split(":")[0]
    assert ours.split()[:8] == ["*", "jsonl", "*", "exact_match", "*", "constraints", "*", "avert"]
    assert "lm-evaluation-harness: " in listed
