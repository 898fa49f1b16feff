"""Finds out which GPUs this job sees, and checks that they are enough."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from milepost.campaign.types import Checkpoint
from milepost.errors import ServerError


def check_visible(ckpt: Checkpoint) -> None:
    """Check that a server's GPUs are there before it is started: vLLM takes a minute to report it, in many words.

    Raises:
        ServerError: This job sees fewer.
    """
    wanted = ckpt.serving.gpus
    if not wanted:
        return
    seen, how = visible_gpus(ckpt.serving.env.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")))
    if seen is None or seen >= wanted:
        return
    job = os.environ.get("SLURM_JOB_ID")
    more = (
        f"`scontrol show job {job}` (while it is remembered) and `sacct -j {job} -o AllocTRES%60` show what SLURM gave it, and"
        " `snakemake preflight --profile slurm` which GPUs there are: set gpu_model and slurm_partition of"
        " evaluate_checkpoint in the profile."
        if job
        else "`nvidia-smi` shows the GPUs of this host."
    )
    raise ServerError(
        f"The server of {ckpt.name!r} needs {wanted} GPU(s), but this job on {socket.gethostname()} sees {seen}: {how}. Nothing was"
        f" started. {more} For vLLM's CPU build, set gpus: 0 in the model profile."
    )


def visible_gpus(chosen: str | None) -> tuple[int | None, str]:
    """The number of GPUs that this process sees, and the source of that number; None if it cannot be found out.

    Args:
        chosen: CUDA_VISIBLE_DEVICES, if set: SLURM sets it to the GPUs that it gave.
    """
    if chosen is not None:
        named = [name for name in chosen.split(",") if name.strip() and name.strip() not in ("-1", "NoDevFiles")]
        return len(named), f"CUDA_VISIBLE_DEVICES is {chosen!r}"
    if os.environ.get("ROCR_VISIBLE_DEVICES") or Path("/dev/kfd").exists():
        return None, "GPUs of another make"
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--list-gpus"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
        return (
            (devices, f"it has {devices} of /dev/nvidia*")
            if devices
            else (0, "there is no nvidia-smi, and no /dev/nvidia0")
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return 0, f"nvidia-smi failed and said: {lines[0] if lines else 'nothing'}"
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines()), "nvidia-smi lists so many"
