"""What the tests on real parts share: the demo's model, a campaign around it, an image, and a server beside the tests."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from milepost.campaign.types import Checkpoint, Serving
from milepost.endpoints.vllm import VllmServer
from milepost.runtime.processes import Watchdog, free_port

# Some tests start programs that lie beside them.
sys.path.append(str(Path(__file__).parent))
# Task files of harnesses, one of them in Python.
collect_ignore = ["lm_eval"]
REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "demo"
PROFILE = yaml.safe_load((DEMO / "config" / "config.yaml").read_text())["model_profiles"]["tiny"]
STEPS = (100, 400)
NEMO = REPOSITORY / "envs" / "nemo" / ".venv" / "bin"
# A root of a container has not all the rights that Apptainer asks for as root; a user's are enough.
os.environ.setdefault("APPTAINER_USERNS", "1")


@pytest.fixture(scope="session")
def demo(tmp_path_factory, request):
    """The demo's folder after `make demo`, with models and data; or another one, for which they are made now."""
    if all((DEMO / file).exists() for file in ("data/where.jsonl", *(f"model/step-{step}" for step in STEPS))):
        return DEMO
    # The tests may run in several processes; one trains.
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if hasattr(request.config, "workerinput") else folder) / "demo"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            python = REPOSITORY / "envs" / "train" / ".venv" / "bin" / "python"
            options = ["--out", folder / "model", "--data-out", folder / "data", "--steps", ",".join(map(str, STEPS))]
            subprocess.run([python, DEMO / "train.py", *options], check=True, cwd=folder)
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def models(demo):
    """The demo's checkpoints, {step: folder}."""
    return {step: demo / "model" / f"step-{step}" for step in STEPS}


@pytest.fixture(scope="session")
def image():
    """A small Debian, into which environments are bound: containers/small.sh builds it once, as root.

    MILEPOST_SMALL_IMAGE names one that is there already.
    """
    if shutil.which("apptainer") is None:
        pytest.skip("there is no apptainer on this machine")
    image = Path(os.environ.get("MILEPOST_SMALL_IMAGE") or REPOSITORY / ".images" / "small.sif")
    if not image.exists():
        if os.getuid() != 0 or shutil.which("debootstrap") is None:
            pytest.skip(f"{image} is not there, and building it takes root and debootstrap")
        subprocess.run([REPOSITORY / "containers" / "small.sh", image], check=True)
    return image


@pytest.fixture(scope="session")
def campaign(demo, tmp_path_factory):
    """A campaign's folder with lm-eval tasks and their data; `config` and `model` come with the tests."""
    folder = tmp_path_factory.mktemp("campaign")
    shutil.copytree(Path(__file__).with_name("lm_eval"), folder / "harness")
    (folder / "data").mkdir()
    for name, most in (("colours", 50), ("sums", 30), ("where", 40)):
        lines = [json.loads(line) for line in (demo / "data" / f"{name}.jsonl").read_text().splitlines()[:most]]
        items = [
            {
                "question": line.get("question") or line["messages"][0]["content"],
                "target": line["target"],
                **({"choices": line["choices"], "person": line["meta"]["person"]} if name == "where" else {}),
            }
            for line in lines
        ]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def write(path, data):
    """A YAML file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def snakemake(folder, *options):
    """Run a campaign as a user would; what it said."""
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile", *options]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    # Servers start twice as fast from compiled files.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def run_eval(folder, url, config, key, model="tiny"):
    """What `nemo-evaluator run_eval` leaves: the finished process and results.yml, if there is one."""
    (folder / "run.yml").write_text(
        yaml.safe_dump(
            {
                "config": {"output_dir": str(folder / "out"), **config},
                "target": {
                    "api_endpoint": {
                        "url": f"{url}/chat/completions",
                        "model_id": model,
                        "type": "chat",
                        "api_key_name": "SOME_KEY",
                    }
                },
            }
        )
    )
    done = subprocess.run(
        ["nemo-evaluator", "run_eval", "--run_config", folder / "run.yml"],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{NEMO}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "SOME_KEY": key,
            # Two adapters on one port: the second run would be answered by the first one's model.
            "ADAPTER_PORT": str(free_port()),
            "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    results = folder / "out" / "results.yml"
    return done, yaml.safe_load(results.read_text())["results"] if results.exists() else None


@pytest.fixture(scope="session")
def served(models, tmp_path_factory):
    """The endpoint of a server of the last checkpoint, up as long as the tests need it.

    Its tests stand in one file: files are shared out over processes, each of which would start one.
    """
    ckpt = Checkpoint("last", str(models[STEPS[-1]]), None, None, None, 1, Serving(**PROFILE))
    log = tmp_path_factory.mktemp("served") / "server.log"
    loop, watchdog = asyncio.new_event_loop(), Watchdog()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    # At a port: programs of others are to reach it.
    server = VllmServer(ckpt, log, watchdog)
    server.take_port()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(600)
        yield server.endpoint
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
        watchdog.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
