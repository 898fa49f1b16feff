"""Where NeMo Evaluator runs: in an environment of envs/, in an image, or in an image with that environment bound into it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.campaign.types import NemoTask
from milepost.nemo import nel_launch
from milepost.runtime import launch
from milepost.runtime.containers import Containers, image_file, inside, require_image
from milepost.runtime.environments import environment_python, harness_folders

ENVIRONMENT = "nemo"
# The first line of its command names the Python that has it.
FIND_PYTHON = (
    'script=$(command -v nemo-evaluator || command -v nel) || exit 127; exec $(sed -n "1s/^#!//p" "$script") - "$@"'
)
# Starts it so that it shares the port of its adapter with us; a command that is no Python is run as it is.
LAUNCH = """script=$(command -v "$1") || { echo "$1: No such file: NeMo Evaluator is not installed there" >&2; exit 127; }
python=$(sed -n "1s/^#!//p" "$script")
launch=$2
shift 2
case $python in *python*) exec $python "$launch" "${script##*/}" "$@" ;; *) exec "$script" "$@" ;; esac"""


@dataclass(frozen=True)
class NemoInstallation:
    """An environment, an image, or both, where the image brings no NeMo Evaluator of its own.

    Attributes:
        environment: A folder in envs/; None for an image that brings its own.
        image: An Apptainer image.
        binds: Further folders that go into the image.
    """

    environment: str | None = ENVIRONMENT
    image: Path | None = None
    binds: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """The installation's name in messages."""
        parts = [
            f"image {self.image}" if self.image else "",
            f"environment {self.environment}" if self.environment else "",
        ]
        return " with ".join(filter(None, parts))

    def command(
        self, words: Sequence[str], env: Mapping[str, str], binds: Iterable[Path] = ()
    ) -> tuple[list[str], dict[str, str]]:
        """The command that runs a program of this installation, and the environment to start it in.

        Args:
            words: The program, `nemo-evaluator` or from 0.3 on `nel`, and its arguments.
            env: Variables of its own, on top of those of this process.
            binds: What of this host it needs in an image, beside the current folder.

        Raises:
            EnvironmentMissingError: The environment is not installed.
            ContainerError: No such image, no Apptainer here, or a path that cannot be bound.
        """
        launchers = [Path(launch.__file__), *([Path(nel_launch.__file__)] if words[0] == "nel" else [])]
        command = ["sh", "-c", LAUNCH, "sh", words[0], str(launchers[-1]), *words[1:]]
        if self.environment is None:
            return self._inside(command, env, [*launchers, *binds])
        binaries = environment_python(self.environment).parent
        # The harnesses are commands of that environment.
        path = f"{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        command[4] = str(binaries / words[0])
        return self._inside(command, self._with_harness({**env, "PATH": path}), [*launchers, *binds])

    def python(
        self, words: Sequence[str], env: Mapping[str, str], binds: Iterable[Path] = ()
    ) -> tuple[list[str], dict[str, str]]:
        """The command that runs a program on standard input with the Python that has NeMo Evaluator, and its environment."""
        if self.environment is None:
            return self._inside(["sh", "-c", FIND_PYTHON, "sh", *words], env, binds)
        return self._inside([str(environment_python(self.environment)), "-", *words], self._with_harness(env), binds)

    @property
    def harness(self) -> Path | None:
        """The folder of a harness that we bring for the environment, because its packages bring none to NeMo Evaluator."""
        if self.environment is None:
            return None
        folder = environment_python(self.environment).parents[2] / "harness"
        return folder if folder.is_dir() else None

    def _with_harness(self, env: Mapping[str, str]) -> dict[str, str]:
        if self.harness is None:
            return dict(env)
        return {**env, "PYTHONPATH": os.pathsep.join(filter(None, [str(self.harness), env.get("PYTHONPATH")]))}

    def _inside(
        self, command: list[str], env: Mapping[str, str], binds: Iterable[Path]
    ) -> tuple[list[str], dict[str, str]]:
        if self.image is None:
            return inside(command, None, env=env)
        # From the root: some are started in another folder.
        image = str(require_image(self.image).absolute())
        return inside(command, image, env=env, binds=[*self._binds(), *binds])

    def _binds(self) -> Iterator[Path]:
        if self.environment is not None:
            yield environment_python(self.environment).parents[3]
        if os.environ.get("TMPDIR"):
            yield Path(os.environ["TMPDIR"])
        yield from self.binds


def own_harnesses() -> dict[str, str]:
    """The variable by which NeMo Evaluator of an environment finds harnesses of the user's own, where there are any."""
    folders = os.pathsep.join(map(str, harness_folders()))
    return {"PYTHONPATH": folders} if folders else {}


def installation_of(container: str | None, environment: str | None, containers: Containers) -> NemoInstallation:
    """Find out in which environment or image a task runs.

    Its own image comes before the campaign's. One that names an environment runs in that one, outside of images, unless
    the images bring no environments.

    Args:
        container: The image that the task names, if any.
        environment: The environment that it names, if any.
        containers: The campaign's.
    """
    if container:
        image: Path | None = image_file(container, containers.folder)
    else:
        image = containers.nemo if environment is None or containers.bind_environments else None
    if image is None:
        return NemoInstallation(environment or ENVIRONMENT)
    return NemoInstallation(
        (environment or ENVIRONMENT) if containers.bind_environments else None, image, containers.binds
    )


def recorded_installation(harness: Mapping[str, Any], containers: Containers) -> NemoInstallation:
    """Find out where a task runs by what the header of its prompts says of its harness."""
    return installation_of(harness.get("container"), harness.get("environment"), containers)


def task_images(tasks: Iterable[NemoTask]) -> list[str]:
    """The images that tasks name in their own files (by file, address or definition), each once."""
    return list(dict.fromkeys(task.container for task in tasks if task.container is not None))
