"""The Python environments in envs/, each with its own interpreter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from milepost.errors import EnvironmentMissingError, did_you_mean
from milepost.paths import WORKFLOW

# Found from the workflow's folder and never handed over as a parameter: a project that was moved must not be
# evaluated again.
_ENVS = WORKFLOW / "envs"

# The variable that hands down the folders of PYTHONPATH that hold harnesses of the user's own.
HARNESSES = "MILEPOST_HARNESSES"
# Of Python's variables, those that change neither what it finds nor what it says.
_HARMLESS = frozenset(
    {"PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX",
     "PYTHONUNBUFFERED", "PYTHONUTF8"}
)  # fmt: skip
_ACTIVE = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "__PYVENV_LAUNCHER__"})


def environment_python(name: str) -> Path:
    """Path of the Python interpreter of an environment.

    Args:
        name: A folder in envs/: `semantic`, `vllm`, …

    Raises:
        EnvironmentMissingError: There is no such environment, or it is not installed.
    """
    python = _ENVS / name / ".venv" / "bin" / "python"
    if python.is_file():
        return python
    known = sorted(file.parent.name for file in _ENVS.glob("*/requirements.in"))
    if name not in known:
        raise EnvironmentMissingError(
            f"There is no environment {name!r}. Environments in {_ENVS}: {', '.join(known) or 'none'}."
            f"{did_you_mean(name, known)}"
        )
    raise EnvironmentMissingError(
        f"The environment {name!r} is not installed: {python} does not exist. Run `envs/setup.sh {name}` in {_ENVS.parent}."
    )


def surroundings(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for programs of ours, without those that the user's shell has for another Python.

    A PYTHONPATH or an active environment would bring in packages of another Python or of other versions; folders of it that
    hold a `core_evals` stay known by a variable of our own, for NeMo Evaluator finds harnesses of the user's there.

    >>> surroundings({"PYTHONPATH": "/theirs", "PYTHONHOME": "/other", "CONDA_PREFIX": "/conda", "HOME": "/me"})
    {'HOME': '/me', 'PYTHONNOUSERSITE': '1'}
    """
    environ = os.environ if environ is None else environ
    harnesses = os.pathsep.join(map(str, harness_folders(environ)))
    kept = {
        name: value
        for name, value in environ.items()
        if (not name.startswith("PYTHON") or name in _HARMLESS) and name not in _ACTIVE
    }
    return {**kept, "PYTHONNOUSERSITE": "1", **({HARNESSES: harnesses} if harnesses else {})}


def harness_folders(environ: Mapping[str, str] | None = None) -> list[Path]:
    """The folders of the user's PYTHONPATH that hold harnesses for NeMo Evaluator, by their absolute names."""
    environ = os.environ if environ is None else environ
    named = os.pathsep.join(environ.get(name, "") for name in (HARNESSES, "PYTHONPATH")).split(os.pathsep)
    folders = dict.fromkeys(Path(folder).resolve() for folder in named if folder)
    return [folder for folder in folders if (folder / "core_evals").is_dir()]
