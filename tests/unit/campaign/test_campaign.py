from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from milepost.campaign.config import load_config, load_task
from milepost.campaign.frozen import FROZEN
from milepost.campaign.models import find_model, has_chat_template
from milepost.campaign.sheet import parse_options
from milepost.campaign.types import Checkpoint, NativeTask, NemoTask, Serving
from milepost.errors import (
    ConfigError,
    EnvironmentMissingError,
    MilepostError,
    ModelError,
    UnknownKeyError,
    UnknownScorerError,
    UnknownTaskError,
)
from milepost.preflight.campaign import check_campaign, freeze_campaign, load_campaign
from milepost.schemas import check, defaults, load_schema

ROOT = Path(__file__).parents[3]
TASK = {"version": 1, "data": "data/t.jsonl", "scorer": {"name": "exact_match"}}
NEMO = {"version": 1, "harness": "nemo", "eval_type": "lm-evaluation-harness.mmlu", "metric": "acc"}
CONFIG = {"tasks": ["t"], "model_profiles": {"tiny": {"gpus": 0, "vllm_args": {"dtype": "float32"}}}}
SHEET = "name\tmodel\nc\tmodel\n"


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FROZEN, raising=False)


def make_model(folder, template=True):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}' if template else "{}")


CHAT = '{"id": "a", "messages": [{"role": "user", "content": "?"}], "target": "yes"}\n'


