"""Under which name a model that others serve has answered first: later jobs hold it to that."""

from __future__ import annotations

import json
from pathlib import Path

from milepost.records import write_record

MET = ".answered_as.json"


def read_met(store: Path) -> dict[str, str]:
    """The names in the first replies, by the digest of the model that was asked."""
    try:
        met = json.loads((store / MET).read_bytes())
    except (OSError, ValueError):
        return {}
    return met if isinstance(met, dict) else {}


def write_met(store: Path, digest: str, name: str) -> None:
    """Remember the name in the first reply."""
    write_record(store / MET, {**read_met(store), digest: name})
