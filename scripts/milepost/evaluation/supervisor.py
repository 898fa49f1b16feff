"""The supervisor of one checkpoint's job: finds what is missing, serves the model once, asks everything, keeps it.

A task that fails leaves the others running. The death of the server ends the job within seconds, and what was under way
then was not asked. TERM, INT and a walltime that is nearly over end it within 8 s, with nothing left behind but what is
stored.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from milepost import __version__
from milepost.campaign.identity import identify
from milepost.campaign.models import find_model
from milepost.campaign.sampling import MODEL, SOURCE, bases, longest_answer
from milepost.campaign.types import Checkpoint, EndpointSpec
from milepost.client.client import Client
from milepost.endpoints import Endpoint
from milepost.endpoints.gpus import check_visible
from milepost.endpoints.hosted import Hosted
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.seen import Seen
from milepost.errors import BudgetError, MilepostError, ModelError, ServerError
from milepost.evaluation import asking
from milepost.evaluation.asking import Asking
from milepost.evaluation.progress import Progress
from milepost.evaluation.work import Request, remember_complete, requests_of
from milepost.nemo import run as nemo
from milepost.nemo.installation import recorded_installation
from milepost.nemo.runs import missing_runs
from milepost.records import Answer, PromptSet, Usage
from milepost.runtime.containers import Containers
from milepost.runtime.processes import Watchdog
from milepost.runtime.walltime import near_the_end
from milepost.schemas import of_schema
from milepost.store.answers import STORE, TaskStore, open_stores
from milepost.store.lease import BEAT_S, Lease, acquire
from milepost.store.ledger import Ledger, append_line, sum_lines
from milepost.store.met import read_met, write_met
from milepost.store.provenance import engine_versions

log = logging.getLogger("milepost")
SYNC_S = 1.0
PROGRESS_S = 5.0


class Stopped(MilepostError):
    """The job was told to end before it was done."""


@dataclass
class EvaluationJob:
    """What one call of evaluate_checkpoint is to do."""

    ckpt: Checkpoint
    digest: str
    prompts: dict[str, PromptSet]
    gpus: int
    nemo_parallel: int
    logs: Path
    nemo: dict[str, nemo.Setting] = field(default_factory=dict)
    walltime_margin_s: float = of_schema("config", "walltime_margin_s")
    containers: Containers = field(default_factory=Containers)

    @property
    def store(self) -> Path:
        """The folder of the checkpoint's store."""
        return STORE / self.ckpt.name


def evaluate(job: EvaluationJob) -> dict[str, Any]:
    """Complete a checkpoint's store as far as possible, and return a note of how far it came.

    Returns:
        The note: `{"ckpt", "tasks": {name: {"done", "missing", "error"?}}, "ledger": sums, "versions"}`.

    Raises:
        ServerError: The server did not start, or died.
        StoreError: Another writer is at work.
        Stopped: TERM or INT came, or the walltime was nearly over.
    """
    lease, dead = acquire(job.store / ".lease", log.info)
    try:
        if dead:
            append_line(job.store, {**dead, "end": "killed"})  # type: ignore[typeddict-item]
        return asyncio.run(Supervisor(job, lease).run())
    finally:
        lease.release()


