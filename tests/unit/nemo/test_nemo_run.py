import hashlib
import json
import os
from pathlib import Path

import pytest

from milepost import __version__
from milepost.endpoints import Endpoint
from milepost.nemo import run as nemo
from milepost.nemo.catalogue import Catalogue, Interface
from milepost.nemo.installation import NemoInstallation
from milepost.nemo.results import read_samples
from milepost.nemo.runs import collect, run_folders
from milepost.runtime import environments, launch
from milepost.runtime.containers import Containers

ENDPOINT = Endpoint(url="http://127.0.0.1:9/v1", key="very-secret", model="c-0123", name="c")


def header(samples=1, generation=1, endpoint_type="chat", **params):
    return {
        "task": "colours", "kind": "nemo", "version": 1, "generation": generation, "samples": samples, "sampling": {},
        "harness": {"eval_type": "lm-evaluation-harness.colours", "endpoint_type": endpoint_type, "params": params},
    }  # fmt: skip


def config(folder=Path("/store/run-0"), tuning=None, harness=None, **options):
    made = header(**options)
    made["harness"] |= harness or {}
    return nemo.run_config(made, ENDPOINT, folder, nemo.Setting(tokenizer="/models/m", tuning=tuning or {}))


def test_the_configuration_of_a_run():
    made = config(temperature=0.7, tuning={"params": {"parallelism": 4}})
    assert made == {
        "config": {
            "type": "lm-evaluation-harness.colours",
            "output_dir": "/store/run-0",
            "params": {"temperature": 0.7, "parallelism": 4},
        },
        "target": {
            "api_endpoint": {
                "url": "http://127.0.0.1:9/v1/chat/completions",
                "model_id": "c",
                "type": "chat",
                "api_key_name": "MILEPOST_ENDPOINT_KEY",
                "adapter_config": {"use_caching": False},
            }
        },
        "metadata": {"versioning": {"milepost": __version__}},
    }
    assert "very-secret" not in json.dumps(made)


def test_early_versions_name_the_variable_of_the_key_otherwise():
    made = nemo.run_config(header(), ENDPOINT, Path("/s"), nemo.Setting(), Interface(key="api_key"))
    assert made["target"]["api_endpoint"]["api_key"] == "MILEPOST_ENDPOINT_KEY"
    assert "api_key_name" not in made["target"]["api_endpoint"]


@pytest.mark.parametrize(
    ("kind", "path"), [("chat", "chat/completions"), ("completions", "completions"), ("embedding", "embeddings")]
)
def test_the_address_of_each_type(kind, path):
    made = config(endpoint_type=kind)["target"]["api_endpoint"]
    assert (made["url"], made["type"]) == (f"http://127.0.0.1:9/v1/{path}", kind)


def test_the_adapters_settings():
    given = {"custom_system_prompt": "Be brief.", "process_reasoning_traces": True, "use_caching": True}
    made = config(harness={"adapter": given}, tuning={"adapter": {"save_requests": True}})
    assert made["target"]["api_endpoint"]["adapter_config"] == {
        **given, "use_system_prompt": True, "save_requests": True,
    }  # fmt: skip


def test_every_run_has_a_seed_of_its_own_which_is_always_the_same():
    seeds = [nemo.run_seed("colours", number) for number in range(50)]
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == [nemo.run_seed("colours", number) for number in range(50)]
    assert nemo.run_seed("sums", 0) != seeds[0]


@pytest.mark.parametrize(
    ("extra", "harness", "expected"),
    [
        ({}, {}, {"tokenizer": "/models/m", "tokenizer_backend": "huggingface"}),
        ({"args": "--x"}, {}, {"tokenizer": "/models/m", "tokenizer_backend": "huggingface", "args": "--x"}),
        ({"tokenizer": "/own"}, {}, {"tokenizer": "/own", "tokenizer_backend": "huggingface"}),
        ({}, {"tokenizer": "org/name"}, {"tokenizer": "org/name", "tokenizer_backend": "huggingface"}),
    ],
)
def test_log_probability_tasks_get_a_tokenizer_the_checkpoints_by_default(extra, harness, expected):
    made = config(endpoint_type="completions", harness=harness, **({"extra": extra} if extra else {}))
    assert made["config"]["params"]["extra"] == expected
    assert "extra" not in config()["config"]["params"]


