"""The profiles agree with how Snakemake puts them together, and with each other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTERS = [folder.name for folder in sorted((ROOT / "profiles").iterdir()) if folder.name != "default"]


def profile(name):
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


def evaluation(name, attempt=1, ckpt_profile="default", gpus=1, rule="evaluate_checkpoint"):
    """The resources of a server's job, evaluated as Snakemake does, on top of the profile's defaults."""
    asked = {
        "attempt": attempt,
        "wildcards": None,
        "gpus": lambda wildcards: gpus,
        "model_profile": lambda wildcards: ckpt_profile,
    }
    given = profile(name)["default-resources"] | profile(name)["set-resources"][rule]
    return {key: eval(value, asked) if isinstance(value, str) else value for key, value in given.items()}


@pytest.mark.parametrize("name", CLUSTERS)
def test_default_shares_no_key_with_a_cluster(name):
    # profiles/default loads by itself and wins over --profile, key by key.
    assert not set(profile("default")) & set(profile(name))


def test_slurm_is_found_by_its_plain_name():
    link = ROOT / "slurm"
    assert link.is_symlink()
    assert os.readlink(link) == "profiles/slurm"


@pytest.mark.parametrize("name", CLUSTERS)
def test_one_server_at_a_time_here_and_any_number_on_a_cluster(name):
    assert profile("default")["resources"] == ["server=1"]
    assert evaluation(name)["server"] == 0


@pytest.mark.parametrize("name", CLUSTERS)
def test_retries_get_more_time_and_slurm_restarts_nothing_itself(name):
    assert profile(name)["retries"] == 2
    first, second, third = (evaluation(name, attempt)["runtime"] for attempt in (1, 2, 3))
    assert first < second < third
    assert profile(name)["slurm-no-requeue"] is True


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_option_is_one_of_snakemake(name):
    options = subprocess.run(
        [Path(sys.executable).with_name("snakemake"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert [key for key in profile(name) if not re.search(rf"--{key}\b", options)] == []


@pytest.mark.parametrize(
    ("ckpt_profile", "gpus", "model", "constraint", "runtimes"),
    [
        ("default", 1, "A40", None, [480, 960, 1440]),
        ("fast", 1, "A100", None, [480, 960, 1440]),
        ("large", 4, "A100fat", None, [2880, 5760, 8640]),
        ("large", 0, "", "NOGPU", [2880, 5760, 8640]),  # complete, external, or served by the CPU build
    ],
)
def test_alvis_gives_a_model_its_gpu(ckpt_profile, gpus, model, constraint, runtimes):
    tries = [evaluation("alvis", attempt, ckpt_profile, gpus) for attempt in (1, 2, 3)]
    assert [one["runtime"] for one in tries] == runtimes
    assert {one["gpu_model"] for one in tries} == {model}
    assert {one["constraint"] for one in tries} == {constraint}
    assert evaluation("alvis", 9, "large")["runtime"] == 7 * 24 * 60


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_shared_server_gets_what_a_checkpoints_gets_and_stays_for_a_day_of_work(name):
    shared = evaluation(name, rule="serve_shared")
    assert shared["runtime"] == 480
    for key in ("nodes", "mem_mb", "gpu_model", "constraint"):
        assert shared.get(key) == evaluation(name).get(key)
    without = evaluation(name, gpus=0, rule="serve_shared")
    assert (without.get("gpu_model"), without.get("constraint")) == (
        {"alvis": ("", "NOGPU"), "slurm": (None, None)}[name]
    )


@pytest.mark.parametrize(
    ("gpus", "line"),
    [
        (1, "gpu=1, gpu_model=A40, constraint=<none>"),
        (0, "gpu=0, gpu_model=, constraint=NOGPU"),
    ],
)
def test_the_workflow_answers_what_a_profile_asks(tmp_path, gpus, line):
    (tmp_path / "config/tasks").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    for file, content in {"config.json": {}, "tokenizer_config.json": {"chat_template": "any"}}.items():
        (tmp_path / "model" / file).write_text(json.dumps(content))
    (tmp_path / "config/checkpoints.tsv").write_text(f"name\tmodel\tgpus\nany\tmodel\t{gpus}\n")
    (tmp_path / "items.jsonl").write_text(
        '{"id": "a", "messages": [{"role": "user", "content": "a"}], "target": "a"}\n'
    )
    task = {"version": 1, "data": "items.jsonl", "scorer": {"name": "exact_match"}}
    (tmp_path / "config/tasks/t.yaml").write_text(yaml.safe_dump(task))
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump({"tasks": ["t"]}))
    judge = {"provider": "shared", "model": "model", "gpus": gpus}
    (tmp_path / "config/endpoints.yaml").write_text(yaml.safe_dump({"judge": judge, "other": {**judge, "gpus": 4}}))
    plan = subprocess.run(
        [
            Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "Snakefile", "--directory", tmp_path,
            "--profile", ROOT / "profiles/alvis", "--executor", "dryrun", "--dry-run", "all", "serve_shared",
            "--config", "endpoint=judge",
        ],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for rule in ("evaluate_checkpoint", "serve_shared"):
        said = re.search(rf"rule {rule}:\n(?: .*\n)*? +resources: (.*)", plan).group(1)
        told = dict(part.split("=") for part in said.split(", "))
        assert line == ", ".join(f"{key}={told.get(key, '<none>')}" for key in ("gpu", "gpu_model", "constraint"))
