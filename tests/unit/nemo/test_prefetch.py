"""What `prefetch` finds to fetch, and what it says of what it could not."""

from pathlib import Path

import pytest

from milepost.campaign.config import nemo_task
from milepost.campaign.types import Campaign, Checkpoint, Serving
from milepost.nemo import prefetch
from milepost.nemo.catalogue import Benchmark, Catalogue
from milepost.nemo.installation import NemoInstallation
from milepost.nemo.prefetch import Download, Loading, explain, fetch, make_plan, wanted_models
from milepost.nemo.prefetch_worker import kind_of

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


def benchmark(harness, name="", task=None):
    return Benchmark(harness, name, ("chat",), task, {}, (), (), False)


CATALOGUE = Catalogue(
    "here",
    {"lm-evaluation-harness": {"mmlu": benchmark("lm-evaluation-harness", "mmlu", "mmlu_str")}, "simple_evals": {}},
    {"lm-evaluation-harness": benchmark("lm-evaluation-harness"), "simple_evals": benchmark("simple_evals")},
    {"lm-evaluation-harness": {"gsm8k": {"kind": "task", "asks": "generate_until"}}},
)


def campaign(tasks, checkpoints=(), **config):
    nemo = {
        name: nemo_task(name, {"version": 1, "harness": "nemo", "metric": "acc", **spec}, "here")
        for name, spec in tasks.items()
    }
    return Campaign(config, {ckpt.name: ckpt for ckpt in checkpoints}, nemo)


def checkpoint(name, model, **vllm_args):
    return Checkpoint(name, model, COMMIT, None, None, 1, Serving(vllm_args=vllm_args))


def test_tasks_are_loaded_where_they_run_under_the_harness_names(monkeypatch):
    monkeypatch.setattr(prefetch, "read_catalogue", lambda installation: CATALOGUE)
    plan = make_plan(
        campaign(
            {
                "a": {"eval_type": "mmlu"},
                "b": {"eval_type": "lm-evaluation-harness.gsm8k", "environment": "mine"},
                "c": {"eval_type": "simple_evals.mmlu", "container": "simple.sif"},
            },
            containers={"nemo": "docker://x/nemo:1", "folder": "/apps"},
        )
    )
    loaded = {one.installation: [task.options["name"] for task in one.tasks] for one in plan.loadings}
    assert loaded == {
        NemoInstallation(None, Path("/apps/x_nemo_1.sif")): ["mmlu_str"],
        NemoInstallation("mine"): ["gsm8k"],
    }
    assert len(plan.left) == 1
    assert plan.left[0].startswith("the data of task 'c': simple_evals fetches it while it runs")


def test_hub_models_and_tokenizers_once_each_and_no_folders(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    wanted = wanted_models(
        campaign(
            {"a": {"eval_type": "mmlu", "tokenizer": "org/words"}, "b": {"eval_type": "x", "tokenizer": str(tmp_path)}},
            [
                checkpoint("here", str(tmp_path), tokenizer="org/words"),
                checkpoint("one", "org/model"),
                checkpoint("two", "org/model", **{"trust-remote-code": True}),
            ],
        )
    )
    assert [one.title for one in wanted] == ["model org/model", "tokenizer org/words"]


A, B = Download("a", {"name": "a"}), Download("b", {"name": "b"})


@pytest.mark.parametrize(
    ("fetched", "checked", "kinds"),
    [
        ({"a": {"said": "2 items"}}, {"a": {"said": "2 items"}}, []),
        ({"a": {"error": "no way", "kind": "hub"}}, {}, ["hub"]),
        # It must load without the hub afterwards: nothing else proves it.
        ({"a": {"said": "2 items"}}, {"a": {"error": "not cached", "kind": "hub"}}, ["other"]),
    ],
)
def test_fetched_counts_only_if_it_loads_offline(monkeypatch, fetched, checked, kinds):
    answers = iter([{"a": {"error": "not cached", "kind": "hub"}, "b": {"said": "7 items"}}, fetched, checked])
    asked = []

    def load(loading, wanted, *, offline):
        asked.append(([one.title for one in wanted], offline))
        return next(answers)

    monkeypatch.setattr(prefetch, "load", load)
    said = []
    failed = fetch(Loading(NemoInstallation("nemo"), [A, B]), said.append)
    assert [one["kind"] for one in failed] == kinds
    assert said[0] == "there     b: 7 items"
    assert ("fetched   a: 2 items" in said) == (not kinds)
    assert asked[:2] == [(["a", "b"], True), (["a"], False)]


def test_explanation_by_reason():
    text = explain(
        [
            {"title": "model x", "error": "ConnectError: no route.\nmore", "kind": "hub"},
            {"title": "data y", "error": "ConnectError: no route", "kind": "hub"},
            {"title": "model z", "error": "GatedRepoError: 403", "kind": "refused"},
            {"title": "data w", "error": "TypeError: bad", "kind": "other"},
        ]
    )
    assert "cannot be reached from this host (ConnectError: no route): model x, data y. Run this on a host" in text
    assert "The hub refused model z (GatedRepoError: 403)." in text
    assert text.endswith("data w could not be loaded: TypeError: bad.")
    assert "\n" not in text


def gated():
    error = OSError("gated")
    error.response = type("Response", (), {"status_code": 403})()
    return error


def caused(cause):
    error = ValueError("could not load")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("Couldn't reach"), "hub"),
        (caused(ConnectionRefusedError("refused")), "hub"),
        (caused(gated()), "refused"),
        (ValueError("no items"), "other"),
    ],
)
def test_why_something_could_not_be_loaded(error, kind):
    assert kind_of(error) == kind
