"""Commands inside an Apptainer image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def inside(
    command: Sequence[str], image: str | None, *, env: Mapping[str, str], binds: Iterable[Path] = (), nv: bool = False
) -> tuple[list[str], dict[str, str]]:
    """The command that runs another one inside an image, and the environment to start it in.

    Args:
        command: What to run.
        image: An image file or folder; None runs the command where we are, unchanged.
        env: What the command finds in its environment; nothing of it stands on a command line.
        binds: Folders of this machine that it needs, at the same place.
        nv: Whether it uses the GPU.
    """
    if image is None:
        return list(command), dict(env)
    mounts = [option for folder in dict.fromkeys(binds) for option in ("--bind", f"{folder}:{folder}")]
    words = ["apptainer", "exec", "--cleanenv", *(["--nv"] if nv else []), *mounts, image, *command]
    return words, {**env, **{f"APPTAINERENV_{name}": value for name, value in env.items()}}
