"""What a number rests on: versions, the model's identity, the prompts, the code."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from milepost import __version__
from milepost.paths import WORKFLOW
from milepost.records import read_record, read_records
from milepost.store.answers import STORE, read_records_if_any
from milepost.store.ledger import LEDGER


def provenance_of(ckpt: str, model: str, prompts: str, scored: str | None = None) -> dict[str, Any]:
    """The provenance of one checkpoint's numbers on one task: what they rest on, for its summary.

    Args:
        ckpt: Name of the checkpoint.
        model: Its file in results/models.
        prompts: The task's file in results/prompts.
        scored: Digest of all that decides how the answers were scored.
    """
    return {
        "model": read_record(model)["digest"],
        "prompts": hashlib.sha256(Path(prompts).read_bytes()).hexdigest(),
        "versions": {**engine_versions(ckpt), "milepost": __version__, "python": platform.python_version()},
        "commit": commit(),
        "asked": next(read_records(prompts), {}).get("asked"),
        "scored": scored,
    }


def engine_versions(ckpt: str) -> dict[str, str]:
    """Versions of the packages that answered, from the last attempt that asked anything."""
    versions: dict[str, str] = {}
    for line in read_records_if_any(STORE / ckpt / LEDGER):
        versions = line.get("versions") or versions
    return versions


def server_sampling(ckpt: str) -> dict[str, dict[str, Any]]:
    """How the server sampled where a request said nothing, from the last attempt that noted it."""
    noted: dict[str, dict[str, Any]] = {}
    for line in read_records_if_any(STORE / ckpt / LEDGER):
        noted = line.get("sampling") or noted
    return noted


@cache
def commit() -> str | None:
    """The workflow's git commit, with `+` if files differ from it; None outside a repository."""
    try:
        described = subprocess.run(
            ["git", "-C", str(WORKFLOW), "describe", "--always", "--abbrev=12", "--dirty=+"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
