"""The checks of `snakemake preflight` and how they are shown: what was looked at, its state, and what to do."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from milepost.terminal import columns

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """The result of one check: what was looked at, its state, what was found, and what to do about it."""

    what: str
    state: State
    found: str
    advice: str = ""


def write_probe(folder: Path, what: str, advice: str) -> Check:
    """Check that a file can be written to a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check(what, "failed", f"{folder} cannot be written: {error.strerror}", advice)
    return Check(what, "ok", f"{folder} can be written")


def render(checks: list[Check], width: int | None = None) -> str:
    """The checks as a table, with what to do below each that is not well."""
    width = width or max(80, min(160, shutil.get_terminal_size((120, 24)).columns))
    rows = []
    for check in checks:
        advised = check.advice and check.state in ("failed", "warning")
        rows.append((check.state, check.what, f"{check.found}\n-> {check.advice}" if advised else check.found))
    return "\n".join(columns(rows, width=width))


def sentence(checks: list[Check]) -> str:
    """The sentence below the table: how many checks failed, or that everything is ready."""
    failed, warned = (sum(check.state == state for check in checks) for state in ("failed", "warning"))
    if failed:
        return f"{failed} of {len(checks)} checks failed: do what stands behind the arrows, and look again."
    return f"Ready, with {warned} warning(s)." if warned else "Ready."
