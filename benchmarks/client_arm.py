"""Milepost's own part in benchmarks/client.py: what one GPU job does between its server's start and its end.

    python benchmarks/client_arm.py URL PROMPTS [--concurrency 64]   # in an empty folder

Finds what the store lacks, asks for it, stores each answer as it comes with a sync each second, and writes the ledger.
Prints one line of JSON: seconds and core seconds by phase, and for a server that says how long it held an answer back,
what was added to that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# This folder comes last: a benchmark may be called like a module of the standard library.
sys.path[0] = str(ROOT / "scripts")
sys.path.append(str(ROOT / "benchmarks"))

from milepost.campaign.types import Checkpoint, Serving  # noqa: E402
from milepost.client import client  # noqa: E402 (found by the line above)
from milepost.endpoints import Endpoint  # noqa: E402
from milepost.evaluation.supervisor import EvaluationJob, Supervisor  # noqa: E402
from milepost.evaluation.work import Request  # noqa: E402
from milepost.records import Answer, PromptSet, read_prompts  # noqa: E402
from milepost.store.answers import TaskStore  # noqa: E402
from milepost.store.lease import acquire  # noqa: E402


class Asking(Supervisor):
    """A supervisor whose server is there already."""

    def __init__(self, *args: Any, url: str) -> None:
        """As its base."""
        super().__init__(*args)
        self.url = url
        self.asked: tuple[float, float] = (0.0, 0.0)
        self.added: list[float] = []

    def check_identity(self) -> None:
        """There are no files of a model."""

    def versions(self) -> dict[str, str]:
        """Nor an engine."""
        return {}

    async def serve(
        self, work: list[Request], runs: list[tuple[PromptSet, int, Path]], stores: dict[str, TaskStore]
    ) -> None:
        """Ask, without a server of its own."""
        self.ledger.ready()
        begun = time.perf_counter(), time.process_time()
        await self.ask(iter(work), stores, Endpoint(self.url, "key", "m", "c"))
        self.asked = time.perf_counter() - begun[0], time.process_time() - begun[1]


class Timed(Asking):
    """Also notes what each request took above what the server held it back for."""

    async def answer(self, client: client.Client, endpoint: Endpoint, request: Request) -> tuple[Answer, bool]:
        """As its base."""
        begun = time.perf_counter()
        reply = await client.post(request.path, {"model": endpoint.model, **request.body})
        answer = read_reply(reply, request.id, request.sample, request.seed)
        self.added.append(time.perf_counter() - begun - reply.body["held_s"])
        return answer, True


read_reply = client.read_reply


def main() -> None:
    """Ask everything once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--timed", action="store_true", help="the server says how long it held each answer back")
    args = parser.parse_args()
    prompts = read_prompts(args.prompts)
    task = prompts.header["task"]
    # What is remembered of a complete store lies beside the campaign's own prompts.
    Path("results/prompts").mkdir(parents=True)
    Path(f"results/prompts/{task}.jsonl").symlink_to(args.prompts.resolve())
    serving = Serving(gpus=0, concurrency=args.concurrency, request_timeout_s=60.0)
    ckpt = Checkpoint("c", "model", None, None, None, 1, serving)
    job = EvaluationJob(ckpt=ckpt, digest="0" * 64, prompts={task: prompts}, gpus=0, nemo_parallel=1, logs=Path("logs"))
    lease, _ = acquire(job.store / ".lease", print)
    supervisor = (Timed if args.timed else Asking)(job, lease, url=args.url)
    begun = time.perf_counter(), time.process_time()
    try:
        note = asyncio.run(supervisor.run())
    finally:
        lease.release()
    took = time.perf_counter() - begun[0], time.process_time() - begun[1]
    if note["tasks"][task]["missing"]:
        sys.exit(f"not all was answered: {note['tasks']}")
    added = sorted(supervisor.added)
    print(
        json.dumps(
            {
                "requests": note["tasks"][task]["done"],
                "seconds": took[0],
                "cpu": took[1],
                "asking_seconds": supervisor.asked[0],
                "asking_cpu": supervisor.asked[1],
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
                **(
                    {"added_ms": {share: 1e3 * added[int(len(added) * share)] for share in (0.5, 0.99)}}
                    if added
                    else {}
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
