"""Starts the jobs of shared servers, on SLURM or in the background, and ends them."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from milepost.endpoints.shared_place import FOLDER, SharedEndpointFolder, read_json, write_private
from milepost.endpoints.shared_spec import SharedSpec
from milepost.errors import EndpointError, StoreError
from milepost.paths import WORKFLOW
from milepost.store.lease import STALE_S, acquire, file_age, read_lease, started
from milepost.store.slurm_jobs import is_of_this_cluster, job_is_awaited, names_of_job

log = logging.getLogger("milepost")
SBATCH = "MILEPOST_SBATCH"  # the profile's options for a server's job, as the workflow hands them down


def submit(spec: SharedSpec, attempt: str) -> Mapping[str, Any]:
    """Start a server's job on SLURM, or a process in the background where no SLURM is used.

    Returns:
        `{"job", "cluster"}`, or `{"host", "pid", "started"}`.

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
    output = SharedEndpointFolder(FOLDER / spec.name, "", "").job_log
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
        done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EndpointError(f"Endpoint {spec.name!r}: its server's job could not be submitted: {error}.") from None
    job = done.stdout.strip().partition(";")[0]
    if done.returncode != 0 or not re.fullmatch("[0-9]+", job):
        reply = " ".join(done.stderr.replace("sbatch: error:", "").split())
        raise EndpointError(
            f"Endpoint {spec.name!r}: SLURM did not take its server's job: {reply or 'it said nothing'}. Correct the resources of"
            " serve_shared in the profile, and run again."
        )
    log.info("submitted job %s for the server of endpoint %r; it says what it does in %s", job, spec.name, output)
    return names_of_job(job)


def stop_all(*, also_kept: bool, within_s: float = 30.0) -> list[str]:
    """Tell the servers of this campaign to end, and wait until they have.

    Args:
        also_kept: Also those that were started to be kept (`snakemake serve_shared`).
        within_s: Seconds to wait; a job that has not ended by then is cancelled.

    Returns:
        Names of the endpoints whose servers were told to end.
    """
    stopping: list[SharedEndpointFolder] = []
    for folder in sorted(path for path in FOLDER.glob("*") if path.is_dir()):
        place = SharedEndpointFolder(folder, "", "")
        if not also_kept and read_json(place.record).get("kept"):
            continue
        submitted = read_json(place.submitted)
        age = file_age(place.lease)
        if (age is not None and age < STALE_S) or job_is_awaited(submitted):
            # By name: the file may be seen by the next server only, and that one was not told.
            write_private(place.stop, {"nonce": read_lease(place.lease).get("nonce")})
            stopping.append(place)
    deadline = time.monotonic() + within_s
    for place in stopping:
        # The number of another cluster's job may be that of another job here.
        submitted = read_json(place.submitted)
        job = submitted["job"] if is_of_this_cluster(submitted) else None
        # One that waits in the queue holds no lease, and will not look for the file.
        if job and not read_lease(place.lease):
            subprocess.run(["scancel", str(job)], capture_output=True, timeout=30, check=False)
        while read_lease(place.lease) and time.monotonic() < deadline:
            time.sleep(0.2)
        if job and read_lease(place.lease):
            subprocess.run(["scancel", str(job)], capture_output=True, timeout=30, check=False)
        with submitting(place):
            # A job that waits may have submitted the next server by now, which has read the key already.
            if read_json(place.submitted).get("attempt") == submitted.get("attempt"):
                for path in (place.submitted, place.folder / "key", place.stop):
                    path.unlink(missing_ok=True)
    return [place.folder.name for place in stopping]


@contextmanager
def submitting(place: SharedEndpointFolder) -> Iterator[None]:
    """Hold the right to submit a server's job, or to take its key away, which somebody else may hold for seconds."""
    while True:
        try:
            lease, _ = acquire(place.folder / ".submitting", log.debug)
            break
        except StoreError:
            continue  # it changed hands meanwhile, which for a lease means that its holder lives
    try:
        yield
    finally:
        lease.release()


def sbatch_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The resources that the profile gives to serve_shared, as options of sbatch, and the type of its GPUs.

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
    options = {name: str(asked[name]) for name in words if asked.get(name) not in (None, "", "<TBD>", 0)}
    return {
        "options": [f"--{words[name]}={value}" for name, value in options.items()],
        "gpu_model": str(asked.get("gpu_model") or ""),
    }
