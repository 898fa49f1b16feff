"""A campaign's job on a real server: how long that waits for us, and our tokens a second against `vllm bench serve`'s.

    python benchmarks/served.py [--items 1000]    # minutes; `make demo` trains the model and makes the questions

First the job as evaluate_checkpoint runs it: vLLM's CPU build starts, serves the demo's last checkpoint, is asked the demo's
own tasks as they are but for so many items each, and ends; the one of NeMo Evaluator is left out. Then a server is kept up
for both clients in turn, with the same prompts, the same number at once, and answers of a fixed length.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from client_arm import Asking  # first: it makes the package importable
from measuring import ROOT, BenchmarkError, Peer, Table, install, run, scratch

from milepost.campaign.identity import identify
from milepost.campaign.types import Checkpoint, Serving
from milepost.endpoints.vllm import VllmServer
from milepost.errors import MilepostError
from milepost.evaluation import supervisor as evaluate
from milepost.evaluation.supervisor import EvaluationJob, Supervisor
from milepost.records import PromptSet, write_records
from milepost.runtime.environments import environment_python
from milepost.runtime.processes import Watchdog
from milepost.store.lease import acquire
from milepost.store.ledger import Ledger

MODEL = ROOT / "demo" / "model" / "step-400"
TASKS = ("sums", "where", "constraints")
TOKENS = 16
ROUNDS = 5
MOST_PROMPTS = 500  # of a round: a few seconds of the server's time

OURS, THEIRS = "Milepost", "`vllm bench serve`"

# Reads the prompts for `vllm bench serve`, and is not in the environment that serves.
READER = Peer("vllm-bench", ("pandas==2.3.3",))
# `vllm bench serve` without vLLM's command line, which does not find the CPU build's own name.
BENCH = """
import asyncio, sys
sys.path.append(sys.argv.pop(1))
from vllm.benchmarks.serve import add_cli_args, main_async
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
asyncio.run(main_async(parser.parse_args()))
"""


Asks = Callable[[VllmServer, PromptSet, int], Awaitable[float]]


class Full(Ledger):
    """A ledger that also counts the seconds in which fewer requests were under way than the server could take."""

    bound = 0
    first: float | None = None
    last = 0.0
    short_s = 0.0
    filled: float | None = None
    full_until = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """As its base."""
        self.count()
        with super().busy():
            try:
                yield
            finally:
                self.count()

    def ready(self) -> None:
        """As its base."""
        super().ready()
        self.up = self.since = time.monotonic()

    def over(self) -> None:
        """As its base."""
        if self._phase in {"busy_s", "idle_s"}:
            self.count()
        super().over()

    def count(self) -> None:
        """The time since the last change."""
        now = time.monotonic()
        if self._under_way < self.bound:
            self.short_s += now - self.since
        else:
            self.filled = self.filled or self.since
            self.full_until = now
        if self.first is None:
            self.first = now
        self.since = self.last = now


def main() -> None:
    """Measure, print, and write two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000, help="of each task (default: %(default)s)")
    args = parser.parse_args()
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} does not exist. `make demo` trains it.")
    with scratch() as folder:
        os.chdir(folder)
        try:
            measure_job(args.items)
            asyncio.run(measure_rate(args.items))
        except (BenchmarkError, MilepostError) as error:
            sys.exit(str(error))


def checkpoint() -> Checkpoint:
    """The demo's last, served as the demo does."""
    profile: dict[str, Any] = yaml.safe_load((ROOT / "demo/config/config.yaml").read_text())["model_profiles"]["tiny"]
    return Checkpoint("last", str(MODEL), None, None, None, 1, Serving(**profile))


