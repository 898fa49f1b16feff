import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from milepost.campaign import identity
from milepost.campaign.identity import SAMPLE, SAMPLES, DigestCache, identify, request_key
from milepost.campaign.types import Checkpoint, Serving
from milepost.errors import ModelError

LARGE = SAMPLE * SAMPLES * 3


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_model(folder, weights=b"weights"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "tokenizer.json").write_text('{"vocab": []}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def checkpoint(model, *, generation=1, revision=None, **serving):
    return Checkpoint("c", str(model), revision, "run", 1.0, generation, Serving(**serving))


def digest(model, **options):
    return identify(checkpoint(model, **options), DigestCache(identity.CACHE.with_name("none.json")))["digest"]


def large_weights():
    header = json.dumps({"w": {"dtype": "U8", "shape": [LARGE], "data_offsets": [0, LARGE]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(LARGE)


def test_a_checkpoint_is_what_its_files_say_not_where_they_lie(tmp_path):
    first = make_model(tmp_path / "a" / "model")
    whole = identify(checkpoint(first))
    assert set(whole["identity"]["model"]["files"]) == {path.name for path in first.iterdir()}
    assert str(tmp_path) not in json.dumps(whole)
    moved = shutil.copytree(first, tmp_path / "b" / "other")
    assert digest(moved) == whole["digest"]
    os.utime(moved / "model.safetensors", (1, 1))
    assert digest(moved) == whole["digest"]
    assert digest("a/model") == whole["digest"]
    (tmp_path / "link").symlink_to(first)
    assert digest("link") == whole["digest"]


@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_a_folder_is_its_files_whatever_the_column_revision_says(tmp_path, revision):
    model = make_model(tmp_path / "m")
    before = digest(model, revision=revision)
    assert before == digest(model)
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    assert digest(model, revision=revision) != before


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
     "model.safetensors", "model.safetensors.index.json", "adapter_config.json", "adapter_model.safetensors",
     "tokenizer.model", "vocab.txt", "modeling_tiny.py", "pytorch_model.bin", "model.gguf"],
)  # fmt: skip
def test_a_changed_or_added_file_is_another_model(tmp_path, name):
    model = make_model(tmp_path / "m")
    before = digest(model)
    path = model / name
    old = path.read_bytes() if path.exists() else b""
    path.write_bytes(old + b" ")
    changed = digest(model)
    assert changed != before
    path.write_bytes(old + b"\n")
    assert digest(model) not in (before, changed)


@pytest.mark.parametrize(
    "name", ["README.md", "training_args.bin", "trainer_state.json", "optimizer.pt", ".gitattributes", "stub.faults"]
)
def test_files_that_no_answer_depends_on_are_no_part_of_it(tmp_path, name):
    model = make_model(tmp_path / "m")
    before = digest(model)
    (model / name).write_bytes(b"x")
    assert digest(model) == before


SAMPLED = [(len(large_weights()) - SAMPLE) * i // (SAMPLES - 1) for i in range(SAMPLES)]


@pytest.mark.parametrize("place", [0, 8, 20, *(start + 100 for start in SAMPLED), -1], ids=str)
def test_a_changed_byte_in_the_header_or_a_sample_of_large_weights_is_another_model(tmp_path, place):
    weights = bytearray(large_weights())
    before = digest(make_model(tmp_path / "a", weights))
    weights[place] ^= 1
    assert digest(make_model(tmp_path / "b", weights)) != before


def test_weights_of_another_size_are_another_model_and_small_ones_count_whole(tmp_path):
    weights = large_weights()
    path = make_model(tmp_path / "a", weights) / "model.safetensors"
    before = identity.digest_file(path)
    with path.open("ab") as file:
        file.write(b"\0" * SAMPLE)
    assert identity.digest_file(path) != before
    # Every weight of small files counts.
    for place in range(0, 300_000, 50_000):
        small = bytearray(300_000)
        path.write_bytes(small)
        before = identity.digest_file(path)
        small[place] = 1
        path.write_bytes(small)
        assert identity.digest_file(path) != before


def test_a_header_longer_than_the_file_is_no_error(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\xff" * LARGE)
    assert len(identity.digest_file(path)) == 64


@pytest.mark.parametrize(
    "serving",
    [
        {"vllm_args": {"dtype": "bfloat16"}},
        {"vllm_args": {"quantization": "fp8"}},
        {"vllm_args": {"max-model-len": 512}},
        {"vllm_args": {"reasoning-parser": "deepseek_r1"}},
        {"vllm_args": {"enforce-eager": True}},
        {"vllm_args": {"chat-template": "{{ messages }}"}},
        {"vllm_args": {"lora-modules": ["a=b"]}},
        {"vllm_args": {"hf-overrides": {"rope_scaling": 2}}},
        {"vllm_args": {"seed": 1}},
        {"env": {"VLLM_ATTENTION_BACKEND": "FLASHINFER"}},
        {"generation": 2},
    ],
    ids=str,
)
def test_an_option_that_may_change_answers_is_another_model(tmp_path, serving):
    model = make_model(tmp_path / "m")
    assert digest(model, **serving) != digest(model)


@pytest.mark.parametrize(
    "serving",
    [
        {"vllm_args": {"tensor-parallel-size": 4}, "gpus": 4},
        {"vllm_args": {"pipeline-parallel-size": "2", "data-parallel-size": 2}, "gpus": 4},
        {"vllm_args": {"gpu-memory-utilization": 0.8}},
        {"vllm_args": {"port": 1, "host": "h", "max-num-seqs": 8}},
        {"env": {"VLLM_CPU_KVCACHE_SPACE": "4", "CUDA_VISIBLE_DEVICES": "1", "HF_HOME": "/x"}},
        {"env": {"HF_TOKEN": "a secret stands in no record"}},
        {"concurrency": 1, "start_timeout_s": 1.0, "request_timeout_s": 1.0, "retries": 0},
        {"gpus": 0},
    ],
    ids=str,
)
def test_where_and_with_how_much_it_is_served_changes_nothing(tmp_path, serving):
    model = make_model(tmp_path / "m")
    assert digest(model, **serving) == digest(model)


def test_options_are_one_however_they_are_written(tmp_path):
    model = make_model(tmp_path / "m")
    assert digest(model, vllm_args={"max-model-len": 512, "dtype": "auto"}) == digest(
        model, vllm_args={"dtype": "auto", "max-model-len": "512"}
    )


@pytest.mark.parametrize("option", ["chat-template", "generation-config", "tokenizer", "hf-config-path"])
def test_what_is_in_an_options_file_counts_and_not_where_it_lies(tmp_path, option):
    model = make_model(tmp_path / "m")
    if option in ("tokenizer", "hf-config-path"):
        for place in "ab":
            make_model(tmp_path / place)
        changed = tmp_path / "b" / "tokenizer.json"
    else:
        for place in "ab":
            (tmp_path / place).write_text("{{ messages }}")
        changed = tmp_path / "b"
    first = digest(model, vllm_args={option: str(tmp_path / "a")})
    assert first == digest(model, vllm_args={option: "b"})
    changed.write_text("{{ other }}")
    assert first != digest(model, vllm_args={option: "b"})


def test_a_template_in_the_option_itself_may_be_longer_than_a_files_name(tmp_path):
    model = make_model(tmp_path / "m")
    template = "{% for message in messages %}" * 200
    assert digest(model, vllm_args={"chat-template": template}) != digest(
        model, vllm_args={"chat-template": template + "x"}
    )


def test_run_and_step_are_no_part_of_it(tmp_path):
    model = make_model(tmp_path / "m")
    other = Checkpoint("other", str(model), None, None, None, 1, Serving())
    assert identify(other)["digest"] == digest(model)


def test_a_hub_model_is_its_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    away = digest("org/name", revision="a" * 40)
    make_model(tmp_path / "hf" / "hub" / "models--org--name" / "snapshots" / ("a" * 40))
    assert digest("org/name", revision="a" * 40) == away, "the same whether it has been downloaded or not"
    assert digest("org/name", revision="b" * 40) != away
    assert digest("org/other", revision="a" * 40) != away


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("nowhere", None, "the model folder nowhere does not exist"),
        ("empty", None, "empty holds no config.json"),
        ("org/name", None, "needs its commit"),
        ("org/name", "main", "needs its commit"),
        ("empty/typo", "a" * 40, "does not exist"),
        ("/nowhere/at/all", "a" * 40, "does not exist"),
    ],
)
def test_a_model_that_is_not_there(tmp_path, model, revision, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=message):
        digest(model, revision=revision)


def test_digests_are_remembered_by_name_size_and_time(tmp_path, monkeypatch):
    read = []
    whole = identity.digest_file
    monkeypatch.setattr(identity, "digest_file", lambda path: read.append(path.name) or whole(path))
    model = make_model(tmp_path / "m")
    first = identify(checkpoint(model))
    assert sorted(read) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    read.clear()
    assert identify(checkpoint("m")) == first
    assert read == []
    weights = model / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    assert identify(checkpoint(model)) == first
    assert read == ["model.safetensors"]
    weights.write_bytes(b"weightz")
    assert identify(checkpoint(model)) != first


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_an_unreadable_cache_is_an_empty_one(tmp_path, content):
    path = tmp_path / "digests.json"
    path.write_bytes(content)
    assert DigestCache(path).digests == {}


def test_shared_caches_are_saved_by_their_owner(tmp_path):
    model = make_model(tmp_path / "m")
    cache = DigestCache(tmp_path / "cache.json")
    identify(checkpoint(model), cache)
    assert not cache.path.exists()
    cache.save()
    assert DigestCache(cache.path).digests == cache.digests


BODY = {"messages": [{"role": "user", "content": "hé"}], "temperature": 0.7, "seed": 1}


def test_a_request_is_known_without_the_name_the_server_goes_by_and_in_any_order():
    key = request_key("d", BODY, 0, 1)
    assert len(key) == 32
    assert request_key("d", {**BODY, "model": "c-1234"}, 0, 1) == key
    assert request_key("d", dict(reversed(BODY.items())), 0, 1) == key
    # A store outlives versions of this code: the key of a request never changes.
    assert key == "b0578e32a204da5a518bf396b12c1b48"


@pytest.mark.parametrize(
    ("model", "body", "sample", "generation"),
    [
        ("e", BODY, 0, 1),
        ("d", {**BODY, "temperature": 0.8}, 0, 1),
        ("d", {**BODY, "messages": [{"role": "user", "content": "he"}]}, 0, 1),
        ("d", BODY, 1, 1),
        ("d", BODY, 0, 2),
    ],
)
def test_whatever_is_asked_otherwise_has_another_key(model, body, sample, generation):
    assert request_key(model, body, sample, generation) != request_key("d", BODY, 0, 1)


def test_a_cache_is_written_once_in_a_while_and_wherever_the_process_is_by_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = DigestCache(Path("results/cache.json"))
    written = []
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
        cache.digest(tmp_path / name)
        cache.save(pause_s=60.0)
        written.append(len(DigestCache(Path("results/cache.json")).digests))
    assert written == [1, 1, 1]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.save()
    assert len(DigestCache(tmp_path / "results/cache.json").digests) == 3
    assert not list((tmp_path / "elsewhere").iterdir())