def test_a_tokenizers_folder_is_named_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tok").mkdir()
    made = config(harness={"tokenizer": "tok"}, endpoint_type="completions")
    assert made["config"]["params"]["extra"]["tokenizer"] == str(tmp_path / "tok")


def folders(digest="d", **options):
    return run_folders(Path("store/c"), digest, header(**options))


def test_a_folder_belongs_to_one_model_one_configuration_and_one_repetition():
    runs = folders(samples=3)
    assert [run.name for run in runs] == ["run-0", "run-1", "run-2"]
    assert {run.parent for run in runs} == {folders()[0].parent}, "more runs keep those that there are"
    assert runs[0].parent.parent == Path("store/c/colours")
    others = [folders("e"), folders(generation=2), folders(temperature=1), folders(endpoint_type="completions")]
    assert len({runs[0].parent, *(other[0].parent for other in others)}) == 5


@pytest.fixture
def binaries(tmp_path, monkeypatch):
    """An environment that looks installed."""
    monkeypatch.setattr(environments, "_ENVS", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("nemo", "other"):
        python = tmp_path / name / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()
    return tmp_path


@pytest.mark.parametrize(("offline", "flags"), [(True, ("1", "0")), (False, ("0", "0"))])
def test_the_environment_of_a_run(binaries, monkeypatch, offline, flags):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", "/caches/hf")
    monkeypatch.setenv("no_proxy", "intranet")
    env = nemo.variables(ENDPOINT, nemo.Setting(offline=offline), 4001)
    assert env["MILEPOST_ENDPOINT_KEY"] == "very-secret"
    assert "MILEPOST_ENDPOINT_KEY" not in os.environ
    assert int(env["NEMO_EVALUATOR_SHUTDOWN_TIMEOUT_SECONDS"]) + 1 < 8
    assert env["NEMO_EVALUATOR_TELEMETRY_LEVEL"] == "0"
    assert (env["HF_HUB_OFFLINE"], env["HF_DATASETS_OFFLINE"]) == flags, "what the user says wins"
    assert env["HF_HOME"] == "/caches/hf"
    assert env["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert (env["ADAPTER_HOST"], env["ADAPTER_PORT"], env["MILEPOST_PORT"]) == ("127.0.0.1", "4001", "4001")
    monkeypatch.delenv("HF_HOME")
    assert nemo.variables(ENDPOINT, nemo.Setting(), 4001)["HF_HOME"].endswith("/.cache/huggingface")


@pytest.mark.parametrize("name", ["nemo", "other"])
def test_the_command_is_that_of_the_tasks_environment(binaries, name):
    harness = {} if name == "nemo" else {"environment": name}
    command, env = nemo.command_of(harness, Path("run-0.yml"), {"A": "b"}, nemo.Setting())
    assert command[:2] == ["sh", "-c"]
    assert command[4:] == [
        str(binaries / name / ".venv/bin/nemo-evaluator"),
        launch.__file__,
        "run_eval",
        "--run_config",
        str(binaries / "run-0.yml"),
    ]
    assert env["PATH"].split(os.pathsep)[0] == str(binaries / name / ".venv/bin")
    assert env["A"] == "b"


@pytest.mark.parametrize(
    ("harness", "default", "image"),
    [
        ({}, None, None),
        ({}, "d.sif", "d.sif"),
        ({"container": "docker://x/t:1"}, "d.sif", "x_t_1.sif"),
        ({"environment": "other"}, "d.sif", None),
    ],
)
def test_an_image_in_place_of_an_environment(binaries, monkeypatch, harness, default, image):
    for name in ("d.sif", "x_t_1.sif"):
        (binaries / name).touch()
    (binaries / "apptainer").touch(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    containers = Containers(nemo=Path(default) if default else None, folder=binaries)
    env = {"MILEPOST_ENDPOINT_KEY": "very-secret", "HF_HOME": str(binaries / "hf")}
    asked = {"eval_type": "h.t", "params": {}, **harness}
    command, around = nemo.command_of(asked, Path("run-0.yml"), env, nemo.Setting(containers=containers))
    assert [word for word in command if word.endswith(".sif")] == ([str(binaries / image)] if image else [])
    assert "very-secret" not in " ".join(command)
    if image:
        words = ["run_eval", "--run_config", str(binaries / "run-0.yml")]
        assert command[-5:] == ["nemo-evaluator", launch.__file__, *words]
        assert any(f'"src={launch.__file__}"' in word for word in command)
        assert "--cleanenv" in command
        assert around["APPTAINERENV_MILEPOST_ENDPOINT_KEY"] == "very-secret"


def test_an_environment_goes_into_an_image_that_brings_none(binaries, monkeypatch):
    (binaries / "d.sif").touch()
    (binaries / "apptainer").touch(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    containers = Containers(nemo=Path("d.sif"), bind_environments=True, binds=(Path("/usr"),))
    env = {"HF_HOME": str(binaries / "hf")}
    for harness, name in (({}, "nemo"), ({"environment": "other"}, "other")):
        asked = {"eval_type": "h.t", "params": {}, **harness}
        command, around = nemo.command_of(asked, Path("run-0.yml"), env, nemo.Setting(containers=containers))
        assert command[command.index(str(binaries / "d.sif")) + 1] == "sh"
        assert command[-5] == str(binaries / name / ".venv/bin/nemo-evaluator")
        assert 'type=bind,"src=/usr","dst=/usr"' in command
        assert around["APPTAINERENV_PREPEND_PATH"] == str(binaries / name / ".venv/bin")


def test_an_image_finds_what_a_task_names_elsewhere(binaries, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("tasks", "data", "hub/blobs", "hub/snapshots/a", "results"):
        (elsewhere / name).mkdir(parents=True)
    (elsewhere / "data/d.jsonl").write_text("{}")
    data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {elsewhere}/data/d.jsonl}}}}\n"
    (elsewhere / "tasks/colours.yaml").write_text(f"task: colours\n{data}")
    (elsewhere / "hub/blobs/1").touch()
    (elsewhere / "hub/snapshots/a/tokenizer.json").symlink_to("../../blobs/1")
    (binaries / "results").symlink_to(elsewhere / "results")
    (binaries / "apptainer").touch(0o755)
    (binaries / "d.sif").touch()
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    harness = {
        "eval_type": "lm-evaluation-harness.colours",
        "params": {"extra": {"args": f"--include_path {elsewhere}/tasks"}},
    }
    setting = nemo.Setting(tokenizer=str(elsewhere / "hub/snapshots/a"), containers=Containers(nemo=Path("d.sif")))
    command, _ = nemo.command_of(harness, Path("results/run-0.yml"), {"HF_HOME": str(binaries / "hf")}, setting)
    bound = [word.split('"dst=')[1].rstrip('"') for word in command if word.startswith("type=bind")]
    for path in ("tasks", "data", "hub/blobs", "hub/snapshots/a", "results"):
        assert any((elsewhere / path).is_relative_to(one) for one in bound), path


def write_samples(folder, name, records, when=1.0):
    path = folder / "model" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    os.utime(path, (when, when))
    return path


def sample(number, value, said="text", **fields):
    return {"doc_id": number, "resps": [[said]], "filter": "none", "exact_match": value, **fields}


def test_collecting_copies_results_and_samples_and_nothing_else(tmp_path):
    store = [tmp_path / "store" / f"run-{number}" for number in range(2)]
    for run in store:
        write_samples(run, "samples_a_2026-01-01T00-00-00.000001.jsonl", [sample(0, 0.0)], when=1)
        write_samples(run, "samples_a_2026-01-02T00-00-00.000001.jsonl", [sample(0, 1.0)], when=2)
        for name in ("results.yml", "done.json", "cache.db"):
            (run / name).write_text("{}")
    target = tmp_path / "results" / "c" / "a"
    target.mkdir(parents=True)
    (target / "old").touch()
    collect(store, target)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        f"run-{number}/{name}"
        for number in range(2)
        for name in ("done.json", "results.yml", "samples_a_2026-01-02T00-00-00.000001.jsonl")
    ]
    assert [score["score"] for score, _ in read_samples(target / "run-1", 1, "exact_match")] == [1.0]
    assert all((run / "cache.db").exists() for run in store)


def test_versions_are_those_that_the_environment_or_image_states(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i.sif").write_text("image")
    nemo.versions.cache_clear()
    digest = hashlib.sha256(b"image").hexdigest()
    inside = Catalogue("inside", {}, {}, {}, versions={"nemo-evaluator": "0.3"})
    monkeypatch.setattr(nemo, "read_catalogue", lambda installation: inside)
    assert nemo.versions(NemoInstallation()) == {"nemo-evaluator": "0.3"}
    assert nemo.versions(NemoInstallation(None, Path("i.sif"))) == {"nemo-evaluator": "0.3", "nemo-image": digest}
    nemo.versions.cache_clear()
