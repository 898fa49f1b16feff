"""One server for the many jobs of a campaign: found by its record, started by whoever comes first, asked for anew if it dies.

All of it lies in results/endpoints/NAME, which only the user can enter: the key; the record of the server that answers
(host, port); the lease that a living server beats; the job that was submitted last. Whether a record holds is found out
by asking the server, which has to show that it knows the key: a process id or a job's state would say less.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from milepost.campaign import WORKFLOW
from milepost.endpoints import Endpoint
from milepost.endpoints.specs import ENDPOINTS, EndpointSpec
from milepost.endpoints.tunnel import Tunnel
from milepost.errors import EndpointError, StoreError
from milepost.lease import STALE_S, Lease, acquire, file_age, has_ended, job_has_ended, read_lease, started
from milepost.processes import last_lines

log = logging.getLogger("milepost")
FOLDER = Path("results/endpoints")
SBATCH = "MILEPOST_SBATCH"  # the profile's options for a server's job, as the workflow hands them down
POLL_S = 1.0
WATCH_S = 2.0
LOOK_S = 5.0
PROOF_S = 20.0
STARTS = 3  # in a row that end before they answer; then the jobs that wait give up


@dataclass(frozen=True)
class Place:
    """What a shared endpoint's jobs have in common: a folder, a key, a name that no other server has.

    The key and the name stay as they are while servers come and go, so that whoever asks need not notice.
    """

    folder: Path
    key: str
    model: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"Place({self.folder})"

    @property
    def record(self) -> Path:
        """Where the living server is; written by it."""
        return self.folder / "server.json"

    @property
    def lease(self) -> Path:
        """Held by the living server, from before its start to its end."""
        return self.folder / ".lease"

    @property
    def submitted(self) -> Path:
        """The job that was submitted last."""
        return self.folder / "submitted.json"

    @property
    def failed(self) -> Path:
        """Why the server of the last job did not serve."""
        return self.folder / "failed.json"

    @property
    def stop(self) -> Path:
        """Tells the server to end."""
        return self.folder / "stop"

    @property
    def log(self) -> Path:
        """What vLLM says."""
        return Path("logs/endpoints") / f"{self.folder.name}.server.log"

    @property
    def job_log(self) -> Path:
        """What its supervisor says, and SLURM."""
        return Path("logs/endpoints") / f"{self.folder.name}.log"


def place_of(name: str) -> Place:
    """The place of a shared endpoint in the current campaign; made, with a key, if there is none."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    secret = folder / "key"
    if not secret.exists():
        draft = folder / f".key.{secrets.token_hex(8)}"
        write_private(draft, {"key": secrets.token_urlsafe(32), "model": f"{name}-{secrets.token_hex(8)}"})
        try:
            os.link(draft, secret)  # of two that come at once, one is first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    content = read_json(secret)
    try:
        return Place(folder, str(content["key"]), str(content["model"]))
    except KeyError:
        raise EndpointError(
            f"Endpoint {name!r}: {secret} holds no key. Remove it, with nothing of this campaign running."
        ) from None


