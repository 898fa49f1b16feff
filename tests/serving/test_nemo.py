"""NeMo Evaluator's lm-eval on the demo's model, served by vLLM: through a campaign, and by hand beside it."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import NEMO, PROFILE, REPOSITORY, STEPS, run_eval, snakemake, write

from milepost.nemo import run as nemo
from milepost.nemo.relay import answered
from milepost.nemo.results import newest_samples
from milepost.nemo.runs import is_done
from milepost.records import read_records, read_scores, read_summary
from milepost.runtime.processes import Watchdog, free_port

HARNESS = "lm-evaluation-harness"
COLD = {"temperature": 0.0, "parallelism": 1, "request_timeout": 60, "max_retries": 2}
ARGS = "--include_path harness"


def task(name, endpoint_type="chat", metric="exact_match", args=ARGS, **changes):
    params = {**COLD, "extra": {"args": args}, **changes.pop("params", {})}
    return {
        "version": 1, "harness": "nemo", "eval_type": f"{HARNESS}.{name}", "endpoint_type": endpoint_type,
        "params": params, "metric": metric, **changes,
    }  # fmt: skip


GENERATE, CHOOSE, GROUP = task("t_colours"), task("t_where", "completions", "acc"), task("t_both")
TASKS = {
    "generate": GENERATE,
    "choose": CHOOSE,
    "group": GROUP,
    "evenly": task("t_evenly"),
    "warm": task("t_places", samples=2, params={"temperature": 1.0, "parallelism": 8}),
    "broken": task("t_broken"),
}
# The same task by every program that NeMo Evaluator has been: by environment, what it holds.
VERSIONS = {
    "nemo-0.1": {"nemo-evaluator": "0.1.20", "nvidia-lm-eval": "25.10"},
    "nemo-0.1.95": {"nemo-evaluator": "0.1.95", "nvidia-lm-eval": "26.1"},
    "nemo-0.3": {"nemo-evaluator": "0.3.0"},
    "lm-eval": {"nemo-evaluator": "0.2.8", "lm-eval": "0.4.13"},
}
OWN_FILE = {"eval_type": "harness/colours.py", "metric": "reward", "params": {**COLD, "max_new_tokens": 24}}
TASKS |= {name: {**GENERATE, "environment": name, **(OWN_FILE if name == "nemo-0.3" else {})} for name in VERSIONS}


def prepare(folder, model, tasks, containers=None):
    """A campaign of one checkpoint, always under the same name and in the same folder."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    shutil.copytree(model, folder / "model")
    for name in tasks:
        write(folder / f"config/tasks/{name}.yaml", tasks[name])
    write(
        folder / "config/config.yaml",
        {
            "tasks": list(tasks),
            "nemo_parallel": 2,
            "model_profiles": {"default": PROFILE},
            "containers": containers or {},
        },
    )
    (folder / "config/checkpoints.tsv").write_text("name\tmodel\nc\tmodel\n")


def result(folder, name):
    return read_summary(folder / f"results/summaries/c/{name}.json")


def texts(folder):
    """Every answer of a run's folder by its item."""
    return {
        f"{path.name.split('_2')[0]}/{line['doc_id']}": line["resps"][0][0]
        for path in newest_samples(folder)
        for line in read_records(path)
    }


@pytest.fixture(scope="module")
def evaluated(campaign, models, request):
    """The campaign after an early checkpoint on one task, and the last one, in its place, on all.

    Where there is an image, one of the tasks runs in it, with NeMo Evaluator bound into it.
    """
    prepare(campaign, models[STEPS[0]], {"generate": GENERATE})
    code, said = snakemake(campaign)
    assert code == 0, said
    early = result(campaign, "generate")
    shutil.copytree(campaign / "results/harness/c/generate/run-0", campaign / "early")
    tasks, containers = dict(TASKS), {}
    try:
        image = request.getfixturevalue("image")
    except pytest.skip.Exception:
        pass  # its own test says why
    else:
        tasks["inside"] = {**GENERATE, "container": image.name}
        containers = {"folder": str(image.parent.absolute()), "bind_environments": True}
    prepare(campaign, models[STEPS[-1]], tasks, containers)
    code, said = snakemake(campaign, "--keep-going")
    return early, code, said