def write(config=CONFIG, task=TASK, sheet=SHEET, items=CHAT):
    for path, content in {
        "config/config.yaml": config if isinstance(config, str) else yaml.safe_dump(config),
        "config/tasks/t.yaml": task if isinstance(task, str) else yaml.safe_dump(task),
        "config/checkpoints.tsv": sheet,
        "data/t.jsonl": items,
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
    return load_campaign()


def fails(error, *words, **files):
    with pytest.raises(error) as caught:
        write(**files)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("where", ["row", "profile", "endpoint"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hf-token": "hf_abc123"}, ["a secret among vLLM's options ('hf-token')", "HF_TOKEN"]),
        ({"hf_token": "hf_abc123"}, ["a secret"]),
        ({"hf-tok": "hf_abc123"}, ["a secret"]),
        ({"api-key": "hf_abc123"}, ["a secret"]),
        ({"model-loader-extra-config": '{"s3": {"auth_token": "hf_abc123"}}'}, ["model-loader-extra-config.s3.auth_token"]),
        ({"enable-lora": True, "lora-modules": "c=/adapter"}, ["Adapters cannot be served this way", "merge_and_unload"]),
        ({"lora_modules": "c=/adapter"}, ["Adapters cannot"]),
        ({"lora-m": "c=/adapter"}, ["Adapters cannot"]),
        ({"enable-prompt-adapter": True}, ["Adapters cannot"]),
        ({"config": "options.yaml"}, ["'config', which Milepost sets itself", "Write the options of that file"]),
        ({"port": "8000"}, ["'port', which Milepost sets itself"]),
        ({"served_model_name": "gpt"}, ["'served-model-name', which Milepost"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_must_not_stand_among_vllm_options(where, options, words):
    with pytest.raises(ConfigError) as caught:
        if where == "row":
            line = " ".join(f"--{name}" if value is True else f"--{name} '{value}'" for name, value in options.items())
            write(sheet=f"name\tmodel\tvllm_args\nc\tmodel\t{line}\n")
        elif where == "profile":
            write(config={**CONFIG, "model_profiles": {"default": {"vllm_args": options}}})
        else:
            entry = {"judge": {"provider": "shared", "model": "model", "vllm_args": options}}
            Path("config").mkdir()
            Path("config/endpoints.yaml").write_text(yaml.safe_dump(entry))
            write()
    assert all(word in str(caught.value) for word in words)
    assert "abc123" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"hf-token": True},
        {"hf-overrides": {"classifier_from_token": ["no", "yes"], "pad_token": "<pad>"}},
        {"tokenizer": "t", "max-num-batched-tokens": 9, "seed": 1, "model-impl": "auto", "hf-config-path": "m"},
    ],
)
def test_what_only_looks_like_a_secret_is_an_option(options):
    found = write(config={**CONFIG, "model_profiles": {"default": {"vllm_args": options}}})
    assert found.checkpoints["c"].serving.vllm_args == options


def test_a_task_may_take_the_models_own_sampling():
    assert write(task={**TASK, "sampling": "model"}).tasks["t"].sampling == {
        "from": "model",
        "max_tokens": 2048,
        "seed": 0,
    }
    assert write(task={**TASK, "sampling": {"from": "model", "max_tokens": 9}}).tasks["t"].sampling["max_tokens"] == 9
    assert write(task={**NEMO, "sampling": "model"}).tasks["t"].questions()["sampling"] == "model"
    fails(ConfigError, "sampling", task={**TASK, "sampling": "models"})
    fails(ConfigError, "sampling", task={**NEMO, "sampling": {"temperature": 0}})


def test_one_option_in_two_spellings_is_one():
    same = {"max_model_len": 9, "max-model-len": 9}
    found = write(config={**CONFIG, "model_profiles": {"default": {"vllm_args": same}}})
    assert found.checkpoints["c"].serving.vllm_args == {"max-model-len": 9}
    fails(ConfigError, "'max-model-len' twice, as 9 and as 8",
          config={**CONFIG, "model_profiles": {"default": {"vllm_args": {**same, "max_model_len": 8}}}})  # fmt: skip


def test_an_adapter_by_a_variable_is_an_error():
    profile = {"env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}}
    fails(ConfigError, "Adapters cannot", config={**CONFIG, "model_profiles": {"default": profile}})


def test_a_campaign():
    campaign = write(sheet="name\tmodel\trevision\trun\tstep\tgpus\tmodel_profile\tvllm_args\tgeneration\n"
                           "c\tmodel\t\trun-1\t2.5\t\ttiny\t--max_model_len 512 --seed=1\t2\n")  # fmt: skip
    serving = Serving(gpus=0, vllm_args={"dtype": "float32", "max-model-len": "512", "seed": "1"})
    assert campaign.checkpoints == {"c": Checkpoint("c", "model", None, "run-1", 2.5, 2, serving, "tiny")}
    assert campaign.tasks["t"].kind == "native"
    assert campaign.named("native") == ["t"]
    assert campaign.named("nemo") == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**CONFIG, "task": ["t"]}, ["config/config.yaml has an unknown key 'task'", "Did you mean 'tasks'?", "config/README.md"]),
        ({**CONFIG, 1: 2}, ["unknown key '1'"]),
        (
            {**CONFIG, "model_profiles": {"tiny": {"gpu": 1}}},
            ["unknown key 'gpu' under 'model_profiles.tiny'", "Did you mean 'gpus'?", "concurrency, env, gpus"],
        ),
    ],
)  # fmt: skip
def test_an_unknown_key_of_the_config(config, words):
    fails(UnknownKeyError, *words, config=config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["lacks the key 'tasks'", "config/README.md"]),
        (
            {"tasks": "t"},
            ["config/config.yaml: tasks is wrong", "'t' is not of type 'array'", "It means: Names of files"],
        ),
        ({"tasks": []}, ["tasks is wrong", "It means"]),
        ({"tasks": ["t", "t"]}, ["tasks is wrong", "non-unique"]),
        ({"tasks": [1]}, ["tasks.0 is wrong", "1 is not of type 'string'"]),
        ({**CONFIG, "limit": 0}, ["limit is wrong", "minimum of 1"]),
        (
            {**CONFIG, "limit": "all"},
            ["limit is wrong", "'all' is not of type 'integer'", "It means: Ask only so many"],
        ),
        ({**CONFIG, "title": None}, ["title is wrong"]),
        ({**CONFIG, "model_profiles": {"tiny": {"gpus": -1}}}, ["model_profiles.tiny.gpus is wrong"]),
        ({**CONFIG, "model_profiles": {"tiny": {"env": {"A": 1}}}}, ["model_profiles.tiny.env.A is wrong"]),
        ({**CONFIG, "model_profiles": {"tiny": {"start_timeout_s": 0}}}, ["start_timeout_s is wrong"]),
        ({**CONFIG, "nemo_parallel": 0}, ["nemo_parallel is wrong"]),
        ("tasks: [t", ["config/config.yaml is not YAML", "line 1"]),
        ("a: b: c", ["is not YAML"]),
        ("- t", ["does not hold a mapping"]),
        ("", ["does not hold a mapping"]),
        ({**CONFIG, "checkpoints": "elsewhere.tsv"}, ["elsewhere.tsv does not exist", "looked for in"]),
    ],
    ids=str,
)
def test_a_wrong_config(config, words):
    fails(ConfigError, *words, config=config)