def prompt_set(task: str, items: int, samples: int | None = None, **sampling: Any) -> PromptSet:
    """A task of the demo, its questions over again until there are enough; each answer has a seed of its own."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / f"demo/config/tasks/{task}.yaml").read_text())
    lines = [json.loads(line) for line in (ROOT / "demo/data" / f"{task}.jsonl").read_text().splitlines()]
    prompts = [{"id": f"{task}-{k}", "messages": lines[k % len(lines)]["messages"]} for k in range(items)]
    options = {"seed": 0, **spec["sampling"], **sampling}
    header = {"task": task, "kind": "native", "version": 1, "generation": 1, "samples": samples or spec["samples"]}
    header["sampling"] = options
    write_records(f"results/prompts/{task}.jsonl", [header, *prompts])
    return PromptSet(header, prompts)


def job_of(prompts: list[PromptSet]) -> EvaluationJob:
    """What evaluate_checkpoint is asked to do."""
    ckpt = checkpoint()
    sets = {each.header["task"]: each for each in prompts}
    return EvaluationJob(
        ckpt=ckpt, digest=identify(ckpt)["digest"], prompts=sets, gpus=0, nemo_parallel=1, logs=Path("logs")
    )


def measure_job(items: int) -> None:
    """One job from its beginning to its end."""
    table = Table("idle", orphans=True)
    begun = time.monotonic()
    job = job_of([prompt_set(task, items) for task in TASKS])
    lease, _ = acquire(job.store / ".lease", print)
    Full.bound = job.ckpt.serving.concurrency
    evaluate.Ledger = Full
    supervisor = Supervisor(job, lease)
    try:
        note = asyncio.run(supervisor.run())
    finally:
        lease.release()
    ended = time.monotonic()
    ledger = supervisor.ledger
    if any(state["missing"] for state in note["tasks"].values()):
        sys.exit(f"not all was answered: {note['tasks']}")
    up = ledger.last - ledger.up
    before, after = ledger.filled - ledger.up, ledger.last - ledger.full_until
    table.rows(
        ["job, s", "start to first request, s", "of it vLLM's start", "server up and asked, s", "fewer than it could take, s",
         "share", "requests", "tokens/s"],
        [[f"{ended - begun:.1f}", f"{ledger.first - begun:.1f}", f"{note['ledger']['start_s']:.1f}", f"{up:.1f}",
          f"{ledger.short_s:.2f}", f"{100 * ledger.short_s / up:.1f} %", f"{note['ledger']['requests']:,.0f}",
          f"{note['ledger']['tokens_out'] / up:,.0f}"]],
    )  # fmt: skip
    table.say(
        f"The demo's own tasks ({', '.join(TASKS)}; the one of NeMo Evaluator is left out) with {items:,} items each,"
        f' {job.ckpt.serving.concurrency} requests at once. At most 3 % is the goal. "Fewer than it'
        f" could take\" is every second with less than {job.ckpt.serving.concurrency} under way, the last answers' included:"
        f" {before:.2f} s until so many were under way, {after:.2f} s after the last was sent,"
        f" {ledger.short_s - before - after:.2f} s between."
    )
    table.write()


async def measure_rate(items: int) -> None:
    """Both clients in turn, on one server."""
    table = Table("served", orphans=True)
    items = min(items, MOST_PROMPTS)
    prompts = prompt_set("where", items, 1, max_tokens=TOKENS, ignore_eos=True)
    with Path("bench.jsonl").open("w") as file:
        for prompt in prompts.prompts:
            file.write(json.dumps({"prompt": prompt["messages"][-1]["content"], "output_tokens": TOKENS}) + "\n")
    clients: dict[str, Asks] = {OURS: ask_ours, THEIRS: ask_bench}
    trouble = ""
    try:
        install(READER)
    except BenchmarkError as error:
        trouble = f" {THEIRS} could not be measured: {error}."
        del clients[THEIRS]
    watchdog = Watchdog()
    # At a port: other programs are to ask it as well.
    server = VllmServer(checkpoint(), Path("server.log"), watchdog)
    server.take_port()
    rates: dict[str, list[float]] = {name: [] for name in clients}
    try:
        await server.start()
        # The first round warms the server's caches for both.
        for number in range(ROUNDS + 1):
            for name, client in list(clients.items())[:: -1 if number % 2 else 1]:
                rate = await client(server, prompts, number)
                print(f"{name}, round {number}: {rate:.0f} tokens/s", file=sys.stderr, flush=True)
                if number:
                    rates[name].append(rate)
    finally:
        await server.stop()
        watchdog.close()
    table.rows(
        ["client", "tokens/s, median", "all rounds"],
        [[name, f"{sorted(values)[ROUNDS // 2]:,.0f}", ", ".join(f"{value:,.0f}" for value in values)] for name, values in rates.items()],
    )  # fmt: skip
    reached = trouble
    if not trouble:
        ours, theirs = (sorted(values)[ROUNDS // 2] for values in rates.values())
        ratios = sorted(a / b for a, b in zip(*rates.values(), strict=True))
        reached = f" Milepost reaches {ours / theirs:.2f} of it (round by round {', '.join(f'{ratio:.2f}' for ratio in ratios)})."
    table.say(
        f"At least 0.97 is the goal.{reached} {items:,}"
        f" prompts, {checkpoint().serving.concurrency} at once, {TOKENS} tokens each, seconds from the first request to the last"
        " answer, a seed with each request, each client first in every second round. Milepost stores each answer meanwhile, and"
        f" asks for whole answers; {THEIRS} has them streamed. Client and server share the cores of this machine."
    )
    table.write()


async def ask_ours(server: VllmServer, prompts: PromptSet, number: int) -> float:
    """Tokens a second of the part of the job that asks, into a store of its own."""
    ckpt = checkpoint()
    job = EvaluationJob(
        ckpt=ckpt, digest=f"{number:064d}", prompts={"where": prompts}, gpus=0, nemo_parallel=1, logs=Path("logs")
    )
    lease, _ = acquire(job.store / ".lease", print)
    evaluate.Ledger = Ledger
    supervisor = OnServer(job, lease, url="")
    supervisor.server = server
    try:
        note = await supervisor.run()
    finally:
        lease.release()
        # A job catches these to end cleanly; this program is to end by them again.
        for caught in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(caught)
    if note["tasks"]["where"]["missing"]:
        raise BenchmarkError(f"not all was answered: {note['tasks']}")
    return len(prompts.prompts) * TOKENS / supervisor.asked[0]


class OnServer(Asking):
    """Asks a server that is up already."""

    server: VllmServer

    async def serve(self, work: Any, runs: Any, stores: Any) -> None:
        """Ask, with the server's own key and name."""
        self.ledger.ready()
        begun = time.perf_counter()
        await self.ask(iter(work), stores, self.server.endpoint)
        self.asked = time.perf_counter() - begun, 0.0