@pytest.fixture(scope="module")
def by_hand(campaign, served):
    """The results of `nemo-evaluator run_eval` on the same model, with nothing of ours between."""
    tokenizer = {"tokenizer": str(campaign / "model"), "tokenizer_backend": "huggingface"}
    runs = {}
    for name, spec in {"generate": GENERATE, "choose": CHOOSE, "group": GROUP}.items():
        path = {"chat": "chat/completions", "completions": "completions"}[spec["endpoint_type"]]
        extra = {"args": f"--include_path {campaign}/harness", **(tokenizer if path == "completions" else {})}
        config = {
            "config": {"type": spec["eval_type"], "output_dir": str(campaign / "hand" / name), "params": {**COLD, "extra": extra}},
            "target": {"api_endpoint": {"url": f"{served.url}/{path}", "model_id": served.name, "type": spec["endpoint_type"], "api_key_name": "HAND_KEY"}},
        }  # fmt: skip
        write(campaign / "hand" / f"{name}.yml", config)
        env = {
            **os.environ, "PATH": f"{NEMO}:{os.environ['PATH']}", "HAND_KEY": served.key, "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
            "ADAPTER_PORT": str(free_port()),
        }  # fmt: skip
        command = [NEMO / "nemo-evaluator", "run_eval", "--run_config", campaign / "hand" / f"{name}.yml"]
        log = (campaign / "hand" / f"{name}.log").open("w")
        runs[name] = subprocess.Popen(command, cwd=campaign, env=env, stdout=log, stderr=subprocess.STDOUT)
    for name, run in runs.items():
        assert run.wait(600) == 0, (campaign / "hand" / f"{name}.log").read_text()[-3000:]
    return {name: yaml.safe_load((campaign / "hand" / name / "results.yml").read_text())["results"] for name in runs}


@pytest.mark.parametrize("name", ["generate", "choose", "group"])
def test_scores_equal_those_by_hand_to_the_last_digit(campaign, evaluated, by_hand, name):
    (group,) = by_hand[name]["groups"].values()
    summary = result(campaign, name)
    assert "harness" not in summary
    for metric, scores in group["metrics"].items():
        assert summary["metrics"][metric]["value"] == scores["scores"][metric]["value"]
    headline = TASKS[name]["metric"]
    assert summary["value"] == group["metrics"][headline]["scores"][headline]["value"]
    # The error is lm-eval's own, too, where items are one task's: both have n - 1 in the denominator.
    if name != "group":
        assert summary["stderr"] == pytest.approx(
            group["metrics"][headline]["scores"][headline]["stats"]["stderr"], rel=1e-9
        )


def test_every_item_has_its_score(campaign, evaluated):
    scores = {
        name: read_scores(campaign / f"results/scores/c/{name}.jsonl") for name in ("generate", "choose", "group")
    }
    assert [len(found) for found in scores.values()] == [50, 40, 80]
    ids = [score["id"] for score in scores["group"]]
    assert len(set(ids)) == 80
    assert {ident.partition("/")[0] for ident in ids} == {"t_colours", "t_sums"}
    assert set(scores["choose"][0]["metrics"]) == {"acc", "acc_norm"}
    # What a group asks of its tasks is what they are asked alone.
    alone = {score["id"]: score["score"] for score in scores["generate"]}
    assert {f"t_colours/{ident}": score for ident, score in alone.items()}.items() <= {
        score["id"]: score["score"] for score in scores["group"]
    }.items()
    group = result(campaign, "group")
    assert (group["n_items"], group["n_samples"]) == (80, 80)
    assert group["metrics"]["t_sums/exact_match"]["value"] is not None
    assert result(campaign, "choose")["rates"]["truncated"] is None


def test_a_group_that_weighs_its_tasks_equally_keeps_the_harness_number(campaign, evaluated):
    evenly, group = result(campaign, "evenly"), result(campaign, "group")
    assert evenly["harness"] is True
    parts = [group["metrics"][f"{part}/exact_match"]["value"] for part in ("t_colours", "t_sums")]
    assert evenly["value"] == pytest.approx(sum(parts) / 2, abs=1e-12)
    assert evenly["value"] != group["value"]
    assert read_scores(campaign / "results/scores/c/evenly.jsonl") == []


