import json
import os
from pathlib import Path

import pytest

from milepost.errors import ContainerError, EnvironmentMissingError, HarnessError
from milepost.nemo import catalogue as nemo_catalogue
from milepost.nemo.ask import LM_EVAL, MARK
from milepost.nemo.catalogue import asks_log_probabilities, included_tasks, read_catalogue
from milepost.nemo.installation import NemoInstallation
from milepost.runtime import environments

COMMON = {
    "capabilities": [],
    "known_params": ["temperature"],
    "known_extra": ["args"],
    "told_apart": ["chat", "completions"],
}
ANSWER = {
    "harnesses": {
        LM_EVAL: {
            "benchmarks": {
                "mmlu": {**COMMON, "endpoint_types": ["completions"], "params": {"task": "mmlu_str", "temperature": 0.0}},
                "hellaswag": {**COMMON, "endpoint_types": ["completions_logprob", "completions"], "capabilities": ["logprobs"], "params": {"task": "hellaswag"}},
            },
            "defaults": {**COMMON, "endpoint_types": [], "params": {}},
        },
        "other": {
            "benchmarks": {"mmlu": {**COMMON, "told_apart": [], "endpoint_types": ["chat"], "params": {}}},
            "defaults": {**COMMON, "told_apart": [], "endpoint_types": [], "params": {}},
        },
    },
    "tasks": {LM_EVAL: {"gsm8k": {"kind": "task", "asks": "generate_until"}}},
    "options": {LM_EVAL: ["--include_path"]},
    "versions": {"nemo-evaluator": "0.2.8"},
    "interface": {"program": "nemo-evaluator", "key": "api_key_name"},
}  # fmt: skip


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An environment whose Python gives ANSWER and counts how often it is asked."""
    nemo_catalogue.read_catalogue.cache_clear()
    monkeypatch.setattr(environments, "_ENVS", tmp_path / "envs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "envs/nemo/.venv/lib/python3.12/site-packages"
    (site / "nemo_evaluator-0.2.8.dist-info").mkdir(parents=True)
    python = tmp_path / "envs/nemo/.venv/bin/python"
    python.parent.mkdir()
    answer(tmp_path, f"echo noise; echo '{MARK}{json.dumps(ANSWER)}'")
    yield tmp_path
    nemo_catalogue.read_catalogue.cache_clear()


def answer(folder, script):
    python = folder / "envs/nemo/.venv/bin/python"
    python.write_text(f'#!/bin/sh\ncat >/dev/null\necho "$(pwd) $*" >>{folder}/asked\n{script}\n')
    python.chmod(0o755)


def asked(folder):
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_the_benchmarks_of_an_environment(installed):
    catalogue = read_catalogue(NemoInstallation())
    assert [(one.harness, one.name) for one in catalogue] == [
        (LM_EVAL, "hellaswag"),
        (LM_EVAL, "mmlu"),
        ("other", "mmlu"),
    ]
    hellaswag, mmlu, other = catalogue
    assert hellaswag.endpoint_types == ("completions",), "what its command line does not know is no type that it takes"
    assert (hellaswag.log_probabilities, mmlu.log_probabilities) == (True, False)
    assert (mmlu.task, mmlu.params) == ("mmlu_str", {"temperature": 0.0})
    assert other.endpoint_types == ("chat",)
    assert catalogue.defaults[LM_EVAL].endpoint_types == ("chat", "completions")
    assert catalogue.defaults["other"].endpoint_types == ()
    assert [one.harness for one in catalogue.named("mmlu")] == [LM_EVAL, "other"]
    assert list(catalogue.tasks[LM_EVAL]) == ["gsm8k"]


def test_the_environment_is_asked_again_only_after_it_changed(installed):
    for expected in (1, 1):
        nemo_catalogue.read_catalogue.cache_clear()
        read_catalogue(NemoInstallation())
        assert len(asked(installed)) == expected
    assert asked(installed) == ["/ -"], "in a folder where no module of ours hides another"
    (installed / "envs/nemo/.venv/lib/python3.12/site-packages/nvidia_lm_eval-26.3.dist-info").mkdir()
    nemo_catalogue.read_catalogue.cache_clear()
    read_catalogue(NemoInstallation())
    assert len(asked(installed)) == 2


def test_a_cache_that_is_damaged_or_cannot_be_written_is_no_cache(installed, monkeypatch):
    read_catalogue(NemoInstallation())
    for path in (installed / "cache").rglob("*.json"):
        path.write_text("{")
    nemo_catalogue.read_catalogue.cache_clear()
    assert len(list(read_catalogue(NemoInstallation()))) == 3
    (installed / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed / "file"))
    nemo_catalogue.read_catalogue.cache_clear()
    assert len(list(read_catalogue(NemoInstallation()))) == 3
    assert len(asked(installed)) == 3


def test_tasks_of_ones_own_are_asked_for_again_when_their_files_change(installed):
    task = Path("h/a.yaml")
    task.parent.mkdir()
    task.write_text("task: a\n")
    for _ in range(2):
        assert list(included_tasks([Path("h")], NemoInstallation())) == ["gsm8k"]
    assert asked(installed) == [f"/ - {installed}/h"]
    task.write_text("task: another\n")
    included_tasks([Path("h")], NemoInstallation())
    assert len(asked(installed)) == 2
    with pytest.raises(HarnessError, match="'g' .*does not exist"):
        included_tasks([Path("g")], NemoInstallation())


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo \"ModuleNotFoundError: No module named 'nemo_evaluator'\" >&2; exit 1", "NeMo Evaluator is not installed in the environment 'nemo'"),
        ("echo oops >&2; exit 3", "The environment nemo does not say what NeMo Evaluator can run there: oops"),
        ("exit 0", "can run there: nothing"),
    ],
)  # fmt: skip
def test_an_environment_that_does_not_answer(installed, script, words):
    answer(installed, script)
    with pytest.raises(HarnessError) as caught:
        read_catalogue(NemoInstallation())
    assert words in str(caught.value)
    assert not list((installed / "cache").rglob("*.json")), "a failure is not remembered"


def test_environments_that_are_not_there_or_hold_something_else(installed):
    for name in ("vllm", "workflow"):
        (installed / f"envs/{name}").mkdir()
        (installed / f"envs/{name}/requirements.in").touch()
    with pytest.raises(EnvironmentMissingError, match="NeMo Evaluator is not installed. .*Run `envs/setup.sh vllm`"):
        read_catalogue(NemoInstallation("vllm"))
    python = installed / "envs/workflow/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(HarnessError, match="not installed in the environment 'workflow'.*'nemo'.*envs/setup.sh nemo"):
        read_catalogue(NemoInstallation("workflow"))
    assert asked(installed) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo '{MARK}{json.dumps(ANSWER)}'", None),
        ("exit 127", "holds no NeMo Evaluator: there is neither a command 'nemo-evaluator' nor 'nel' in it"),
    ],
)
def test_an_image_is_asked_inside(installed, monkeypatch, script, words):
    (installed / "bin").mkdir()
    apptainer = installed / "bin/apptainer"
    apptainer.write_text(f'#!/bin/sh\ncat >/dev/null\necho "$*" >>{installed}/asked\n{script}\n')
    apptainer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{installed}/bin:{os.environ['PATH']}")
    with pytest.raises(ContainerError, match="The container image x.sif does not exist"):
        read_catalogue(NemoInstallation(None, Path("x.sif")))
    (installed / "x.sif").touch()
    if words:
        with pytest.raises(HarnessError, match=words):
            read_catalogue(NemoInstallation(None, Path("x.sif")))
    else:
        assert read_catalogue(NemoInstallation(None, Path("x.sif"))).where == "the image x.sif"
    assert "nemo-evaluator" in asked(installed)[0]
    assert f" {installed}/x.sif " in asked(installed)[0], "it is asked in another folder"


@pytest.mark.parametrize(
    ("name", "asks"), [("t", True), ("u", False), ("tag", True), ("g", True), ("loop", False), ("?", False)]
)
def test_tasks_that_ask_for_log_probabilities(name, asks):
    tasks = {
        "t": {"asks": "multiple_choice"}, "u": {"asks": "generate_until"}, "tag": {"members": ["u", "t"]},
        "g": {"members": ["tag"]}, "loop": {"members": ["loop", "u", "gone"]},
    }  # fmt: skip
    assert asks_log_probabilities(name, tasks) is asks