async def ask_bench(server: VllmServer, prompts: PromptSet, number: int) -> float:
    """Tokens a second that vLLM's own benchmark reports."""
    endpoint = server.endpoint
    (packages,) = install(READER).parent.glob("lib/python*/site-packages")
    command = [
        environment_python("vllm"), "-c", BENCH, packages, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions",
        "--base-url", endpoint.url.removesuffix("/v1"), "--model", endpoint.model, "--tokenizer", MODEL,
        "--dataset-name", "custom", "--dataset-path", "bench.jsonl", "--custom-output-len", str(TOKENS),
        "--skip-chat-template", "--num-prompts", str(len(prompts.prompts)), "--max-concurrency",
        str(checkpoint().serving.concurrency), "--ignore-eos", "--temperature", "0.7", "--disable-tqdm", "--disable-shuffle",
        "--extra-body", '{"seed": 0}', "--save-result", "--result-filename", f"bench-{number}.json",
    ]  # fmt: skip
    env = {"OPENAI_API_KEY": endpoint.key, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    await asyncio.to_thread(run, command, env=env, timeout_s=900)
    result = json.loads(Path(f"bench-{number}.json").read_text())
    if result["completed"] != len(prompts.prompts):
        raise BenchmarkError(
            f"vllm bench serve: {result['completed']} of {len(prompts.prompts)} requests were answered"
        )
    return float(result["output_throughput"])


if __name__ == "__main__":
    main()
