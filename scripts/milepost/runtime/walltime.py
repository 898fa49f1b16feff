"""How much of its walltime a SLURM job has left, so that it can end itself before SLURM does.

SLURM's own warning (`sbatch --signal`) reaches the Snakemake around the supervisor, which waits for its step and passes
nothing on; where SLURM tracks processes by cgroup, it reaches nobody else. So the supervisor asks.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

from milepost.runtime.slurm_site import parse_minutes

ASK_AGAIN_S = 60.0


def seconds_left() -> float | None:
    """Seconds until SLURM ends this job; None outside a job, without a limit, or where SLURM does not answer."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    try:
        listing = subprocess.run(
            ["squeue", "--noheader", "--jobs", job, "--format", "%L"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    minutes = parse_minutes(listing.stdout)
    return None if minutes is None else minutes * 60


async def near_the_end(margin_s: float) -> float:
    """Wait until at most `margin_s` seconds of this job's walltime are left; wait for ever where there is no limit.

    Returns:
        The seconds that are left.
    """
    end: float | None = None
    while True:
        # Each time anew: a job can be given more time while it runs. Where SLURM is silent, what it said last holds.
        left = await asyncio.to_thread(seconds_left)
        if left is not None:
            end = time.monotonic() + left
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= margin_s:
            return left
        await asyncio.sleep(ASK_AGAIN_S if left is None else left - margin_s)