def test_a_task_that_fails_hurts_no_other(campaign, evaluated):
    _, code, said = evaluated
    assert code != 0
    assert "on task 'broken'" in said
    assert "no_such_filter" in said, "it says why, in lm-eval's own words"
    assert not (campaign / "results/summaries/c/broken.json").exists()
    for name in TASKS:
        assert name == "broken" or (campaign / f"results/summaries/c/{name}.json").exists()


def test_versions_stand_beside_the_numbers(campaign, evaluated):
    said = yaml.safe_load((campaign / "results/harness/c/generate/run-0/results.yml").read_text())["metadata"]
    versions = result(campaign, "generate")["provenance"]["versions"]
    assert versions["nemo-evaluator"] == said["versioning"]["nemo_evaluator"]
    (harness,) = (REPOSITORY / "envs/nemo/.venv/lib").glob("python*/site-packages/nvidia_lm_eval-*.dist-info")
    assert versions["nvidia-lm-eval"] == harness.name.removesuffix(".dist-info").partition("-")[2]
    assert "nemo-image" not in versions


@pytest.mark.parametrize("name", VERSIONS)
def test_every_version_of_nemo_evaluator_gets_the_same_answers(campaign, evaluated, name):
    summary, plain = result(campaign, name), result(campaign, "generate")
    assert VERSIONS[name].items() <= summary["provenance"]["versions"].items()
    assert (summary["value"], summary["stderr"], summary["n_items"]) == (plain["value"], plain["stderr"], 50)
    assert summary["rates"]["truncated"] == plain["rates"]["truncated"]
    assert summary["mean_tokens"] == pytest.approx(plain["mean_tokens"])
    runs = [texts(campaign / f"results/harness/c/{task}/run-0") for task in (name, "generate")]
    assert list(runs[0].values()) == list(runs[1].values())


def test_a_task_in_an_image_gets_the_same_answers(campaign, evaluated, image):
    runs = [campaign / f"results/harness/c/{name}/run-0" for name in ("inside", "generate")]
    assert texts(runs[0]) == texts(runs[1])
    inside, bare = (result(campaign, name) for name in ("inside", "generate"))
    assert (inside["value"], inside["stderr"]) == (bare["value"], bare["stderr"])
    versions = inside["provenance"]["versions"]
    assert versions.pop("nemo-image") == hashlib.sha256(image.read_bytes()).hexdigest()
    assert versions == bare["provenance"]["versions"]


def test_two_runs_at_a_temperature_give_different_answers(campaign, evaluated):
    runs = [texts(campaign / f"results/harness/c/warm/run-{number}") for number in range(2)]
    assert runs[0].keys() == runs[1].keys()
    assert sum(runs[0][item] != runs[1][item] for item in runs[0]) >= 5
    warm = result(campaign, "warm")
    assert (warm["n_items"], warm["n_samples"]) == (40, 80)
    assert (warm["value"], warm["variance"]["decoding"]) == (0, 0), "each is a sentence, and the target is a word"
    repeats = warm["provenance"]["repeats"]
    assert repeats["compared"] == 40
    assert repeats["same"] <= 35
    assert "note" not in repeats
    (folder,) = (campaign / "results/store/c/warm").iterdir()
    seeds = [line["seed"] for number in range(2) for line in read_records(folder / f"run-{number}.requests.jsonl")]
    assert len(seeds) == len(set(seeds)) == 80, "every request has a seed of its own"


def test_a_second_checkpoint_never_gets_the_first_ones_answers(campaign, evaluated):
    early, *_ = evaluated
    assert early["provenance"]["model"] != result(campaign, "generate")["provenance"]["model"]
    assert len([path for path in (campaign / "results/store/c/generate").iterdir() if path.is_dir()]) == 2
    first, last = texts(campaign / "early"), texts(campaign / "results/harness/c/generate/run-0")
    assert first.keys() == last.keys()
    assert first != last
    assert early["value"] != result(campaign, "generate")["value"]


