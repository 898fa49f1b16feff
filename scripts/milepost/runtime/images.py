"""Container images as files: pulled from an address, built from a definition, and known by their digest."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from milepost.errors import ContainerError
from milepost.paths import WORKFLOW
from milepost.runtime.containers import ADDRESS, find_apptainer, image_file, is_made, read_containers, require_image

NOTE = Path("results/images.json")
KINDS = ("vllm", "nemo")


def prepare_images(config: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Make the images that the configuration names and that are missing, and say what all of them are.

    Args:
        config: The campaign's.
        others: Images that tasks name, likewise by file, address or definition.

    Returns:
        For each kind (`vllm`, `nemo`) and each of the others `{"file", "source", "sha256", "size", "mtime_ns"}`.

    Raises:
        ContainerError: One is missing and cannot be made.
    """
    spec = config.get("containers", {})
    sources = {kind: spec[kind] for kind in KINDS if kind in spec} | {name: name for name in others}
    described = {}
    for kind, source in sources.items():
        image = image_file(source, read_containers(config).folder)
        if not image.exists():
            make_image(source, image)
        described[kind] = describe_image(require_image(image), source)
    return described


def image_digests(images: Mapping[str, Path | None]) -> dict[str, str]:
    """Digests of the images in use, by names such as `vllm-image`; a folder that is used as an image has none.

    Args:
        images: For each kind its image, or None where it runs bare.
    """
    described = {kind: describe_image(require_image(image)) for kind, image in images.items() if image}
    return {f"{kind}-image": facts["sha256"] or "a folder" for kind, facts in described.items()}


def make_image(source: str, image: Path) -> None:
    """Pull or build an image; it is there whole or not at all.

    Raises:
        ContainerError: Apptainer failed; its own words went to standard error.
    """
    if not is_made(source):
        require_image(image)
    executable, _ = find_apptainer()
    image.parent.mkdir(parents=True, exist_ok=True)
    unfinished = image.with_name(f".{image.name}.{os.getpid()}")
    definition = None if ADDRESS.fullmatch(source) else find_definition(source)
    where = source if definition is None else str(definition)
    # A definition names its files from where it belongs: those of containers/ from the project's folder.
    own = definition is not None and definition.is_relative_to(WORKFLOW)
    try:
        made = subprocess.run(
            [executable, "build", str(unfinished.absolute()), where], cwd=WORKFLOW if own else None, check=False
        )
        if made.returncode != 0:
            raise ContainerError(
                f"{image} could not be made from {where}: Apptainer says why above. It takes a host with a way out; some"
                " definitions take root. An image that was made elsewhere can be put there by hand."
            )
        unfinished.rename(image)
    finally:
        unfinished.unlink(missing_ok=True)


def find_definition(name: str) -> Path:
    """Path of a definition file: the campaign's own, or one of containers/.

    Raises:
        ContainerError: Neither is there; the message names those of containers/.
    """
    for path in (Path(name), WORKFLOW / "containers" / name):
        if path.is_file():
            return path
    known = sorted(path.name for path in (WORKFLOW / "containers").glob("*.def"))
    raise ContainerError(
        f"There is no definition {name!r} (from {Path.cwd()}). Definitions in containers/: {', '.join(known) or 'none'}."
        " Correct it under 'containers' in the config."
    )


def describe_image(image: Path, source: str | None = None) -> dict[str, Any]:
    """An image's file, digest, size and time; the digest comes from the note of `prepare_images` while size and time are the same."""
    state = image.stat()
    try:
        known = next(one for one in orjson.loads(NOTE.read_bytes()).values() if one["file"] == str(image))
        same = (known["size"], known["mtime_ns"]) == (state.st_size, state.st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        same = False
    if same:
        digest = known["sha256"]
    elif image.is_file():
        with image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        # An image that is a folder is being worked on: it has no digest.
        digest = None
    return {
        "file": str(image), "source": source or str(image), "sha256": digest, "size": state.st_size, "mtime_ns": state.st_mtime_ns,
    }  # fmt: skip
