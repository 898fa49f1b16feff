"""Programs inside an Apptainer image: what goes in, and nothing else does."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ContainerError
from milepost.runtime.environments import surroundings
from milepost.schemas import of_schema, with_defaults

# Variables of the environment that go into an image: those about the job, its GPUs, the proxy and the hub.
PASSED = re.compile(
    "LANG|LC_[A-Z]+|TZ|TMPDIR|CUDA_VISIBLE_DEVICES|(CUDA|NCCL|NVIDIA|GLOO|UCX|SLURM|HF|VLLM|OMP|MKL|TORCH|TORCHINDUCTOR"
    "|TRITON|NEMO_EVALUATOR)_[A-Z0-9_]+|DO_NOT_TRACK|TORCHDYNAMO_DISABLE|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY"
)

ADDRESS = re.compile("[a-z]+://(?P<name>.+)")


@dataclass(frozen=True)
class Containers:
    """The key `containers` of the configuration.

    Attributes:
        vllm: Image file that vLLM runs in, or None: it runs from envs/vllm.
        nemo: Image file that NeMo Evaluator runs in, or None: it runs from envs/nemo.
        nv: Whether NVIDIA's driver goes in.
        binds: Further folders that go in.
        caches: Folder of what vLLM and its compilers keep.
        bind_environments: Whether the environments of envs/ go in: the images bring none.
        folder: Where images lie that are named by file, and where others are put.
    """

    vllm: Path | None = None
    nemo: Path | None = None
    nv: bool = of_schema("config", "containers", "nv")
    binds: tuple[Path, ...] = ()
    caches: Path = of_schema("config", "containers", "caches", made=Path)
    bind_environments: bool = of_schema("config", "containers", "bind_environments")
    folder: Path = of_schema("config", "containers", "folder", made=Path)


def read_containers(config: Mapping[str, Any]) -> Containers:
    """Read a campaign's configuration of containers; whether the images exist is not checked."""
    given = with_defaults(config.get("containers", {}), "config", "containers")
    folder = Path(given["folder"])
    return Containers(
        vllm=image_file(given["vllm"], folder) if "vllm" in given else None,
        nemo=image_file(given["nemo"], folder) if "nemo" in given else None,
        nv=given["nv"],
        binds=tuple(map(Path, given.get("binds", []))),
        caches=Path(given["caches"]),
        bind_environments=given["bind_environments"],
        folder=folder,
    )


def image_file(name: str, folder: Path) -> Path:
    """Path of the file of an image that the configuration names by file, address or definition.

    >>> image_file("vllm.sif", Path("/apps")), image_file("/data/own.sif", Path("/apps"))
    (PosixPath('/apps/vllm.sif'), PosixPath('/data/own.sif'))
    >>> image_file("docker://vllm/vllm-openai:v0.32.0", Path("/apps"))
    PosixPath('/apps/vllm_vllm-openai_v0.32.0.sif')
    >>> image_file("vllm-cpu.def", Path("/apps"))
    PosixPath('/apps/vllm-cpu.sif')
    """
    address = ADDRESS.fullmatch(name)
    if address:
        return folder / (re.sub("[^A-Za-z0-9.-]+", "_", address["name"]) + ".sif")
    if name.endswith(".def"):
        return folder / (Path(name).stem + ".sif")
    return folder / name


def is_made(name: str) -> bool:
    """Whether an image is named by an address or a definition, from which `snakemake prepare_images` makes it."""
    return bool(ADDRESS.fullmatch(name)) or name.endswith(".def")


def require_image(image: Path) -> Path:
    """Return the path of an image after checking that it exists.

    Raises:
        ContainerError: It does not; the message names the images beside it.
    """
    if image.exists():
        return image
    there = sorted(path.name for path in image.parent.glob("*.sif"))
    raise ContainerError(
        f"The container image {image} does not exist (from {Path.cwd()}). Images in {image.parent}: {', '.join(there) or 'none'}."
        " Correct 'vllm', 'nemo' or 'folder' under 'containers' in the config or 'container' in a task's file, or run `snakemake prepare_images` on a host"
        " with a way out: it pulls and builds what the config names by address or definition."
    )