@asynccontextmanager
async def open_shared(spec: EndpointSpec) -> AsyncIterator[Endpoint]:
    """A shared endpoint, started if it does not run. While the context lasts, it is started again if it dies.

    Raises:
        EndpointError: Its server cannot be started or reached.
    """
    client = Client(spec, place_of(spec.name))
    patience_s = spec.serving.start_timeout_s + STALE_S
    tunnel = Tunnel(
        client.find, name=spec.name, file=str(ENDPOINTS), ssh_config=spec.ssh_config, wait_s=patience_s, failed=client.reject
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        near = await client.enter(tunnel, stack)
        watcher = asyncio.create_task(client.watch(tunnel, near))
        try:
            await client.first_proof(watcher)
            url = f"http://127.0.0.1:{near}/v1"
            yield Endpoint(url=url, key=client.place.key, model=client.place.model, name=spec.name)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


class Client:
    """One job's view of a shared server."""

    def __init__(self, spec: EndpointSpec, place: Place) -> None:
        """Nothing is looked at yet."""
        self.spec, self.place = spec, place
        self._digest = identity_digest(spec)
        self._rejected: str | None = None  # a record that did not hold
        self._current: str | None = None
        self._proved = asyncio.Event()
        self._seen: set[str] = set()  # servers that were submitted since the last one that answered
        self._begun, self._submitted = time.monotonic(), -LOOK_S
        self._asked, self._gone = -LOOK_S, False  # when it was asked whether the lease's holder is gone, and the answer

    async def enter(self, tunnel: Tunnel, stack: AsyncExitStack) -> int:
        """Open the tunnel; a record of a server that is gone may lead to a host that is gone as well."""
        while True:
            try:
                return await stack.enter_async_context(tunnel)
            except EndpointError:
                if self._current is None or not await asyncio.to_thread(self.reject):
                    raise

    def reject(self) -> bool:
        """The current record led nowhere: whether its server is gone as well, so that it is not taken again."""
        gone = not self._lives()
        self._rejected = self._current if gone else None
        return gone

    async def find(self) -> tuple[str | None, int]:
        """Where the server is, once there is one: its host (None for this one) and port."""
        said = 0.0
        while True:
            found = await asyncio.to_thread(self._look)
            if found is not None:
                return found
            if time.monotonic() - said > 60:
                said = time.monotonic()
                log.info("waiting for the server of endpoint %r to start", self.spec.name)
            await asyncio.sleep(POLL_S)

    def _look(self) -> tuple[str | None, int] | None:
        """The server's place if its record may hold; otherwise see that one is on its way."""
        place = self.place
        record = read_json(place.record)
        if record.get("identity") not in (None, self._digest):
            raise EndpointError(
                f"Endpoint {self.spec.name!r}: the server that runs was started with another model or other options than"
                f" {ENDPOINTS} has now. Run `snakemake stop_servers`, and again."
            )
        attempt, host, port = record.get("attempt"), record.get("host"), record.get("port")
        if isinstance(attempt, str) and isinstance(host, str) and isinstance(port, int) and attempt != self._rejected:
            self._current = attempt
            return (None if host == socket.gethostname() else host), port
        if self._lives():
            # It is starting, or it is busy, or this host cannot reach it just now.
            self._rejected = None
            return None
        # SLURM is asked about the job only now and then: many jobs may wait.
        if time.monotonic() - self._submitted > LOOK_S:
            self._submit_once()
            self._submitted = time.monotonic()
        return None

    def _lives(self) -> bool:
        """Whether a server holds the lease and beats it."""
        age = file_age(self.place.lease)
        if age is None or age >= STALE_S:
            return False
        if time.monotonic() - self._asked > LOOK_S:
            self._asked, self._gone = time.monotonic(), has_ended(read_lease(self.place.lease))
        return not self._gone

    def _submit_once(self) -> None:
        """Submit a server's job, unless one is under way; of several jobs that come at once, one does."""
        submitted = read_json(self.place.submitted)
        if submitted and not self._is_over(submitted):
            return
        lock = _lock(self.place.folder / ".submitting")
        try:
            submitted = read_json(self.place.submitted)
            if submitted and not self._is_over(submitted):
                return
            failed, age = read_json(self.place.failed), file_age(self.place.failed)
            # One that failed before this job began says nothing: what was wrong may have been put right.
            if failed and age is not None and age <= time.monotonic() - self._begun:
                raise EndpointError(
                    f"Endpoint {self.spec.name!r}: its server could not be started. {failed.get('error')}"
                )
            if len(self._seen) >= STARTS:
                raise EndpointError(
                    f"Endpoint {self.spec.name!r}: {STARTS} servers in a row ended before they answered. What they said is in"
                    f" {self.place.log.parent}/{self.spec.name}*.log, at last: {' '.join(last_lines(self.place.job_log, 3).split())}"
                )
            attempt = secrets.token_hex(6)
            self._seen.add(attempt)
            self.place.stop.unlink(missing_ok=True)
            write_private(self.place.submitted, {"attempt": attempt, "at": time.time(), **submit(self.spec, attempt)})
        finally:
            lock.release()

    def _is_over(self, submitted: Mapping[str, Any]) -> bool:
        """Whether nothing will come of a submitted job any more. A server that lives shows itself by its lease."""
        self._seen.add(str(submitted.get("attempt")))
        if read_json(self.place.failed).get("attempt") == submitted.get("attempt"):
            return True
        if submitted.get("job"):
            age = file_age(self.place.submitted)
            return job_has_ended(str(submitted["job"])) and (age or 0.0) > LOOK_S
        if submitted.get("host") == socket.gethostname():
            return started(int(submitted.get("pid", 0))) != submitted.get("started")
        age = file_age(self.place.submitted)
        return age is None or age > STALE_S

    async def watch(self, tunnel: Tunnel, near: int) -> None:
        """Ask the server again and again whether it is the one; where it is not, have the tunnel look for another."""
        refused = 0
        while True:
            if await proves(near, self.place):
                refused, self._rejected = 0, None
                self._seen.clear()
                self._proved.set()
                await asyncio.sleep(WATCH_S)
                continue
            refused += 1
            self._proved.clear()
            if refused >= 2:
                self._rejected, refused = self._current, 0
                tunnel.reopen()
            await asyncio.sleep(POLL_S)

    async def first_proof(self, watcher: asyncio.Task[None]) -> None:
        """Wait until the server has shown that it knows the key."""
        proved = asyncio.create_task(self._proved.wait())
        await asyncio.wait([proved, watcher], return_when=asyncio.FIRST_COMPLETED)
        proved.cancel()
        if watcher.done():
            watcher.result()


def _lock(path: Path) -> Lease:
    """Wait for a lock that is held for seconds."""
    while True:
        try:
            return acquire(path, log.debug)[0]
        except StoreError:
            continue  # it changed hands meanwhile, which for a lease means that its holder lives


async def proves(port: int, place: Place) -> bool:
    """Whether the server behind a port of this host knows the place's key; the key is not sent to find out."""
    nonce = secrets.token_hex(16)
    expected = hmac.new(place.key.encode(), nonce.encode(), "sha256").hexdigest()
    # A connection may wait for its tunnel; the answer itself is quick.
    timeout = aiohttp.ClientTimeout(total=PROOF_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://127.0.0.1:{port}/milepost/proof?{nonce}") as response,
        ):
            return hmac.compare_digest(str((await response.json())["proof"]).encode(), expected.encode())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
        return False


def submit(spec: EndpointSpec, attempt: str) -> dict[str, Any]:
    """Start a server's job on SLURM, or a process in the background where no SLURM is used.

    Returns:
        `{"job"}`, or `{"host", "pid", "started"}`.

    Raises:
        EndpointError: SLURM did not take it.
    """
    command = [
        sys.executable,
        str(WORKFLOW / "scripts" / "serve_shared.py"),
        "--endpoint",
        spec.name,
        "--attempt",
        attempt,
    ]
    output = Place(FOLDER / spec.name, "", "").job_log
    output.parent.mkdir(parents=True, exist_ok=True)
    # This job's own allocation is not the server's, and the server outlives the Snakemake behind this job.
    env = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "MILEPOST_SNAKEMAKE"))
    }
    options = os.environ.get(SBATCH)
    if options is None:
        with output.open("ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True
            )
        log.info(
            "started the server of endpoint %r as process %d; it says what it does in %s",
            spec.name,
            process.pid,
            output,
        )
        return {"host": socket.gethostname(), "pid": process.pid, "started": started(process.pid)}
    site = json.loads(options)
    gpus = f"{site['gpu_model']}:{spec.serving.gpus}".lstrip(":")
    given = [*site["options"], *([f"--gpus={gpus}"] if spec.serving.gpus else [])]
    call = [
        "sbatch", "--parsable", f"--job-name=milepost-{spec.name}", f"--output={output.absolute()}", "--open-mode=append",
        "--no-requeue", "--nodes=1", "--ntasks=1", f"--chdir={Path.cwd()}", *given, "--wrap", f"exec {shlex.join(command)}",
    ]  # fmt: skip
    try:
        asked = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EndpointError(f"Endpoint {spec.name!r}: its server's job could not be submitted: {error}.") from None
    job = asked.stdout.strip().partition(";")[0]
    if asked.returncode != 0 or not re.fullmatch("[0-9]+", job):
        said = " ".join(asked.stderr.replace("sbatch: error:", "").split())
        raise EndpointError(
            f"Endpoint {spec.name!r}: SLURM did not take its server's job: {said or 'it said nothing'}. Correct the resources of"
            " serve_shared in the profile, and run again."
        )
    log.info("submitted job %s for the server of endpoint %r; it says what it does in %s", job, spec.name, output)
    return {"job": job}


