"""What is known of versions before a run: tasks that a package has wrong, and programs that were never tried with Milepost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from milepost.nemo.catalogue import Catalogue

# The first and the last version of NeMo Evaluator that was run with Milepost.
TRIED = ("0.1.20", "0.3.0")


def known_faults(catalogue: Catalogue, name: str) -> Iterator[str]:
    """Say what is known to be wrong with a task as this environment or image has it, and what to use instead.

    Args:
        catalogue: The environment's or image's.
        name: The harness's own name of the task.
    """
    for fault in _faults():
        version = catalogue.versions.get(fault["package"])
        if version and re.fullmatch(fault["tasks"], name) and _is_within(version, *fault["versions"]):
            yield (
                f"{name} of {fault['package']} {version} is known to be wrong: {fault['fault']}. To have it right,"
                f" {fault['instead']}."
            )


def untried_version(versions: Mapping[str, str]) -> str | None:
    """Say that a NeMo Evaluator is older or newer than all that were tried; None where it is not, or not known.

    >>> untried_version({"nemo-evaluator": "0.2.8"})
    >>> untried_version({"nemo-evaluator": "0.9"})
    'NeMo Evaluator 0.9 was never tried with Milepost (0.1.20 to 0.3.0 were); it is run like 0.3.0.'
    """
    version = versions.get("nemo-evaluator")
    if version is None or _is_within(version, *TRIED):
        return None
    nearest = TRIED[0] if _is_within(version, None, TRIED[0]) else TRIED[1]
    return f"NeMo Evaluator {version} was never tried with Milepost ({TRIED[0]} to {TRIED[1]} were); it is run like {nearest}."


def _is_within(version: str, first: str | None, last: str | None) -> bool:
    try:
        given = Version(version)
    except InvalidVersion:
        return False
    return (first is None or given >= Version(first)) and (last is None or given <= Version(last))


@cache
def _faults() -> list[dict[str, Any]]:
    return list(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()))
