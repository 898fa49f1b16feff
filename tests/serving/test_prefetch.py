"""What `prefetch` brings into the caches, with the real loaders; the hub is a small one of the test's own, or none."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from milepost.errors import ConfigError
from milepost.preflight.campaign import check_campaign, load_campaign
from milepost.tasks import load_items

ROOT = Path(__file__).parents[2]
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
NOWHERE = "http://127.0.0.1:9"
ROWS = '{"id": "sky", "prompt": "The sky is", "target": "blue"}\n'
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
}
MODEL = {
    "config.json": json.dumps({"model_type": "qwen3"}),
    "tokenizer.json": json.dumps(TOKENIZER),
    "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}),
    "model-1.safetensors": "first half",
    "model-2.safetensors": "second half",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    ),
    "pytorch_model.bin": "the same once more",
}


@pytest.fixture(scope="module", autouse=True)
def environments():
    subprocess.run([ROOT / "envs" / "setup.sh", "workflow", "nemo", "nemo-simple-evals"], check=True)


class Hub(BaseHTTPRequestHandler):
    """One model and a data set of one file, as the Hugging Face hub serves it; `asked` are the paths that were asked for."""

    protocol_version = "HTTP/1.1"
    asked: tuple[str, ...] = ()

    def log_message(self, *args):
        """Write no access log."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        Hub.asked += (path,)
        name = path.rpartition("/")[2]
        status, data, headers = 404, b"{}", {}
        if path.startswith("/api/models/org/tiny/tree/"):
            sizes = [{"type": "file", "path": name, "size": len(text), "oid": name} for name, text in MODEL.items()]
            status, data = 200, json.dumps(sizes).encode()
        elif path.startswith("/api/models/org/tiny"):
            status, data = (
                200,
                json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": n} for n in MODEL]}).encode(),
            )
        elif path.startswith("/org/tiny/resolve/") and name in MODEL:
            status, data = 200, MODEL[name].encode()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        elif path == "/datasets/org/rows/resolve/main/test/rows.jsonl":
            status, data = 200, ROWS.encode()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        elif "/resolve/" in path:
            headers = {"X-Error-Code": "EntryNotFound"}
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET


@pytest.fixture
def hub():
    Hub.asked = ()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def campaign(tmp_path):
    """A folder with a local lm-eval task, a benchmark of simple-evals, and a checkpoint on the hub."""
    files = {
        "config/config.yaml": "tasks: [colours, mmlu]\nmodel_profiles: {default: {gpus: 0}}\n",
        "config/checkpoints.tsv": f"name\tmodel\trevision\ntiny\torg/tiny\t{COMMIT}\n",
        "config/tasks/colours.yaml": "version: 1\nharness: nemo\neval_type: lm-evaluation-harness.colours\n"
        'params: {extra: {args: "--include_path harness"}}\nmetric: exact_match\n',
        "config/tasks/mmlu.yaml": "version: 1\nharness: nemo\neval_type: simple_evals.mmlu\n"
        "environment: nemo-simple-evals\nmetric: score\n",
        "harness/colours.yaml": "task: colours\ndataset_path: json\ndataset_kwargs: {data_files: {test: data/colours.jsonl}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{target}}'\n"
        "metric_list: [{metric: exact_match}]\n",
        "data/colours.jsonl": '{"question": "Sky?", "target": "blue"}\n{"question": "Snow?", "target": "white"}\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def prefetch(campaign, endpoint):
    """Run it as by hand, in a shell that is set for offline runs."""
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "prefetch.py"],
        cwd=campaign,
        env={**env, "HF_HOME": str(campaign / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_missing_comes_from_the_hub_and_then_loads_without_it(campaign, hub):
    done = prefetch(campaign, hub)
    assert done.returncode == 0, done.stderr
    assert "there     data of task 'colours' (colours): 2 items" in done.stdout
    assert "fetched   model org/tiny: " in done.stdout
    assert "not here  the data of task 'mmlu': simple_evals fetches it while it runs" in done.stdout
    assert "loaded with HF_HUB_OFFLINE=1" in done.stdout
    snapshot = campaign / "hf" / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    assert (snapshot / "model-2.safetensors").read_text() == "second half"
    # The same weights in another format cost time and disk for nothing.
    assert not (snapshot / "pytorch_model.bin").exists()

    Hub.asked = ()
    again = prefetch(campaign, hub)
    assert again.returncode == 0
    assert "there     model org/tiny" in again.stdout
    assert Hub.asked == ()

    (snapshot / "model-2.safetensors").unlink()
    mended = prefetch(campaign, hub)
    assert "fetched   model org/tiny" in mended.stdout
    assert (snapshot / "model-2.safetensors").exists()


def test_without_a_way_to_the_hub_it_says_so_in_one_paragraph(campaign):
    done = prefetch(campaign, NOWHERE)
    assert done.returncode == 1
    assert "there     data of task 'colours'" in done.stdout
    assert "All of it was loaded" not in done.stdout
    assert done.stderr.startswith("PrefetchError: Not in the caches of ")
    assert "the Hugging Face hub cannot be reached from this host" in done.stderr
    assert "): model org/tiny. Run this on a host with a way there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_the_hub_does_not_have(campaign, hub):
    (campaign / "config" / "checkpoints.tsv").write_text(f"name\tmodel\trevision\ntiny\torg/typo\t{COMMIT}\n")
    done = prefetch(campaign, hub)
    assert done.returncode == 1
    assert "org/typo" in done.stderr
    assert "cannot be reached" not in done.stderr


def test_a_task_of_our_own_gets_its_data_from_the_hub_and_reads_it_without(tmp_path, hub, monkeypatch):
    (tmp_path / "config/tasks").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "config/config.yaml").write_text("tasks: [sky]\nmodel_profiles: {default: {gpus: 0}}\n")
    (tmp_path / "config/checkpoints.tsv").write_text("name\tmodel\nc1\tmodel\n")
    task = "version: 1\ndata: hub:org/rows/test/rows.jsonl\nscorer: {name: exact_match}\n"
    (tmp_path / "config/tasks/sky.yaml").write_text(task)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    campaign = load_campaign()
    with pytest.raises(ConfigError, match="Run `snakemake prefetch`"):
        check_campaign(campaign)
    check_campaign(campaign, fetched=False)
    done = prefetch(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert "fetched   data of task 'sky' (hub:org/rows/test/rows.jsonl): " in done.stdout
    check_campaign(campaign)
    assert [item["id"] for item in load_items(campaign.tasks["sky"])] == ["sky"]

    (tmp_path / "config/tasks/sky.yaml").write_text(task.replace("test/rows", "test/typo"))
    done = prefetch(tmp_path, hub)
    assert done.returncode == 1
    assert "test/typo.jsonl" in done.stderr
