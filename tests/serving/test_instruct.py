"""A real instruct model is asked a slice of IFEval, and lm-evaluation-harness' own verdicts on its answers are ours."""

import json
import shutil
import subprocess

import pytest
import yaml
from conftest import DEMO, REPOSITORY

ENVS = REPOSITORY / "envs"
pytestmark = pytest.mark.skipif(
    not all((ENVS / name / ".venv/bin/python").exists() for name in ("instruct", "benchmarks", "ifbench", "vllm")),
    reason="environments are not installed: `make test-instruct` does that",
)
# The package brings the harness without what the rest of it needs.
ORACLE = """
import json, sys, types
from importlib.util import find_spec
import langdetect, nltk
langdetect.DetectorFactory.seed = 0
nltk.data.path.append(sys.argv[1])
root = find_spec("lm_eval").submodule_search_locations[0]
for name, path in (("lm_eval", root), ("lm_eval.tasks", root + "/tasks"), ("lm_eval.tasks.ifeval", root + "/tasks/ifeval")):
    package = types.ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package
from lm_eval.tasks.ifeval.utils import process_results
for line in sys.stdin:
    row, answer = json.loads(line)
    found = process_results(row, [answer])
    print(json.dumps([found["inst_level_strict_acc"], found["inst_level_loose_acc"]]))
"""


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_slice_of_ifeval_and_checkers_of_our_own(tmp_path):
    campaign = tmp_path / "benchmarks"
    for part in ("config", "checkers"):
        shutil.copytree(DEMO / "benchmarks" / part, campaign / part)
    shutil.copy(DEMO / "benchmarks/data.jsonl", campaign)
    sheet = campaign / "config/checkpoints.tsv"
    sheet.write_text(sheet.read_text().replace("../models", str(DEMO / "models")))
    for name, limit in (("ifeval", 8), ("following", 4)):
        file = campaign / f"config/tasks/{name}.yaml"
        task = yaml.safe_load(file.read_text()) | {"samples": 1, "limit": limit}
        task["sampling"]["at_most"] = 96
        file.write_text(yaml.safe_dump(task))
    done = subprocess.run(
        [DEMO / "instruct.sh", campaign, "--cores", "2"], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    answers = {line["id"]: line for line in records(campaign / "results/answers/smollm2/ifeval.jsonl")}
    scores = records(campaign / "results/scores/smollm2/ifeval.jsonl")
    summary = json.loads((campaign / "results/summaries/smollm2/ifeval.json").read_text())
    assert len(answers) == len(scores) == summary["n_items"] == 8
    assert summary["partial"] == {"limit": 8, "of": 541}
    assert all(answer["content"].strip() for answer in answers.values())
    assert 0 < summary["mean_tokens"] <= 96
    assert summary["rates"]["failed"] == 0

    package = next((ENVS / "benchmarks/.venv/lib").glob("python*/site-packages"))
    data = shutil.copytree(package / "llama_index/core/_static/nltk_cache", tmp_path / "nltk")
    rows = {str(row["key"]): row for row in records(package / "eval_framework/tasks/ifeval/data/input_data.jsonl")}
    asked = "".join(json.dumps([rows[score["id"]], answers[score["id"]]["content"]]) + "\n" for score in scores)
    said = subprocess.run(
        [ENVS / "benchmarks/.venv/bin/python", "-c", ORACLE, data],
        input=asked,
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [json.loads(line) for line in said.stdout.splitlines()]
    assert [
        [[one[level] for one in score["instructions"]] for level in ("strict", "loose")] for score in scores
    ] == theirs

    following = json.loads((campaign / "results/summaries/smollm2/following.json").read_text())
    assert (following["n_items"], following["metrics"]["crashed"]["value"]) == (4, 0)
