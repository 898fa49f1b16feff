"""The Python environments in envs/, each with its own interpreter."""

from __future__ import annotations

from pathlib import Path

from milepost.errors import EnvironmentMissingError, did_you_mean
from milepost.paths import WORKFLOW

# Found from the workflow's folder and never handed over as a parameter: a project that was moved must not be
# evaluated again.
_ENVS = WORKFLOW / "envs"


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
