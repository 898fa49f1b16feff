import re
from dataclasses import replace
from pathlib import Path

import pytest

from milepost.campaign.config import nemo_task
from milepost.campaign.types import Campaign, Checkpoint, Serving
from milepost.errors import ConfigError, ContainerError, EnvironmentMissingError, ModelError
from milepost.nemo import check as nemo_check
from milepost.nemo.ask import BUILT_IN, LM_EVAL
from milepost.nemo.catalogue import Benchmark, Catalogue, Interface, read_catalogue
from milepost.nemo.installation import NemoInstallation


def benchmark(harness, name, types, task=None, log_probabilities=False):
    known = ("limit_samples", "max_retries", "parallelism", "request_timeout", "temperature")
    return Benchmark(harness, name, types, task, {}, known, ("args", "num_fewshot", "tokenizer"), log_probabilities)


CATALOGUE = Catalogue(
    "the environment 'nemo'",
    {
        LM_EVAL: {
            "ifeval": benchmark(LM_EVAL, "ifeval", ("chat",), "ifeval"),
            "hellaswag": benchmark(LM_EVAL, "hellaswag", ("completions",), "hellaswag", True),
            "gpqa": benchmark(LM_EVAL, "gpqa", ("chat",)),
        },
        "simple_evals": {"gpqa": benchmark("simple_evals", "gpqa", ("chat",)), "humaneval": benchmark("simple_evals", "humaneval", ("chat",))},
    },
    {LM_EVAL: benchmark(LM_EVAL, "", ("chat", "completions")), "simple_evals": benchmark("simple_evals", "", ())},
    {LM_EVAL: {"gsm8k": {"asks": "generate_until"}, "gsm8k_cot": {"asks": "generate_until"}, "piqa": {"asks": "multiple_choice"}, "two": {"members": ["piqa"]}}},
    {LM_EVAL: ["--include_path", "--num_fewshot", "-v"]},
)  # fmt: skip