def test_no_config(tmp_path):
    with pytest.raises(
        ConfigError, match=rf"config/config.yaml does not exist \(looked for in {tmp_path}\). Run from a campaign"
    ):
        load_campaign()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("tt", " Did you mean 't'?"), ("../t", ""), ("", ""), ("t.yaml", ""), (".t", " Did you mean 't'?")],
)
def test_an_unknown_task(name, hint):
    write()
    with pytest.raises(UnknownTaskError) as caught:
        load_task(name)
    assert f"asks for task {name!r}. Tasks in config/tasks: t.{hint} Correct the name" in str(caught.value)


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        ({**TASK, "sample": 4}, UnknownKeyError, ["config/tasks/t.yaml has an unknown key 'sample'", "Did you mean 'samples'?"]),
        ({**TASK, "sampling": {"temprature": 1}}, UnknownKeyError, ["'temprature' under 'sampling'", "Did you mean 'temperature'?"]),
        ({**TASK, "samples": 0}, ConfigError, ["samples is wrong", "It means: Answers per item."]),
        ({**TASK, "samples": True}, ConfigError, ["samples is wrong"]),
        ({**TASK, "version": "1"}, ConfigError, ["version is wrong", "'1' is not of type 'integer'"]),
        ({**TASK, "sampling": {"top_p": 0}}, ConfigError, ["sampling.top_p is wrong"]),
        ({**TASK, "sampling": {"temperature": -1}}, ConfigError, ["sampling.temperature is wrong"]),
        ({"version": 1, "data": "d"}, ConfigError, ["lacks the key 'scorer'"]),
        ({**TASK, "scorer": "exact_match"}, ConfigError, ["scorer is wrong", "It means: How answers become scores"]),
        ({**TASK, "scorer": {}}, ConfigError, ["lacks the key 'name' under 'scorer'"]),
        ({**TASK, "scorer": {"name": "exact_mach"}}, UnknownScorerError, ["scorer 'exact_mach'", "Did you mean 'exact_match'?", "avert, "]),
        ({**TASK, "scorer": {"name": "../task_native"}}, UnknownScorerError, ["Scorers: "]),
        (
            {**TASK, "scorer": {"name": "exact_match", "ignore_cases": True}},
            UnknownKeyError,
            ["config/tasks/t.yaml, scorer has an unknown key 'ignore_cases'", "Did you mean 'ignore_case'?"],
        ),
        ({**TASK, "scorer": {"name": "exact_match", "strip": "no"}}, ConfigError, ["strip is wrong", "It means: Leave out"]),
        ({**NEMO, "param": {}}, UnknownKeyError, ["unknown key 'param'", "Did you mean 'params'?"]),
        ({**NEMO, "params": {"limit": 3}}, UnknownKeyError, ["unknown key 'limit' under 'params'", "limit_samples"]),
        ({**NEMO, "endpoint_type": "vlm"}, ConfigError, ["endpoint_type is wrong", "'chat', 'completions'"]),
        ({**NEMO, "eval_type": "a b"}, ConfigError, ["eval_type is wrong"]),
        ({**NEMO, "harness": "lm_eval"}, UnknownKeyError, ["unknown key"]),
        ("version: [", ConfigError, ["config/tasks/t.yaml is not YAML"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_task(task, error, words):
    fails(error, *words, task=task)


HEADER = "name\tmodel\tgpus\tmodel_profile\tvllm_args\n"


@pytest.mark.parametrize(
    ("sheet", "error", "words"),
    [
        ("nam\tmodel\nc\tm\n", UnknownKeyError, ["config/checkpoints.tsv, row ''", "unknown key 'nam'", "Did you mean 'name'?"]),
        ("name\tmodel\tmodle_profile\nc\tm\ttiny\n", UnknownKeyError, ["Did you mean 'model_profile'?"]),
        ("name\tmodel\nc\n", ConfigError, ["line 2: the row of 'c' has 1 columns, and the header has 2. Separate columns by tabs"]),
        ("name\tmodel\nc\tm\tx\n", ConfigError, ["has 3 columns"]),
        ("name model\nc m\n", ConfigError, ["the header 'name model'", "has spaces in it"]),
        ("name\tmodel\nc\t\n", ConfigError, ["row 'c' has neither a model nor an endpoint"]),
        ("name\tmodel\n\tm\n", ConfigError, ["lacks the key 'name'"]),
        ("name\tmodel\nc\tm\nd\tm\nc\tn\n", ConfigError, ["names the checkpoint 'c' twice", "rename one"]),
        ("name\tmodel\n../c\tm\n", ConfigError, ["name is wrong", "begins with a letter or digit"]),
        ("name\tmodel\n.c\tm\n", ConfigError, ["name is wrong"]),
        ("name\tmodel\na b\tm\n", ConfigError, ["name is wrong"]),
        ("name\tmodel\tstep\nc\tm\tlast\n", ConfigError, ["step is wrong"]),
        ("name\tmodel\tgpus\nc\tm\ttwo\n", ConfigError, ["gpus is wrong"]),
        ("name\tmodel\tgpus\nc\tm\t-1\n", ConfigError, ["gpus is wrong"]),
        ("", ConfigError, ["lists no checkpoint. Add a row"]),
        ("# only a comment\n\n", ConfigError, ["lists no checkpoint"]),
        ("name\tmodel\n", ConfigError, ["lists no checkpoint"]),
        (HEADER + "c\tm\t\ttinny\t\n", ConfigError, ["model profile 'tinny'", "Profiles in config/config.yaml: tiny.", "Did you mean 'tiny'?"]),
        (HEADER + "c\tm\t\t\t--tensor-parallel-size 2\n", ConfigError, ["parallel sizes make 2, but gpus is 1"]),
        (HEADER + "c\tm\t4\t\t\n", ConfigError, ["make 1, but gpus is 4"]),
        (HEADER + "c\tm\t4\t\t--tensor-parallel-size 2 --pipeline-parallel-size 3\n", ConfigError, ["make 6, but gpus is 4"]),
        (HEADER + "c\tm\t\ttiny\t--data-parallel-size 2\n", ConfigError, ["make 2, but gpus is 0"]),
        (HEADER + "c\tm\t2\t\t--tensor-parallel-size two\n", ConfigError, ["tensor-parallel-size is 'two'", "whole number"]),
        (HEADER + "c\tm\t1\t\t--tensor-parallel-size\n", ConfigError, ["tensor-parallel-size is 'True'"]),
        (HEADER + "c\tm\t0\t\t--tensor-parallel-size 0\n", ConfigError, ["tensor-parallel-size is '0'"]),
        (HEADER + "c\tm\t\t\tfloat32\n", ConfigError, ["row 'c': vllm_args holds 'float32' where an option"]),
        (HEADER + "c\tm\t\t\t--seed 1 2\n", ConfigError, ["vllm_args holds '2'"]),
        (HEADER + "c\tm\t\t\t-tp 2\n", ConfigError, ["vllm_args holds '-tp'"]),
        (HEADER + "c\tm\t\t\t--chat-template 'a\n", ConfigError, ["vllm_args cannot be read: No closing quotation"]),
        ("name\tmodel\nc-{step}\tm\n", ConfigError, ["a row with {step} needs it once in 'model', and in 'name' (row 'c-{step}')"]),
        ("name\tmodel\nc\tm/{step}\n", ConfigError, ["needs it once in 'model', and in 'name'"]),
        ("name\tmodel\nc-{step}\tm/{step}/{step}\n", ConfigError, ["needs it once"]),
        ("name\tmodel\tstep\nc\tm\t{step}\n", ConfigError, ["needs it once"]),
        ("name\tmodel\nc-{step}\tm/step-{step}\n", ConfigError, ["no folder fits the pattern 'm/step-{step}'", "Train first"]),
        ("name\tmodel\nc-{steps}\tm/{steps}\n", ConfigError, ["Braces"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_sheet(sheet, error, words):
    fails(error, *words, sheet=sheet)


def test_a_sheet_that_is_not_utf8():
    write()
    Path("config/checkpoints.tsv").write_bytes("name\tmodel\nc\tmodèle\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_campaign()


@pytest.mark.parametrize(
    "sheet",
    [
        "# comment\n\n" + SHEET + "# another\n",
        SHEET.replace("\n", "\r\n"),
        "\ufeff" + SHEET,
        "name\tmodel\trun\n c \t model \t\n",
        SHEET.rstrip("\n"),
    ],
    ids=repr,
)
def test_marks_and_blanks_of_spreadsheets_are_passed_over_in_a_sheet(sheet):
    assert write(sheet=sheet).checkpoints["c"].model == "model"


@pytest.mark.parametrize(
    ("args", "gpus"),
    [("", "1"), ("", "0"), ("--tensor-parallel-size 2 --data_parallel_size=2", "4"), ("--dtype auto", "")],
)
def test_parallel_sizes_that_fit_their_gpus(args, gpus):
    assert write(sheet=f"name\tmodel\tgpus\tvllm_args\nc\tm\t{gpus}\t{args}\n").checkpoints["c"].serving.gpus == int(
        gpus or 1
    )


def test_a_row_wins_over_its_profile_and_default_holds_for_the_others():
    config = {
        "tasks": ["t"],
        "model_profiles": {
            "default": {"retries": 1, "vllm_args": {"dtype": "auto"}},
            "big": {"gpus": 2, "vllm_args": {"tensor_parallel_size": 2, "max_model_len": 9, "enforce-eager": True}},
        },
    }
    sheet = "name\tmodel\tmodel_profile\tvllm_args\na\tm\t\t\nb\tm\tbig\t--max-model-len 10\n"
    found = write(config=config, sheet=sheet).checkpoints
    assert found["a"].serving == Serving(retries=1, vllm_args={"dtype": "auto"})
    assert found["b"].serving == Serving(
        gpus=2, vllm_args={"tensor-parallel-size": 2, "max-model-len": "10", "enforce-eager": True}
    )


FOLDERS = ("step-5", "step-10", "step-100", "step-9", "step-x", "step-", "step-10-hf", "old/step-7", "step-10b")


@pytest.mark.parametrize(
    ("pattern", "models"),
    [
        ("runs/step-{step}", ["runs/step-5", "runs/step-9", "runs/step-10", "runs/step-100"]),
        ("./runs/step-{step}", ["./runs/step-5", "./runs/step-9", "./runs/step-10", "./runs/step-100"]),
        ("runs/step-{step}/", ["runs/step-5/", "runs/step-9/", "runs/step-10/", "runs/step-100/"]),
        ("runs//step-{step}", ["runs//step-5", "runs//step-9", "runs//step-10", "runs//step-100"]),
        ("runs/step-{step}-hf", ["runs/step-10-hf"]),
        ("runs/old/../step-{step}0", ["runs/old/../step-10", "runs/old/../step-100"]),
        ("runs/step-{step}/hf", ["runs/step-9/hf"]),
        ("[b] *?/step-{step}", ["[b] *?/step-3"]),
        ("{step}", ["12"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_patterns_stand_for_every_folder_by_ascending_number(tmp_path, pattern, models, absolute):
    for folder in FOLDERS:
        make_model(tmp_path / "runs" / folder)
    for folder in ("runs/step-9/hf", "[b] *?/step-3", "bb/step-4", "12"):
        make_model(folder)
    root = f"{tmp_path}/" if absolute else ""
    sheet = f"name\tmodel\trun\tstep\nrun-{{step}}\t{root}{pattern}\trun\t{{step}}\n"
    found = list(write(sheet=sheet).checkpoints.values())
    assert [ckpt.model for ckpt in found] == [root + model for model in models]
    assert all(Path(ckpt.model).is_dir() for ckpt in found)
    assert [ckpt.step for ckpt in found] == sorted(ckpt.step for ckpt in found)
    assert all(ckpt.name.startswith("run-") and ckpt.run == "run" for ckpt in found)


def test_a_name_that_looks_like_a_number_keeps_its_zeros():
    make_model("m/0010")
    found = write(sheet="name\tmodel\tstep\nc-{step}\tm/{step}\t{step}\n").checkpoints
    assert (found["c-0010"].model, found["c-0010"].step) == ("m/0010", 10.0)


@pytest.mark.parametrize("path", [ROOT / "demo", ROOT])
def test_the_campaigns_of_the_repository_are_right(path, monkeypatch):
    monkeypatch.chdir(path)
    assert load_config()["tasks"]
    for name in load_config()["tasks"]:
        assert load_task(name).title
    for file in Path("config/tasks").glob("*.yaml"):
        load_task(file.stem)


def test_the_demos_campaign(tmp_path):
    (tmp_path / "config").symlink_to(ROOT / "demo" / "config")
    for step in (0, 20, 100):
        make_model(f"model/step-{step}")
    campaign = load_campaign()
    assert list(campaign.checkpoints) == ["demo-0", "demo-20", "demo-100"]
    assert set(campaign.named("native")) == {"sums", "where", "constraints"}
    assert campaign.named("nemo") == ["colours"]
    assert all(ckpt.serving.gpus == 0 for ckpt in campaign.checkpoints.values())


def test_a_run_reads_its_own_copy_of_the_configuration(monkeypatch):
    write()
    # As Snakemake merged it with the command line.
    campaign = load_campaign({**load_config(), "limit": 3})
    copy = freeze_campaign(campaign)
    write(task={**TASK, "title": "edited while the run goes on"})
    Path("config/checkpoints.tsv").write_text("name\tmodel\nother\tm\n")
    edited = load_campaign()
    monkeypatch.setenv(FROZEN, str(copy))
    assert load_campaign() == campaign != edited
    monkeypatch.delenv(FROZEN)
    assert freeze_campaign(edited) != copy
    assert freeze_campaign(campaign) != copy, "its files are read anew"


@pytest.mark.parametrize("kind", [NativeTask, NemoTask])
def test_a_task_has_the_keys_of_its_schema(kind):
    keys = set(load_schema(f"task_{kind.kind}")["properties"])
    # `harness` says which kind it is, and `description` is for whoever reads the file.
    assert {field.name for field in fields(kind)} - {"name"} == keys - {"harness", "description"}
    assert {*kind.asks, *kind.scores} <= keys


def test_parts_of_a_task_so_that_a_change_reruns_only_what_depends_on_it():
    task = write(task={**TASK, "title": "T", "description": "D", "metric": "m", "samples": 2, "beside": ["x"]}).tasks[
        "t"
    ]
    assert task.questions() == {
        "version": 1, "generation": 1, "data": "data/t.jsonl", "format": "items", "samples": 2,
        "sampling": {"temperature": 0.7, "max_tokens": 2048, "seed": 0},
    }  # fmt: skip
    assert task.scoring() == {"scorer": {**defaults("scorers/exact_match"), "name": "exact_match"}, "metric": "m"}
    task = write(task={**NEMO, "params": {"temperature": 0}, "title": "T"}).tasks["t"]
    assert task.questions() == {
        "version": 1, "generation": 1, "samples": 1, "eval_type": NEMO["eval_type"], "endpoint_type": "chat",
        "params": {"temperature": 0}, "adapter": {},
    }  # fmt: skip
    assert task.scoring() == {"metric": "acc"}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("--enforce-eager", {"enforce-eager": True}),
        ("--a --b 1", {"a": True, "b": "1"}),
        ("--a=b=c", {"a": "b=c"}),
        ("--seed -1", {"seed": "-1"}),
        ("""--hf-overrides '{"a": 1}'""", {"hf-overrides": '{"a": 1}'}),
        ("--a ''", {"a": ""}),
    ],
)
def test_options_of_a_command_line(text, options):
    assert parse_options(text, "here") == options


def test_a_retired_word_says_what_to_write_in_its_place():
    entry = {"provider": "shared", "model": "m", "preset": "qwen3_embedding"}
    with pytest.raises(ConfigError) as error:
        check(entry, "endpoint_shared", "config/endpoints.yaml, endpoint 'vectors'")
    assert str(error.value) == (
        "config/endpoints.yaml, endpoint 'vectors': preset names 'qwen3_embedding', which is gone. "
        "It did what 'kind: embedding' does: write that in its place."
    )


def test_every_schema_is_closed_and_described():
    def check(node, place):
        if not isinstance(node, dict):
            return
        if node.get("type") == "object" and "properties" in node and place != "task_native.scorer":
            assert node.get("additionalProperties") is False, place
        for name, inner in node.get("properties", {}).items():
            assert inner.get("description") or inner.get("title"), f"{place}.{name}"
            check(inner, f"{place}.{name}")

    names = [str(path.relative_to(ROOT / "config/schemas"))[:-5] for path in (ROOT / "config/schemas").rglob("*.yaml")]
    assert len(names) >= 8
    for name in names:
        check(load_schema(name), name)


class TestBeforeAnythingRuns:
    def test_a_campaign_that_is_right(self):
        make_model("model")
        check_campaign(write())

    def test_a_chat_without_a_template(self):
        make_model("model", template=False)
        campaign = write()
        with pytest.raises(ModelError, match=r"'c': the tokenizer in model has no chat template, and task 't' chats"):
            check_campaign(campaign)
        check_campaign(write(items='{"id": "a", "prompt": "Once", "target": "yes"}\n'))
        check_campaign(write(task={**NEMO, "endpoint_type": "completions"}))
        with pytest.raises(ModelError, match="chats"):
            check_campaign(write(task=NEMO))

    @pytest.mark.parametrize("where", ["chat_template.jinja", "chat_template.json", "option", "tokenizer"])
    def test_a_chat_template_is_found_in_each_of_its_places(self, where, tmp_path):
        make_model("model", template=False)
        args = {"option": {"chat-template": "x"}, "tokenizer": {"tokenizer": str(tmp_path / "tok")}}.get(where, {})
        make_model("tok")
        if where.startswith("chat"):
            (tmp_path / "model" / where).write_text("x")
        assert has_chat_template(Path("model"), Serving(vllm_args=args))

    @pytest.mark.parametrize(
        ("items", "words"),
        [
            ("{", "line 1 is not JSON"),
            ('{"id": "a", "prompt": "?"}\n{"id": "a", "prompt": "?"}\n', "line 2: the id 'a' stands in line 1 already"),
            ("", "is empty"),
            ('{"id": "a", "prompt": "?"}\n', r"config/tasks/t.yaml: Item 'a' has no `target`"),
        ],
    )
    def test_malformed_items(self, items, words):
        make_model("model")
        with pytest.raises(MilepostError, match=words):
            check_campaign(write(items=items))

    @pytest.mark.parametrize("key", ["metric", "beside"])
    def test_a_number_that_the_scorer_does_not_make(self, key):
        make_model("model")
        named = "exact_mtch" if key == "metric" else ["exact_mtch"]
        with pytest.raises(ConfigError, match=r"t.yaml asks for metric 'exact_mtch'.*Did you mean 'exact_match'"):
            check_campaign(write(task={**TASK, key: named}))

    def test_more_samples_drawn_than_there_are(self):
        make_model("model")
        with pytest.raises(
            ConfigError, match=r"t.yaml asks for pass@4 \(`k`\) of 2 samples per item. Raise `samples` to 4"
        ):
            check_campaign(write(task={**TASK, "samples": 2, "k": [2, 4]}))
        check_campaign(write(task={**TASK, "samples": 4, "k": [2, 4], "beside": ["pass@4", "maj@2"]}))
        with pytest.raises(ConfigError, match="asks for metric 'pass@3'"):
            check_campaign(write(task={**TASK, "samples": 4, "k": [2, 4], "beside": ["pass@3"]}))

    def test_an_environment_of_a_scorer_has_to_be_there(self, monkeypatch):
        make_model("model")

        def missing(name):
            raise EnvironmentMissingError(f"The environment {name!r} is not installed.")

        monkeypatch.setattr("milepost.preflight.campaign.environment_python", missing)
        items = '{"id": "a", "prompt": "?", "target": "yes", "choices": ["yes", "no"]}\n'
        campaign = write(task={**TASK, "scorer": {"name": "avert"}}, items=items)
        check_campaign(campaign, installed=False)
        with pytest.raises(EnvironmentMissingError, match="'semantic'"):
            check_campaign(campaign)

    def test_a_missing_model(self):
        with pytest.raises(
            ModelError, match=r"Checkpoint 'c': the model folder model does not exist.*take the row out"
        ):
            check_campaign(write())

    def test_a_hub_model_that_is_not_here_yet(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        campaign = write(sheet=f"name\tmodel\trevision\nc\torg/name\t{'a' * 40}\n")
        check_campaign(campaign)
        assert find_model(campaign.checkpoints["c"]) is None
