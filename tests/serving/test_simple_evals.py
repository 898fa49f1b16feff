"""simple-evals in an environment of its own: listed by our catalogue, and its command made from our configuration.

Its data lies on the internet, so it is not run here.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from milepost.campaign.config import nemo_task
from milepost.endpoints import Endpoint
from milepost.nemo.catalogue import read_catalogue
from milepost.nemo.check import check_nemo_task
from milepost.nemo.installation import NemoInstallation
from milepost.nemo.run import Setting, command_of, run_config, variables, versions
from milepost.runtime.processes import free_port
from milepost.tasks import build_prompts

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "nemo-simple-evals"
ENDPOINT = Endpoint("http://127.0.0.1:8100/v1", "the-secret-key", "nonce", "last")


@pytest.fixture(scope="module", autouse=True)
def environment():
    subprocess.run([ROOT / "envs" / "setup.sh", ENVIRONMENT], check=True)


def task(**changes):
    spec = {
        "version": 1,
        "harness": "nemo",
        "eval_type": "mmlu_pro",
        "environment": ENVIRONMENT,
        "params": {"temperature": 0.6, "max_new_tokens": 256, "parallelism": 4, "limit_samples": 3},
        "metric": "score",
    }
    return nemo_task("mmlu_pro", {**spec, **changes}, "here")


def test_our_catalogue_is_what_its_own_command_lists():
    nemo_evaluator = ROOT / "envs" / ENVIRONMENT / ".venv" / "bin" / "nemo-evaluator"
    env = {**os.environ, "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0"}
    listed = subprocess.run([nemo_evaluator, "ls"], env=env, capture_output=True, text=True, check=True).stdout
    names = {line.removeprefix("  * ") for line in listed.splitlines() if line.startswith("  * ")}
    catalogue = read_catalogue(NemoInstallation(ENVIRONMENT))
    assert {one.name for one in catalogue if one.harness == "simple_evals"} == names
    assert {"mmlu_pro", "gpqa_diamond", "humaneval"} <= names
    assert catalogue.versions == versions(NemoInstallation(ENVIRONMENT)), "it says of itself what its packages say"
    assert set(catalogue.versions) == {"nemo-evaluator", "nvidia-simple-evals"}
    assert {one.endpoint_types for one in catalogue if one.harness == "simple_evals"} == {("chat",)}


def test_our_configuration_becomes_its_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_nemo_task(task())
    header = build_prompts(task()).header
    config = tmp_path / "run.yml"
    setting = Setting(tuning=task().tuning())
    config.write_text(yaml.safe_dump(run_config(header, ENDPOINT, tmp_path / "out", setting)))
    words, env = command_of(header["harness"], config, variables(ENDPOINT, setting, free_port()), setting)
    done = subprocess.run([*words, "--dry_run"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = shlex.split(done.stdout.partition("Rendered command:")[2])
    program = rendered[rendered.index("simple_evals") :]
    options = dict(zip(program[1::2], program[2::2], strict=False))
    assert options["--eval_name"] == "mmlu_pro"
    assert options["--model"] == "last"
    assert options["--url"] == "http://127.0.0.1:8100/v1/chat/completions"
    assert (options["--temperature"], options["--max_tokens"], options["--num_threads"]) == ("0.6", "256", "4")
    assert options["--first_n"] == "3"
    assert "the-secret-key" not in done.stdout + done.stderr