def test_tuning_asks_nothing_again_and_an_edited_task_file_does(campaign, evaluated):
    changed = {**GENERATE, "params": {**GENERATE["params"], "parallelism": 4, "request_timeout": 90, "max_retries": 7}}
    write(campaign / "config/tasks/generate.yaml", changed)
    targets = [f"results/summaries/c/{name}.json" for name in ("generate", "choose", "group")]
    _, said = snakemake(campaign, "--dry-run", *targets)
    assert "Nothing to be done" in said
    path = campaign / "harness/t_colours.yaml"
    before = path.read_text()
    try:
        path.write_text(before + 'description: "Answer with a colour. "\n')
        _, said = snakemake(campaign, "--dry-run", *targets)
        prepared = {name for name in ("generate", "choose", "group") if f"output: results/prompts/{name}.jsonl" in said}
        assert prepared == {"generate", "group"}, "the neighbour in the same folder is not asked again"
    finally:
        path.write_text(before)
        write(campaign / "config/tasks/generate.yaml", GENERATE)


def test_a_run_that_was_cut_goes_on_where_it_was(campaign, served, evaluated, tmp_path, monkeypatch):
    monkeypatch.chdir(campaign)
    header = read_record_of(campaign / "results/prompts/generate.jsonl")
    folder, record = tmp_path / "run-0", tmp_path / "run-0.requests.jsonl"

    async def run(cut_at=None):
        watchdog = Watchdog()
        try:
            going = asyncio.create_task(
                nemo.run(
                    header,
                    0,
                    folder,
                    served,
                    nemo.Setting(tuning={"params": {"parallelism": 1}}),
                    tmp_path / "log",
                    watchdog,
                )
            )
            while cut_at and answered(record) < cut_at and not going.done():
                await asyncio.sleep(0.01)
            if cut_at:
                going.cancel()
            await going
        finally:
            watchdog.close()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run(cut_at=10))
    first = answered(record)
    assert 10 <= first < 50
    assert not is_done(folder)
    asyncio.run(run())
    assert is_done(folder)
    assert answered(record) == 50, "lm-eval keeps nothing that it draws, so it asked all again: the relay had them"
    assert texts(folder) == texts(campaign / "results/harness/c/generate/run-0")


def read_record_of(path):
    return next(iter(read_records(path)))


def test_no_key_is_written_down(campaign, served, evaluated):
    written = subprocess.run(["grep", "-rlF", served.key, campaign], capture_output=True, text=True, check=False)
    assert written.stdout.split() == []


@pytest.mark.parametrize(
    ("scorer", "data", "options", "bounds"),
    [
        # The model knows its sums, and not all of them; it tells where somebody is in a sentence of its own.
        ("exact_match", "sums", {}, (0.5, 1)),
        ("avert", "where", {"extra_wrong": ["unknown"], "truth": "names_target"}, (0.3, 1)),
    ],
)
def test_our_scorers_as_its_tasks_give_a_campaigns_numbers(demo, served, tmp_path, scorer, data, options, bounds):
    extra = {"data": str(demo / "data" / f"{data}.jsonl"), "samples": 4, "scorer": options}
    params = {"parallelism": 16, "temperature": 0.7, "max_new_tokens": 24, "extra": extra}
    done, results = run_eval(
        tmp_path, served.url, {"type": f"milepost.{scorer}", "params": params}, served.key, served.model
    )
    assert done.returncode == 0, done.stdout
    # The campaign's own step, on the answers that the harness kept.
    (tmp_path / "scoring.json").write_text(json.dumps({"scorer": {"name": scorer, **options}}))
    (tmp_path / "model.json").write_text('{"digest": "any"}\n')
    kept = tmp_path / "out" / "milepost"
    command = [sys.executable, REPOSITORY / "scripts" / "score_answers.py", "--ckpt", "c", "--task", "t"]
    files = {"model": "model.json", "prompts": kept / "prompts.jsonl", "answers": kept / "answers.jsonl"}
    files |= {"scoring": "scoring.json", "scores": "scores.jsonl", "summary": "summary.json"}
    words = [word for name, value in files.items() for word in (f"--{name}", str(value))]
    subprocess.run([*command, *words], cwd=tmp_path, check=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    metrics = results["tasks"][scorer]["metrics"]
    for name, estimate in summary["metrics"].items():
        score = metrics[name]["scores"][name]
        assert (score["value"], score["stats"].get("stderr")) == (estimate["value"], estimate["stderr"])
    assert bounds[0] < summary["value"] < bounds[1]
    assert metrics[summary["metric"]]["scores"][summary["metric"]]["stats"]["count"] == summary["n_items"] >= 50