NEL = Catalogue(
    "the environment 'nemo-0.3'",
    {BUILT_IN: {"gsm8k": replace(benchmark(BUILT_IN, "gsm8k", ("chat", "completions")), known_extra=("num_fewshot",))}, LM_EVAL: {}},
    {name: replace(benchmark(name, "", ("chat", "completions")), known_extra=("num_fewshot",)) for name in (BUILT_IN, LM_EVAL)},
    CATALOGUE.tasks,
    versions={"nemo-evaluator": "0.3.0"},
    interface=Interface("nel"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def catalogue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nemo_check, "read_catalogue", lambda installation: CATALOGUE)
    own = {"mine": {"asks": "multiple_choice"}, "gsm8k": {"asks": "generate_until"}}
    monkeypatch.setattr(nemo_check, "included_tasks", lambda folders, installation: own)


def task(eval_type, **changes):
    return nemo_task("t", {"version": 1, "harness": "nemo", "eval_type": eval_type, "metric": "m", **changes}, "here")


def include():
    Path("h").mkdir(exist_ok=True)
    Path("h/mine.yaml").write_text("task: mine\n")
    return {"extra": {"args": "--include_path h"}}


@pytest.mark.parametrize(
    ("eval_type", "changes", "asks"),
    [
        ("ifeval", {}, False),
        (f"{LM_EVAL}.ifeval", {}, False),
        ("hellaswag", {"endpoint_type": "completions"}, True),
        (f"{LM_EVAL}.gsm8k", {}, False),
        (f"{LM_EVAL}.gsm8k", {"endpoint_type": "completions", "params": {"temperature": 1, "extra": {"num_fewshot": 5}}}, False),
        (f"{LM_EVAL}.two", {"endpoint_type": "completions"}, True),
        ("simple_evals.gpqa", {}, False),
        ("simple_evals.not_listed", {"endpoint_type": "embedding"}, False),
    ],
)  # fmt: skip
def test_tasks_that_can_be_run_pass(eval_type, changes, asks):
    assert nemo_check.check_nemo_task(task(eval_type, **changes)) is asks


@pytest.mark.parametrize(
    ("eval_type", "changes", "words"),
    [
        ("gsm8k", {}, None),
        (f"{BUILT_IN}.gsm8k", {"params": {"extra": {"num_fewshot": 4}}}, None),
        (f"{LM_EVAL}.gsm8k", {"adapter": {"custom_system_prompt": "Be brief."}}, None),
        ("bench.py:sums", {}, None),
        ("other.py", {}, "benchmark file 'other.py' does not exist"),
        (f"{LM_EVAL}.piqa", {"endpoint_type": "completions"}, "asks for log-probabilities. NeMo Evaluator 0.3.0 .* `environment: nemo` can"),
        (f"{LM_EVAL}.mine", {"params": include}, "asks for log-probabilities"),
        (f"{LM_EVAL}.gsm8k_cot", {"params": include}, "options of lm-eval's command line, which is not called"),
        ("gsm8k", {"params": {"limit_samples": 0.5}}, "limit_samples is a share"),
        ("gsm8k", {"adapter": {"process_reasoning_traces": True}}, "adapter has 'process_reasoning_traces'"),
        ("gsm9k", {}, "Did you mean"),
    ],
)  # fmt: skip
def test_what_the_program_from_0_3_on_can_do(monkeypatch, eval_type, changes, words):
    monkeypatch.setattr(nemo_check, "read_catalogue", lambda installation: NEL)
    Path("bench.py").touch()
    changes = {name: value() if callable(value) else value for name, value in changes.items()}
    if words is None:
        assert nemo_check.check_nemo_task(task(eval_type, **changes)) is False
        return
    with pytest.raises(ConfigError, match=words):
        nemo_check.check_nemo_task(task(eval_type, **changes))


@pytest.mark.parametrize(
    ("versions", "name", "words"),
    [
        ({"nvidia-lm-eval": "26.3"}, "gpqa_diamond_zeroshot", "cuts text in square brackets"),
        ({"nvidia-lm-eval": "25.10"}, "mathqa", "does not load. To have it right, add `environment: lm-eval`"),
        ({"nvidia-lm-eval": "26.10"}, "gpqa_diamond_zeroshot", None),
        ({"lm-eval": "0.4.13"}, "gpqa_diamond_zeroshot", None),
        ({"nvidia-lm-eval": "26.3"}, "not_gpqa", None),
        ({"nemo-evaluator": "0.4.1"}, "x", "0.4.1 was never tried with Milepost .* it is run like 0.3.0"),
        ({"nemo-evaluator": "0.1.2"}, "x", "it is run like 0.1.20"),
        ({"nemo-evaluator": "0.2.8"}, "x", None),
    ],
)
def test_what_is_known_of_versions_is_said_before_a_run(monkeypatch, caplog, versions, name, words):
    tasks = {LM_EVAL: {name: {"asks": "generate_until"}}}
    monkeypatch.setattr(nemo_check, "read_catalogue", lambda _: replace(CATALOGUE, versions=versions, tasks=tasks))
    nemo_check.check_nemo_task(task(f"{LM_EVAL}.{name}"))
    if words is None:
        assert caplog.text == ""
    else:
        assert re.search(words, caplog.text)


def test_an_earlier_program_takes_no_python_file():
    Path("bench.py").touch()
    with pytest.raises(ConfigError, match="which NeMo Evaluator takes from 0.3 on"):
        nemo_check.check_nemo_task(task("bench.py"))


def test_a_task_of_ones_own():
    assert nemo_check.check_nemo_task(task(f"{LM_EVAL}.mine", endpoint_type="completions", params=include()))


@pytest.mark.parametrize(
    ("eval_type", "changes", "words"),
    [
        ("ifevl", {}, ["config/tasks/t.yaml asks for 'ifevl'", "It lists gpqa, hellaswag, humaneval, ifeval.", "Did you mean 'ifeval'?", "list_evals"]),
        ("gsm8k", {}, ["Did you mean 'lm-evaluation-harness.gsm8k'?"]),
        ("gpqa", {}, ["several harnesses have 'gpqa'", "lm-evaluation-harness.gpqa or simple_evals.gpqa"]),
        ("lm-evaluation-harnes.gsm8k", {}, ["the harness 'lm-evaluation-harnes'", "Did you mean 'lm-evaluation-harness'?"]),
        (f"{LM_EVAL}.gsm8k_cott", {}, ["the task 'gsm8k_cott'", "4 tasks", "Did you mean 'gsm8k_cot'?", "--include_path FOLDER"]),
        ("ifeval", {"endpoint_type": "completions"}, ["'ifeval' does not take endpoint_type 'completions'. It takes: chat."]),
        ("hellaswag", {"endpoint_type": "completions_logprob"}, ["It takes: completions. Its log-probability tasks run with 'completions'."]),
        (f"{LM_EVAL}.piqa", {}, ["does not take endpoint_type 'chat'. It takes: completions. It asks for log-probabilities"]),
        (f"{LM_EVAL}.two", {}, ["It asks for log-probabilities, which a chat does not give."]),
        ("ifeval", {"params": {"extra": {"num_fewshots": 1}}}, ["params.extra has 'num_fewshots'", "Did you mean 'num_fewshot'?"]),
        ("ifeval", {"params": {"extra": {"args": "-v x --num_fewshots=2"}}}, ["params.extra.args has '--num_fewshots'", "Did you mean '--num_fewshot'?"]),
        ("ifeval", {"params": {"extra": {"args": "--x 'y"}}}, ["cannot be read as a command line"]),
        ("ifeval", {"params": {"top_p": 0.5}}, ["params has 'top_p', which lm-evaluation-harness does not use"]),
        ("ifeval", {"tokenizer": "./gone"}, ["the tokenizer './gone' does not exist"]),
        ("ifeval", {"environment": "nemo", "container": "x.sif"}, ["both an environment and a container"]),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_run_are_refused_with_the_reason(eval_type, changes, words):
    with pytest.raises(ConfigError) as caught:
        nemo_check.check_nemo_task(task(eval_type, **changes))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_of_ones_own_that_the_harness_would_not_see():
    with pytest.raises(ConfigError, match="has a task 'gsm8k' of its own, which wins"):
        nemo_check.check_nemo_task(task(f"{LM_EVAL}.gsm8k", params=include()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eval_type": "a.b.c"}, "eval_type is wrong"),
        ({"params": {"temprature": 1}}, "Did you mean 'temperature'?"),
        ({"adapter": {"use_cache": True}}, "Did you mean 'use_caching'?"),
        ({"adapter": {"params_to_add": {"seed": 1}}}, "adapter.params_to_add is wrong"),
        ({"endpoint_type": "vlm"}, "endpoint_type is wrong"),
    ],
)
def test_the_schema_is_closed(changes, words):
    with pytest.raises(ConfigError) as caught:
        task(**{"eval_type": "ifeval", **changes})
    assert words in str(caught.value)


def campaign(folder, **changes):
    ckpt = Checkpoint("c", str(folder), None, None, None, 1, Serving())
    return Campaign({}, {"c": ckpt}, {"t": task("hellaswag", endpoint_type="completions", **changes)})


def test_log_probabilities_need_a_tokenizer(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelError, match="'c': .* holds no tokenizer, and task 't' asks for log-probabilities"):
        nemo_check.check_nemo_tasks(campaign(tmp_path))
    nemo_check.check_nemo_tasks(campaign(tmp_path, tokenizer="org/name"))
    (tmp_path / "tokenizer.json").touch()
    nemo_check.check_nemo_tasks(campaign(tmp_path))


def test_a_dry_run_goes_on_without_the_environment(tmp_path, monkeypatch, caplog):
    def missing(installation):
        raise EnvironmentMissingError("it is not installed")

    monkeypatch.setattr(nemo_check, "read_catalogue", missing)
    with pytest.raises(EnvironmentMissingError):
        nemo_check.check_nemo_tasks(campaign(tmp_path))
    nemo_check.check_nemo_tasks(campaign(tmp_path), installed=False)
    assert "task 't' was not checked: it is not installed" in caplog.text


def campaign_in(config, *tasks):
    return Campaign(config, {}, {f"t{number}": replace(each, name=f"t{number}") for number, each in enumerate(tasks)})


@pytest.mark.parametrize(
    ("containers", "changes", "words"),
    [
        # A rule makes these; they are checked then.
        ({"nemo": "docker://x/nemo:1"}, {}, None),
        ({}, {"container": "own.def"}, None),
        # Nothing makes these.
        ({"nemo": "lost.sif", "folder": "apps"}, {}, "The container image apps/lost.sif does not exist"),
        ({"nemo": "docker://x/nemo:1", "folder": "apps"}, {"container": "lost.sif"}, "apps/lost.sif does not exist"),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_an_image_that_is_not_there(monkeypatch, caplog, containers, changes, words, installed):
    monkeypatch.setattr(nemo_check, "read_catalogue", read_catalogue)
    made = campaign_in({"containers": containers}, task("ifeval", **changes))
    if words:
        with pytest.raises(ContainerError, match=words):
            nemo_check.check_nemo_tasks(made, installed=installed)
    else:
        nemo_check.check_nemo_tasks(made, installed=installed)
        assert "task 't0' was not checked: results/images/" in caplog.text
        assert f" is yet to be made from {(containers | changes).popitem()[1]}." in caplog.text


def test_an_image_is_checked_as_soon_as_it_is_there(monkeypatch):
    asked = []
    monkeypatch.setattr(nemo_check, "read_catalogue", lambda installation: asked.append(installation) or CATALOGUE)
    made = campaign_in({"containers": {"nemo": "docker://x/nemo:1", "folder": "apps"}}, task("ifevl"))
    with pytest.raises(ConfigError, match="Did you mean 'ifeval'"):
        nemo_check.check_nemo_tasks(made)
    assert asked == [NemoInstallation(None, Path("apps/x_nemo_1.sif"))]


def test_where_only_the_nodes_have_apptainer_the_plan_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(nemo_check, "read_catalogue", read_catalogue)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "n.sif").touch()
    made = campaign_in({"containers": {"nemo": str(tmp_path / "n.sif")}}, task("ifeval"))
    nemo_check.check_nemo_tasks(made)
    assert (
        "task 't0' was not checked: The config names a container image, but there is neither apptainer" in caplog.text
    )


@pytest.mark.parametrize("ends", [[1, 0], [1, 1], [0, float("inf")], [float("nan"), 1]])
def test_a_range_that_is_none_is_an_error(ends):
    with pytest.raises(ConfigError, match=r"`range: \[.*\]` is no range|range\.[01] is wrong: (nan|inf) is no number"):
        nemo_check.check_nemo_tasks(Campaign({}, {}, {"t": task("ifeval", range=ends)}))