def inside(
    command: Sequence[str],
    image: str | None,
    *,
    env: Mapping[str, str],
    binds: Iterable[Path] = (),
    nv: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that start a program within an Apptainer image.

    Inside, there is the image, the current folder, the binds, and the site's own mounts. Variables go in by way of the
    environment, so that no key stands on a command line.

    Args:
        command: The program with its arguments.
        image: An image's file, or None: the program is started bare.
        env: The program's own variables. All of them go in, as they are, and of the surroundings only those that
            `PASSED` names; so do not hand over the whole of `os.environ`. Folders that PATH has in front of the
            surroundings' own are put in front of the image's PATH. Bare, they stand on top of `surroundings()`.
        binds: Folders and files that are to be found inside under the names that they have outside.
        nv: Whether to bring in NVIDIA's driver; harmless without a GPU.

    Raises:
        ContainerError: No Apptainer here, or a path that cannot be bound.
    """
    if image is None:
        return list(command), {**surroundings(), **env}
    executable, prefix = find_apptainer()
    words = [
        executable, "exec",
        "--cleanenv",
        # Otherwise a shell inside replaces $NAME and runs `commands` in the values.
        "--no-eval",
        *(["--nv"] if nv else []),
        "--pwd", os.getcwd(),
        *(word for path in bind_points([Path.cwd(), *binds]) for word in ("--mount", mount(path))),
        image, *command,
    ]  # fmt: skip
    passed = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    # Packages in the user's home are not the image's; without this, Python would prefer them.
    passed |= {"PYTHONNOUSERSITE": "1", **env}
    ahead = passed.pop("PATH", "").removesuffix(os.environ.get("PATH", os.defpath)).strip(os.pathsep)
    if ahead:
        passed["PREPEND_PATH"] = ahead
    return words, {**os.environ, **{f"{prefix}_{name}": value for name, value in passed.items()}}


def find_apptainer() -> tuple[str, str]:
    """Apptainer's executable and the beginning of the names of variables that it hands in.

    Raises:
        ContainerError: There is neither Apptainer nor Singularity on PATH.
    """
    for name, prefix in (("apptainer", "APPTAINERENV"), ("singularity", "SINGULARITYENV")):
        executable = shutil.which(name)
        if executable:
            return executable, prefix
    raise ContainerError(
        "The config names a container image, but there is neither apptainer nor singularity on PATH on this host. Load your"
        " site's module for it, or take 'containers' out of the config to run from envs/."
    )


def reached_from(path: Path) -> Iterator[Path]:
    """A path and the folders that links in it lead to: a hub's cache keeps its files behind links."""
    yield path
    for file in path.iterdir() if path.is_dir() else [path]:
        if file.is_symlink() and file.exists():
            yield Path(os.path.normpath(file.parent.absolute() / file.readlink())).parent
            yield file.resolve().parent


def bind_points(paths: Iterable[Path]) -> list[str]:
    """The absolute names under which paths have to be bound, parents first, each once.

    A path that leads over a link is bound under its own name and where the link points to.

    Raises:
        ContainerError: A path does not exist.
    """
    points: list[str] = []
    for path in paths:
        if not path.exists():
            raise ContainerError(f"{path} does not exist, so it cannot be bound into a container image.")
        points += [os.path.realpath(path), os.path.abspath(path)]
    real = set(points[::2])
    bound: list[str] = []
    for point in sorted(set(points), key=lambda point: (len(Path(point).parts), point)):
        covered = point in real and any(Path(point).is_relative_to(parent) for parent in bound if parent in real)
        if not covered:
            bound.append(point)
    return bound


def mount(path: str) -> str:
    """A bind mount of a path on itself, as a value of --mount: a record of CSV.

    >>> mount("/data/a, b")
    'type=bind,"src=/data/a, b","dst=/data/a, b"'
    """
    if not path.isprintable():
        raise ContainerError(f"{path!r} cannot be bound into a container image: its name holds control characters.")
    quoted = path.replace('"', '""')
    return f'type=bind,"src={quoted}","dst={quoted}"'
