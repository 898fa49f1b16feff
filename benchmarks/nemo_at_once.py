"""Wall time of six NeMo Evaluator tasks on one server: all at once, and one after the other.

    envs/workflow/.venv/bin/python benchmarks/nemo_at_once.py [--at-once 6] [--rounds 3]

It serves the demo's last checkpoint (`make demo` trains it) with vLLM's CPU build and runs lm-eval tasks of the demo's
questions in a temporary folder. Most of a short run is imports, so cores bound what is won: say how many there are.
The ratio is taken within a round, where both meet the same machine; of several rounds, the median stands.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import yaml  # noqa: E402

from milepost.campaign.types import Checkpoint, Serving  # noqa: E402
from milepost.endpoints import Endpoint  # noqa: E402
from milepost.endpoints.vllm import VllmServer  # noqa: E402
from milepost.nemo import run as nemo  # noqa: E402
from milepost.records import TaskHeader  # noqa: E402
from milepost.runtime.processes import Watchdog  # noqa: E402

TASKS = ["t_colours", "t_sums", "t_both", "t_evenly", "t_colours", "t_sums"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=len(TASKS), help="tasks at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured (default: %(default)s)")
    args = parser.parse_args()
    if args.at_once < 2:
        parser.error("--at-once: at least 2, to compare with one after the other")
    model = ROOT / "demo" / "model" / "step-400"
    if not model.is_dir():
        sys.exit(f"{model} does not exist. `make demo` trains it.")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shutil.copytree(ROOT / "tests" / "serving" / "lm_eval", "harness")
        write_data()
        asyncio.run(measure(model, args.at_once, args.rounds))


def write_data() -> None:
    """The demo's questions as these tasks read them."""
    Path("data").mkdir()
    for name in ("colours", "sums", "where"):
        with Path(f"data/{name}.jsonl").open("w") as file:
            for text in (ROOT / "demo" / "data" / f"{name}.jsonl").read_text().splitlines():
                line = json.loads(text)
                question = line.get("question") or line["messages"][0]["content"]
                file.write(json.dumps({"question": question, "target": line["target"]}) + "\n")


async def measure(model: Path, at_once: int, rounds: int) -> None:
    """Serve once, run all tasks both ways, each in folders of its own."""
    profile: dict[str, Any] = yaml.safe_load((ROOT / "demo/config/config.yaml").read_text())["model_profiles"]["tiny"]
    watchdog = Watchdog()
    server = VllmServer(
        Checkpoint("last", str(model), None, None, None, 1, Serving(**profile)), Path("server.log"), watchdog
    )
    try:
        await server.start()
        # The first run warms the disk's cache for both.
        await run_all(server.endpoint, watchdog, "warm", TASKS[:1], 1)
        took: dict[int, list[float]] = {1: [], at_once: []}
        for number in range(rounds):
            for places, seconds in took.items():
                seconds.append(await run_all(server.endpoint, watchdog, f"{number}-{places}", TASKS, places))
                print(f"round {number}: {len(TASKS)} tasks, {places} at once: {seconds[-1]:.0f} s", flush=True)
        slow, fast = took.values()
        ratio = median(one / other for one, other in zip(slow, fast, strict=True))
        print(
            f"{len(TASKS)} tasks, {os.cpu_count()} cores, medians of {rounds}: one after the other {median(slow):.0f} s,"
            f" {at_once} at once {median(fast):.0f} s; {ratio:.2f} times as fast"
        )
    finally:
        await server.stop()
        watchdog.close()


async def run_all(endpoint: Endpoint, watchdog: Watchdog, name: str, tasks: list[str], places: int) -> float:
    """Seconds that these tasks take, so many at once."""
    free = asyncio.Semaphore(places)

    async def one(number: int, task: str) -> None:
        header = TaskHeader(task=f"{task}-{number}", kind="nemo", version=1, generation=1, samples=1, sampling={})
        params = {"temperature": 0.7, "extra": {"args": "--include_path harness"}}
        header["harness"] = {"eval_type": f"lm-evaluation-harness.{task}", "endpoint_type": "chat", "params": params}
        setting = nemo.Setting(tuning={"params": {"parallelism": 8, "request_timeout": 300}})
        async with free:
            folder = Path("runs", name, str(number))
            await nemo.run(header, 0, folder, endpoint, setting, Path("runs", f"{name}.log"), watchdog)

    begun = time.monotonic()
    await asyncio.gather(*(one(number, task) for number, task in enumerate(tasks)))
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