class Supervisor:
    """One attempt at evaluating a checkpoint."""

    def __init__(self, job: EvaluationJob, lease: Lease) -> None:
        """Prepare the attempt; nothing is started yet."""
        self.job = job
        self.lease = lease
        self.attempt = uuid.uuid4().hex[:12]
        self.errors: dict[str, str] = {}
        self.total = self.done = 0
        self.progress = Progress()
        self.sampling: dict[
            str, dict[str, Any]
        ] = {}  # what holds where a task says nothing; unknown of others' endpoints
        self.ledger: Ledger
        # The name under which a model of others has answered first holds for all its jobs.
        met = read_met(job.store).get(job.digest)
        self.seen = Seen(met, self.remember_name)

    async def run(self) -> dict[str, Any]:
        """Ask what is missing; always ends with the ledger written and no process left."""
        job = self.job
        native = [name for name, prompts in job.prompts.items() if prompts.header["kind"] == "native"]
        with open_stores(job.store, native, self.attempt) as stores:
            work = self.missing_requests(stores)
            runs = [
                (prompts, number, folder)
                for prompts in job.prompts.values()
                if prompts.header["kind"] == "nemo"
                for number, folder in missing_runs(STORE / job.ckpt.name, job.digest, prompts.header)
            ]
            if work or runs:
                self.total = len(work)
                self.check_gpus()
                self.check_identity()
                for prompts, _, _ in runs:
                    # An image is asked for its versions now: later, that would hold up the end. What is wrong with one
                    # its own runs will say.
                    with suppress(MilepostError):
                        nemo.versions(recorded_installation(prompts.header["harness"], job.containers))
                with closing(Watchdog()) as watchdog:
                    spec = self.spec(watchdog)
                    versions = {"milepost": __version__, **spec.versions()}
                    self.ledger = Ledger(self.attempt, job.gpus, versions)
                    await self.attend(spec, work, runs, stores, watchdog)
            self.lease.confirm()
            note = self.note(work, stores)
        complete = [job.prompts[name] for name in native if note["tasks"][name]["missing"] == 0]
        remember_complete(job.ckpt.name, complete, job.digest)
        return note

    def missing_requests(self, stores: dict[str, TaskStore]) -> list[Request]:
        """The requests that the store has no answer to: longest expected answers first, samples of one prompt side by side."""
        # Longest first, so that the last minutes of the GPU are not spent on one long answer.
        names = sorted(
            stores, key=lambda name: -(longest_answer(self.job.prompts[name].header["sampling"]) or math.inf)
        )
        return [
            request
            for name in names
            for request in requests_of(self.job.prompts[name], self.job.digest)
            if request.key not in stores[name].settled
        ]

    def check_gpus(self) -> None:
        """Check that this job has the GPUs that the checkpoint's server needs."""
        wanted = self.job.ckpt.serving.gpus
        if self.job.gpus < wanted:
            raise ServerError(
                f"Answers of {self.job.ckpt.name!r} are missing, and its server needs {wanted} GPU(s), but this job was"
                f" given {self.job.gpus}: the store had looked complete. Run again: the next job asks for them."
            )
        check_visible(self.job.ckpt)

    def check_identity(self) -> None:
        """Check that the model is still the one of the plan, under which answers are filed: a job may have waited for days."""
        if identify(self.job.ckpt)["digest"] != self.job.digest:
            raise ModelError(
                f"Checkpoint {self.job.ckpt.name!r} is another model than when this job was planned: its files or options"
                " have changed since. Nothing was asked; run again."
            )

    async def attend(
        self,
        spec: EndpointSpec,
        work: list[Request],
        runs: list[tuple[PromptSet, int, Path]],
        stores: dict[str, TaskStore],
        watchdog: Watchdog,
    ) -> None:
        """Serve and ask until all is done, a signal or the walltime ends the attempt, or the server is dead."""
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(self.serve(spec, work, runs, stores, watchdog))
        reason: dict[str, str] = {}  # by whom, as the ledger names it, and in words

        def stop(end: str, words: str) -> None:
            if not reason:
                reason[end] = words
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number.name, f"Told to end by {number.name}")
        keeper = asyncio.create_task(self.keep(stores, task))
        clock = asyncio.create_task(self.watch_walltime(stop))
        end = "failed"
        try:
            await task
            end = "done"
        except asyncio.CancelledError:
            if not reason:
                keeper.result()  # raises what it met: the lease was lost
                raise
            ((end, words),) = reason.items()
            raise Stopped(
                f"{words} after {self.done} of {self.total} answers. What came is stored; the next run goes on there, and so"
                " does Snakemake's retry, with the time that the profile gives it."
            ) from None
        finally:
            keeper.cancel()
            clock.cancel()
            await asyncio.gather(keeper, clock, return_exceptions=True)
            self.ledger.over()
            self.close_ledger(end)

    def close_ledger(self, end: str) -> None:
        """Write what this attempt took to the ledger; where the folder is gone, whoever finds the dead lease there writes it."""
        if self.job.store.is_dir():
            append_line(self.job.store, self.ledger.line(end))

    async def watch_walltime(self, stop: Callable[[str, str], None]) -> None:
        """Stop this attempt shortly before its walltime ends, while there is time to do it cleanly."""
        left = await near_the_end(self.job.walltime_margin_s)
        stop("walltime", f"Ended by itself, because {max(left, 0):.0f} s of this job's walltime are left,")

    async def keep(self, stores: dict[str, TaskStore], task: asyncio.Task[None]) -> None:
        """Every few seconds, sync the stores, renew the lease, and log the progress."""
        logged = 0

        async def sync() -> None:
            for store in stores.values():
                await loop.run_in_executor(disk, store.sync)

        async def beat() -> None:
            await loop.run_in_executor(heart, self.lease.beat, dict(self.ledger.line()))

        async def tell() -> None:
            nonlocal logged
            if self.done > logged:
                logged = self.done
                log.info("%s", self.progress.words(self.done, self.total, time.monotonic()))

        async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
            while True:
                await work()
                await asyncio.sleep(seconds)

        loop = asyncio.get_running_loop()
        # Threads of their own: names are looked up in the loop's, and a slow disk or name server must not stop the heart.
        disk, heart = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        try:
            # At the very start there is nothing to keep yet, and the account of a killed attempt would be of no time.
            await asyncio.sleep(SYNC_S)
            async with asyncio.TaskGroup() as group:
                for seconds, work in ((SYNC_S, sync), (BEAT_S, beat), (PROGRESS_S, tell)):
                    group.create_task(every(seconds, work))
        except BaseExceptionGroup as errors:
            # Without a heartbeat, another job would take this store over.
            task.cancel()
            raise errors.exceptions[0] from None
        finally:
            for threads in (disk, heart):
                threads.shutdown(wait=False)

    def spec(self, watchdog: Watchdog) -> EndpointSpec:
        """The endpoint that answers: one that others serve, or a server of this job's own.

        Args:
            watchdog: Ends such a server, should this process die.
        """
        ckpt = self.job.ckpt
        return ckpt.endpoint or Hosted.of(ckpt, self.job.logs, watchdog, self.job.containers)

    async def serve(
        self,
        spec: EndpointSpec,
        work: list[Request],
        runs: list[tuple[PromptSet, int, Path]],
        stores: dict[str, TaskStore],
        watchdog: Watchdog,
    ) -> None:
        """Open the endpoint, run all tasks at the same time, and close it."""
        log.info(
            "%d answers and %d NeMo runs are missing; opening the endpoint (%s)", len(work), len(runs), spec.provider
        )
        begun = time.monotonic()
        self.ledger.starting()
        async with AsyncExitStack() as stack:
            endpoint = await stack.enter_async_context(open_endpoint(spec))
            self.ledger.ready()
            self.note_sampling(work, runs)
            if endpoint.version is not None:
                self.ledger.versions["engine"] = endpoint.version
            log.info("the endpoint answers after %.0f s", time.monotonic() - begun)
            death = asyncio.create_task(endpoint.died())
            # One for all: what an endpoint of others bears, it bears from all tasks together.
            client = await stack.enter_async_context(self.asking().client(endpoint, self.job.ckpt.endpoint))
            self.progress.slowed(lambda: client.slowed_by)
            native = asyncio.create_task(self.ask(work, stores, endpoint, client))
            harness = asyncio.create_task(self.run_nemo(runs, endpoint, watchdog, client))
            both = asyncio.gather(native, harness)
            either: list[asyncio.Future[Any]] = [both, death]
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not both.done():
                    raise death.result()
                both.result()
            finally:
                # One after the other: if one has failed, cancelling both together would leave the other running.
                for task in (death, native, harness):
                    task.cancel()
                # NeMo's processes and the server are ended at the same time: there are only seconds for both.
                await asyncio.gather(both, native, harness, death, stack.aclose(), return_exceptions=True)
        log.info("%d of %d answers; the endpoint is closed", self.done, self.total)

    def note_sampling(self, work: list[Request], runs: list[tuple[PromptSet, int, Path]]) -> None:
        """See how the server samples where a task says nothing; a hub model's files are here by now."""
        ckpt = self.job.ckpt
        if ckpt.endpoint is not None:
            return
        folder = find_model(ckpt)
        if folder is None and (
            any(SOURCE in request.header["sampling"] for request in work)
            or any(prompts.header["harness"].get("sampling") for prompts, _, _ in runs)
        ):
            raise ServerError(
                f"A task takes the model's own sampling, and the files of {ckpt.model} are not in this host's cache of the hub,"
                " where it would be read. Nothing was asked. Set HF_HOME in the shell that starts Snakemake to the folder that"
                " the server uses, or name the values in the task's `sampling`."
            )
        self.sampling = bases(ckpt.serving, folder)
        self.ledger.sampling(self.sampling)

    def asking(self) -> Asking:
        """The settings of the loop that asks this checkpoint."""
        serving = self.job.ckpt.serving
        return Asking(
            concurrency=serving.concurrency,
            timeout_s=serving.request_timeout_s,
            retries=serving.retries,
            kept="What was answered before is stored, and the next run goes on there.",
            busy=self.ledger.busy,
            models_own=self.sampling.get(MODEL, {}),
            seen=self.seen,
        )

    async def ask(self, work: list[Request], stores: dict[str, TaskStore], endpoint: Endpoint, client: Client) -> None:
        """Put all requests to the endpoint, and store the answers as they come."""

        def keep(request: Request, answer: Answer, final: bool) -> None:
            stores[request.task].append(request.key, answer, final)
            self.ledger.answered(answer)
            self.done += 1
            if not final:
                self.errors[request.task] = f"{answer['error']['type']}: {answer['error']['message']}"

        try:
            await self.asking().ask(endpoint, work, keep, client)
        except BudgetError as error:
            # Tasks that are complete are scored; the others say why they are not.
            log.error("%s", error)
            for task in {request.task for request in work if request.key not in stores[request.task].settled}:
                self.errors[task] = str(error)

    def remember_name(self, name: str) -> None:
        """Keep the name that an endpoint answered under."""
        self.lease.confirm()
        write_met(self.job.store, self.job.digest, name)

    async def run_nemo(
        self, runs: list[tuple[PromptSet, int, Path]], endpoint: Endpoint, watchdog: Watchdog, client: Client
    ) -> None:
        """Run NeMo Evaluator's tasks, a bounded number at once; one that fails leaves the others running."""
        places = asyncio.Semaphore(self.job.nemo_parallel)
        folder = find_model(self.job.ckpt)
        tokenizer = str(folder.resolve()) if folder is not None else self.job.ckpt.model
        others = None if self.job.ckpt.endpoint is None else (client, self.seen)

        async def one(prompts: PromptSet, number: int, folder: Path) -> None:
            name = prompts.header["task"]
            async with places:
                output = self.job.logs / f"{self.job.ckpt.name}.{name}.{folder.name}.log"
                begun = time.monotonic()
                try:
                    self.lease.confirm()
                    with self.ledger.busy():
                        setting = replace(
                            self.job.nemo.get(name, nemo.Setting()),
                            tokenizer=tokenizer,
                            sampling=self.sampling,
                            attempt=self.attempt,
                            others=others,
                        )
                        await nemo.run(
                            prompts.header, number, folder, endpoint, setting, output, watchdog, self.count_reply
                        )
                    log.info("NeMo Evaluator's %s, run %d, took %.0f s", name, number, time.monotonic() - begun)
                except (MilepostError, OSError) as error:
                    # Held back like a failed request: the server may have died under it.
                    await asyncio.sleep(asking.HINDSIGHT_S)
                    self.errors[name] = str(error)
                    log.error("%s", error)

        await asyncio.gather(*(one(*run) for run in runs))

    def count_reply(self, line: dict[str, Any]) -> None:
        """Count a reply that a harness got in the ledger."""
        usage = line.get("usage") or {}
        if line["status"] == 200:
            answer = Answer(id="", sample=0)
            if len(usage) == 2:
                answer["usage"] = cast(Usage, usage)
            self.ledger.answered(answer)

    def note(self, work: list[Request], stores: dict[str, TaskStore]) -> dict[str, Any]:
        """The note of how far the checkpoint came, task by task; `work` is what was missing at the start."""
        tasks: dict[str, Any] = {}
        unanswered = Counter(request.task for request in work if request.key not in stores[request.task].settled)
        for name, prompts in self.job.prompts.items():
            if name in stores:
                expected = len(prompts.prompts) * prompts.header["samples"]
                missing = unanswered[name]
            else:
                expected = prompts.header["samples"]
                missing = len(missing_runs(STORE / self.job.ckpt.name, self.job.digest, prompts.header))
            tasks[name] = {"done": expected - missing, "missing": missing}
            if missing and name in self.errors:
                tasks[name]["error"] = self.errors[name]
        sums = sum_lines(self.job.store)
        return {
            "ckpt": self.job.ckpt.name,
            "tasks": tasks,
            "ledger": sums,
            "versions": engine_versions(self.job.ckpt.name),
        }
