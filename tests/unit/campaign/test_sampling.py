import json
from pathlib import Path

import pytest

from milepost.campaign.config import native_task
from milepost.campaign.identity import identify
from milepost.campaign.sampling import NEUTRAL, bases, effective, own_sampling, server_options, server_sampling
from milepost.campaign.types import Checkpoint, Serving
from milepost.evaluation.work import requests_of
from milepost.records import PromptSet
from milepost.tasks import build_prompts

QWEN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [7, 8]}
SAMPLED = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model(generation=None, config=None, name="m"):
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {}))
    if generation is not None:
        (folder / "generation_config.json").write_text(
            generation if isinstance(generation, str) else json.dumps(generation)
        )
    return folder


def identity(folder, **options):
    return identify(Checkpoint("c", str(folder), None, None, None, 1, Serving(**options)))["identity"]


@pytest.mark.parametrize(
    ("generation", "config", "options", "own", "added"),
    [
        (None, {}, {}, {}, {}),
        ({"eos_token_id": 7, "transformers_version": "5"}, {}, {}, {}, {}),
        ({"temperature": 1.0, "top_k": 0, "top_p": 1, "repetition_penalty": 1.0, "min_p": None}, {}, {}, {}, {}),
        ({"top_k": -1}, {}, {}, {}, {}),
        (QWEN, {}, {}, SAMPLED, {}),
        ({"repetition_penalty": 1.05}, {}, {}, {"repetition_penalty": 1.05}, {}),
        (None, {"top_p": 0.5, "hidden_size": 4}, {}, {}, {}),
        ("no JSON", {"top_p": 0.5}, {}, {}, {}),
        ("[]", {}, {}, {}, {}),
        (QWEN, {}, {"generation-config": "vllm"}, {}, {}),
        (QWEN, {}, {"generation-config": "auto"}, SAMPLED, SAMPLED),
        (QWEN, {}, {"generation-config": "other"}, {"min_p": 0.1}, {"min_p": 0.1}),
        (QWEN, {}, {"hf-config-path": "other"}, {"min_p": 0.1}, {}),
        ({}, {}, {"override-generation-config": {"top_k": 5}}, {"top_k": 5}, {"top_k": 5}),
        ({}, {}, {"override-generation-config": '{"top_k": 5}'}, {"top_k": 5}, {"top_k": 5}),
        ({}, {}, {"override-generation-config.top_k": 5}, {"top_k": 5}, {"top_k": 5}),
    ],
)
def test_what_a_model_and_its_server_add(generation, config, options, own, added):
    folder = model(generation, config)
    model({"min_p": 0.1}, name="other")
    serving = Serving(vllm_args=options)
    assert own_sampling(serving, folder) == own
    assert server_sampling(serving, folder) == added
    assert server_options(serving) == ({} if "generation-config" in options else {"generation-config": "vllm"})
    assert bases(serving, folder) == {"task": {**NEUTRAL, **added}, "model": {**NEUTRAL, **added, **own}}


@pytest.mark.parametrize("generation", [None, {"eos_token_id": 7}, {"temperature": 1.0, "top_k": -1}, "no JSON"])
def test_a_checkpoint_whose_file_has_no_effect_is_who_it_was(generation):
    found = identity(model(generation))
    assert found["serving"] == {"vllm_args": {}, "env": {}}


@pytest.mark.parametrize("generation", [QWEN, {"repetition_penalty": 1.1}, {"top_k": 50}])
def test_a_checkpoint_whose_file_had_an_effect_is_another_now(generation):
    folder = model(generation)
    found = identity(folder)
    assert found["serving"]["vllm_args"] == {"generation-config": "vllm"}
    # Whoever had said so already is asked nothing again, nor who wants the model's own.
    assert found == identity(folder, vllm_args={"generation-config": "vllm"})
    assert identity(folder, vllm_args={"generation-config": "auto"})["serving"]["vllm_args"] == {
        "generation-config": "auto"
    }


def test_a_hub_model_is_the_same_before_and_after_its_files_are_here(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    ckpt = Checkpoint("c", "org/name", "a" * 40, None, None, 1, Serving())
    before = identify(ckpt)
    snapshot = tmp_path / "hf" / "hub" / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for content in ({}, QWEN):
        (snapshot / "generation_config.json").write_text(json.dumps(content))
        assert identify(ckpt) == before
    pooling = Checkpoint("c", "org/name", "a" * 40, None, None, 1, Serving(vllm_args={"runner": "pooling"}))
    assert "generation-config" not in identify(pooling)["identity"]["serving"]["vllm_args"]


def task(sampling, items='{"id": "a", "prompt": "?", "target": "x"}\n'):
    Path("t.jsonl").write_text(items)
    spec = {"version": 1, "data": "t.jsonl", "scorer": {"name": "exact_match"}}
    return build_prompts(native_task("t", spec if sampling is None else {**spec, "sampling": sampling}, "here"))


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        (None, {"temperature": 0.7, "max_tokens": 2048}),
        ({"temperature": 0, "min_p": 0.1}, {"temperature": 0, "min_p": 0.1, "max_tokens": 2048}),
        ({"from": "model"}, {**SAMPLED, "max_tokens": 2048}),
        ({"from": "model", "top_p": 0.5, "max_tokens": 9}, {**SAMPLED, "top_p": 0.5, "max_tokens": 9}),
    ],
)
def test_what_is_sent_and_what_stands_in_the_provenance(sampling, sent):
    prompts = task(sampling)
    (request,) = requests_of(prompts, "d")
    body = request.body_with(SAMPLED)
    assert {name: value for name, value in body.items() if name not in ("prompt", "seed")} == sent
    known = bases(Serving(), model(QWEN))
    assert effective(prompts.header["sampling"], known) == {**NEUTRAL, **sent, "seed": 0}


def test_the_models_own_is_another_question_than_the_same_values_said_aloud():
    keys = [next(requests_of(task(sampling), "d")).key for sampling in ({"from": "model"}, {**SAMPLED}, None)]
    assert len(set(keys)) == 3


def test_an_endpoint_of_others_samples_by_itself():
    (request,) = requests_of(PromptSet(task({"from": "model"}).header, [{"id": "a", "prompt": "?"}]), "d")
    assert set(request.body) == {"prompt", "max_tokens", "seed"}