def identity_digest(spec: EndpointSpec) -> str:
    """What tells that a running server is still what the configuration asks for."""
    return hashlib.sha256(json.dumps(spec.identity, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A small file's content; nothing if it is missing or torn."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file in one step; only the user can read it."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file)
    os.replace(draft, path)


def stop_all(*, also_kept: bool, within_s: float = 30.0) -> list[str]:
    """Tell the servers of this campaign to end, and wait until they have.

    Args:
        also_kept: Also those that were started to be kept (`snakemake serve_shared`).
        within_s: Seconds to wait; a job that has not ended by then is cancelled.

    Returns:
        Names of endpoints whose servers were told.
    """
    told: list[Place] = []
    for folder in sorted(path for path in FOLDER.glob("*") if path.is_dir()):
        place = Place(folder, "", "")
        if not also_kept and read_json(place.record).get("kept"):
            continue
        submitted = read_json(place.submitted)
        age = file_age(place.lease)
        if (age is not None and age < STALE_S) or (submitted.get("job") and not job_has_ended(str(submitted["job"]))):
            place.stop.touch(mode=0o600)
            told.append(place)
    deadline = time.monotonic() + within_s
    for place in told:
        job = read_json(place.submitted).get("job")
        # One that waits in the queue holds no lease, and will not look for the file.
        if job and not read_lease(place.lease):
            subprocess.run(["scancel", str(job)], capture_output=True, timeout=30, check=False)
        while read_lease(place.lease) and time.monotonic() < deadline:
            time.sleep(0.2)
        if job and read_lease(place.lease):
            subprocess.run(["scancel", str(job)], capture_output=True, timeout=30, check=False)
        # The next server has a key of its own.
        for path in (place.submitted, place.folder / "key"):
            path.unlink(missing_ok=True)
    return [place.folder.name for place in told]


def sbatch_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the profile gives to serve_shared, as options of sbatch, and the type of its GPUs.

    >>> sbatch_options({"slurm_partition": "main", "runtime": 60, "gpu_model": "A40", "constraint": None})
    {'options': ['--partition=main', '--time=60'], 'gpu_model': 'A40'}
    """
    words = {
        "slurm_account": "account",
        "slurm_partition": "partition",
        "constraint": "constraint",
        "runtime": "time",
        "mem_mb": "mem",
        "cpus_per_task": "cpus-per-task",
        "gres": "gres",
    }
    given = {name: str(asked[name]) for name in words if asked.get(name) not in (None, "", "<TBD>", 0)}
    return {
        "options": [f"--{words[name]}={value}" for name, value in given.items()],
        "gpu_model": str(asked.get("gpu_model") or ""),
    }
