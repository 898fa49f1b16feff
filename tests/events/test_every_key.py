"""Every key of the configuration, changed once: what runs is what that takes, and the results are those of a run from nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from campaigns import REPOSITORY
from test_random_events import Life, from_nothing, make_life, shown_of  # noqa: F401 (a fixture)

READERS = {"all", "compare", "tabulate", "plot", "report", "check_numbers"}
SCORED = READERS | {"score_answers"}
ASKED = SCORED | {"prepare_prompts", "evaluate_checkpoint", "collect_answers"}
OF_MODEL = ASKED - {"prepare_prompts"} | {"describe_checkpoint"}
NOTHING: set[str] = set()
# A key, another value of it, and the rules that may run for it.
Change = tuple[str, Any, set[str]]
CONFIG: list[Change] = [
    ("title", "Another", READERS),
    ("limit", 1, ASKED),
    ("reasoning_marks", [["<<", ">>"]], SCORED | {"describe_checkpoint"}),
    ("comparisons", {"ranking": "none"}, READERS),
    ("comparisons", {"correction": "holm"}, READERS),
    ("comparisons", {"pairs": [["c2", "c1"]]}, READERS),
    ("comparisons", {"against": "c1"}, READERS),
    ("tables", {"metrics": "all"}, READERS),
    ("marks", {"truncated": 0.5}, READERS),
    ("figures", {"smoothing": 1}, READERS),
    ("figures", {"band": "std"}, READERS),
    ("walltime_margin_s", 30, NOTHING),
    ("nemo_parallel", 1, NOTHING),
    ("offline", False, NOTHING),
    ("find", "word", NOTHING),
    ("endpoint", "word", NOTHING),
    ("forget", "c1", NOTHING),
]
TASK: list[Change] = [
    ("version", 2, ASKED),
    ("title", "Another", READERS),
    ("description", "What it is for", NOTHING),
    ("system", "Be brief.", ASKED),
    ("samples", 3, ASKED),
    ("sampling", {"max_tokens": 8, "temperature": 0.1}, ASKED),
    ("limit", 1, ASKED),
    ("generation", 2, ASKED),
    ("beside", ["exact_match"], READERS),
    ("k", [2], SCORED),
    ("better", "lower", SCORED),
    ("delta", 0.05, NOTHING),
    ("scorer", {"name": "exact_match", "ignore_case": True}, SCORED),
    ("scorer", {"name": "exact_match", "extract": "(.)"}, SCORED),
    ("scorer", {"name": "exact_match", "ignore_punctuation": True}, SCORED),
]
PROFILE: list[Change] = [
    ("vllm_args", {"dtype": "float16"}, OF_MODEL),
    ("vllm_args", {"dtype": "float16", "gpu-memory-utilization": 0.5}, NOTHING),
    ("env", {"ANY": "1"}, OF_MODEL),
    ("concurrency", 3, NOTHING),
    ("start_timeout_s", 9, NOTHING),
    ("request_timeout_s", 9, NOTHING),
    ("retries", 1, NOTHING),
    ("stage", True, NOTHING),
]
COLUMNS: list[Change] = [("run", "other", READERS), ("step", "77", READERS), ("generation", "2", OF_MODEL)]
# Keys of the schemas that are not changed here, and why.
ELSEWHERE = {
    "config": {"checkpoints": "names the sheet", "tasks": "random events", "model_profiles": "below", "containers": "needs images", "budget": "test_money"},
    "task_native": {"data": "random events", "format": "test_known_tasks", "metric": "has one value here"},
    "model_profile": {"gpus": "needs GPUs"},
    "checkpoint": {
        "name": "random events", "model": "random events", "endpoint": "test_shared", "revision": "of hub models",
        "gpus": "needs GPUs", "model_profile": "the default's keys", "vllm_args": "as in a profile",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "changes"),
    [("config", CONFIG), ("task_native", TASK), ("model_profile", PROFILE), ("checkpoint", COLUMNS)],
)
def test_no_key_is_left_out(schema: str, changes: list[Change]) -> None:
    keys = yaml.safe_load((REPOSITORY / "config/schemas" / f"{schema}.yaml").read_bytes())["properties"]
    assert {key for key, _, _ in changes} | ELSEWHERE[schema].keys() == keys.keys()


def test_each_runs_what_it_takes(make_life: Callable[[int], Life], tmp_path: Path) -> None:  # noqa: F811
    life = make_life(0)
    life.write()
    assert life.campaign.run().rc == 0
    wrong = []

    def play(what: str, allowed: set[str]) -> None:
        life.write()
        run = life.campaign.run()
        expected, there = shown_of(from_nothing(life, tmp_path / "nothing"), life), shown_of(life.campaign.folder, life)
        differ = sorted(name for name in expected.keys() | there.keys() if expected.get(name) != there.get(name))
        if run.rc != 0 or differ or not set(run.rules) <= allowed or bool(run.rules) != bool(allowed):
            wrong.append(f"{what}: exit code {run.rc}, ran {dict(run.rules)}, other than from nothing: {differ}\n")
            if run.rc:
                wrong.append(run.said[-1500:])

    for key, value, allowed in CONFIG:
        life.config[key] = value
        play(f"config {key} = {value}", allowed)
    for key, value, allowed in TASK:
        life.tasks["t1"]["options"][key] = value
        play(f"task {key} = {value}", allowed)
    for key, value, allowed in PROFILE:
        life.config.setdefault("model_profiles", {"default": {"gpus": 0}})["default"][key] = value
        play(f"profile {key} = {value}", allowed)
    for number, (key, value, allowed) in enumerate(COLUMNS):
        life.rows["c1"] = [*life.rows["c1"][: number + 1], value, *life.rows["c1"][number + 2 :]]
        play(f"column {key} = {value}", allowed)
    assert wrong == [], "\n".join(wrong)
