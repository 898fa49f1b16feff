"""What a model's generation_config.json says of sampling, on the real vLLM: left out unless a task asks for it."""

import asyncio
import json
import shutil

import pytest
from conftest import PROFILE, STEPS

from milepost.campaign.sampling import bases, own_sampling
from milepost.campaign.types import Checkpoint, Serving
from milepost.client.client import Client
from milepost.endpoints.vllm import VllmServer
from milepost.runtime.processes import Watchdog

QUESTIONS = ("What is the capital of Norland?", "What is 2 plus 3?", "Which sound does a dog make?")
PENALTY = {"repetition_penalty": 50.0, "temperature": 0.1, "top_k": 3}


def answers(folder, tmp_path, body, **vllm_args):
    """What a server of this model says to the questions, token by token."""

    async def run():
        serving = Serving(**{**PROFILE, "vllm_args": {**PROFILE["vllm_args"], **vllm_args}})
        watchdog = Watchdog()
        server = VllmServer(Checkpoint("c", str(folder), None, None, None, 1, serving), tmp_path / "log", watchdog)
        try:
            await server.start()
            endpoint, said = server.endpoint, []
            async with Client.to(endpoint) as client:
                for question in QUESTIONS:
                    asked = {"model": endpoint.model, "messages": [{"role": "user", "content": question}],
                             "max_tokens": 16, "seed": 1, "return_token_ids": True, **body}  # fmt: skip
                    said.append((await client.post("/chat/completions", asked)).body["choices"][0])
            return [(one["token_ids"], one["finish_reason"]) for one in said]
        finally:
            await server.stop()
            watchdog.close()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def plain(models, tmp_path_factory):
    """What the demo's last model says to greedy questions."""
    return answers(models[STEPS[-1]], tmp_path_factory.mktemp("plain"), {"temperature": 0})


@pytest.fixture
def willing(models, plain, tmp_path):
    """A copy of the model that brings settings along, and one stop token more: its first answer's second."""
    folder = shutil.copytree(models[STEPS[-1]], tmp_path / "model")
    path = folder / "generation_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **PENALTY, "eos_token_id": [content["eos_token_id"], plain[0][0][0]]}))
    return folder


def test_only_what_is_asked_counts_and_stop_tokens_stay(willing, plain, tmp_path):
    found = answers(willing, tmp_path, {"temperature": 0})
    stop = plain[0][0][0]
    for (tokens, _), (expected, _) in zip(found, plain, strict=True):
        cut = expected.index(stop) + 1 if stop in expected else len(expected)
        assert tokens == expected[:cut]
    assert (found[0][0], found[0][1]) == ([stop], "stop"), "the model's further stop token holds"


def test_the_models_own_settings_are_those_that_vllm_takes_by_itself(willing, tmp_path):
    serving = Serving(**PROFILE)
    assert own_sampling(serving, willing) == PENALTY
    by_itself = answers(willing, tmp_path, {}, **{"generation-config": "auto"})
    asked = answers(willing, tmp_path, own_sampling(serving, willing))
    assert asked == by_itself
    assert answers(willing, tmp_path, bases(serving, willing)["model"]) == by_itself, (
        "neutral values said aloud are none"
    )
    assert asked != answers(willing, tmp_path, {"temperature": 0})
