"""Finds the user's own files that a task of lm-eval rests on: task files, their code and the data that they name.

They decide what is asked, so their content is part of it. Only what belongs to the task counts: an edit of a neighbour in
the same folder asks nothing again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from milepost.campaign.identity import DigestCache
from milepost.campaign.types import NemoTask
from milepost.errors import ConfigError, HarnessError

# The loaders of `datasets` that read files of this machine.
LOADERS = ("json", "csv", "text", "parquet", "arrow", "pandas", "xml")


class _Lenient(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML loader for lm-eval's task files, which name functions by tags (`!function utils.f`)."""


_Lenient.add_multi_constructor("!", lambda loader, suffix, node: None)


def include_folders(params: Mapping[str, Any], where: str = "the task's file") -> list[Path]:
    """The folders of lm-eval task files that a task names in `params.extra.args`.

    >>> include_folders({"extra": {"args": "--include_path harness"}})
    [PosixPath('harness')]
    """
    words = command_line(params, where)
    after = [value for name, value in pairwise(words) if name == "--include_path"]
    joined = [word.partition("=")[2] for word in words if word.startswith("--include_path=")]
    return [Path(folder) for folder in after + joined]


def command_line(params: Mapping[str, Any], where: str) -> list[str]:
    """The words of `params.extra.args`.

    Raises:
        ConfigError: It cannot be read as a command line.
    """
    try:
        # Without a text it would read the terminal.
        args = params.get("extra", {}).get("args") or ""
        return shlex.split(args)
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: params.extra.args cannot be read as a command line: {error}.") from None


def files_digest(task: NemoTask, cache: DigestCache) -> str | None:
    """Digest of all the user's own files that a task of NeMo Evaluator rests on; None where there are none.

    Args:
        task: The task.
        cache: Digests of files by name, size and time; the caller saves it.

    Raises:
        HarnessError: A folder or a data file is not there, or a task file cannot be read.
    """
    parts = [(path.name, cache.digest(path)) for path in local_files(task.eval_type, task.params)]
    tokenizer = Path(task.tokenizer or "")
    if task.tokenizer is not None and tokenizer.is_dir():
        parts += [(path.name, cache.digest(path)) for path in sorted(tokenizer.iterdir()) if "token" in path.name]
    if not parts:
        return None
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def local_files(eval_type: str, params: Mapping[str, Any]) -> list[Path]:
    """Find the user's own task files, code and data that a task rests on, as lm-eval will find them from this folder.

    Code may read further files by itself; those are not seen.
    """
    folders = include_folders(params)
    own = Path(eval_type.partition(":")[0])
    # From NeMo Evaluator 0.3 on, a benchmark may be a Python file.
    files = {own} if own.suffix == ".py" and own.is_file() else set()
    for folder in folders:
        if not folder.is_dir():
            raise HarnessError(
                f"The folder of lm-eval tasks {str(folder)!r} (--include_path) does not exist (from {Path.cwd()})."
                " Correct the path in the task's file; it starts in the campaign's folder."
            )
        configs = {path: _read(path) for path in sorted(folder.rglob("*.yaml"))}
        name = eval_type.partition(".")[2]
        used = _used(name, configs) or list(configs)
        for path in used:
            files.add(path)
            files.update(_data_files(path, configs[path]))
            files.update(_included(path, configs[path]))
        # All Python files beside it: finding out which module a function comes from, and what that imports, is not worth it.
        files.update(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
    return sorted(files)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_bytes(), Loader=_Lenient)  # noqa: S506 (it is safe)
    except yaml.YAMLError as error:
        raise HarnessError(f"{path}, a task file of lm-eval, is not YAML: {' '.join(str(error).split())}.") from None
    return data if isinstance(data, dict) else {}


def _used(name: str, configs: Mapping[Path, dict[str, Any]]) -> list[Path]:
    """Collect the task files behind a name: its own, and those of its members if it is a group or a tag."""
    used: list[Path] = []
    names = [name]
    while names:
        one = names.pop()
        for path, config in configs.items():
            if path not in used and one in _names(config):
                used.append(path)
                names += _members(config)
    return used


def _names(config: Mapping[str, Any]) -> list[str]:
    """The names by which a task file can be asked for: its task's or group's name, and its tags."""
    tags = config.get("tag")
    names = [config.get("task"), config.get("group"), *(tags if isinstance(tags, list) else [tags])]
    return [name for name in names if isinstance(name, str)]


def _members(config: Mapping[str, Any]) -> list[str]:
    """The names that a group's file lists as members, also in groups within it."""
    listed = config.get("task")
    if not isinstance(listed, list):
        return []
    return [name for one in listed for name in ([one] if isinstance(one, str) else [*_names(one), *_members(one)])]


def _included(path: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """The files that a task file takes over with `include`, and those that these include."""
    listed = config.get("include", [])
    for name in [listed] if isinstance(listed, str) else listed:
        other = Path(name) if Path(name).is_file() else path.parent / name
        if not other.is_file():
            raise HarnessError(f"{path} includes {name!r}, which is neither in this folder nor beside it.")
        content = _read(other)
        yield other
        yield from _data_files(other, content)
        yield from _included(other, content)


def _data_files(path: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """The local data files that a task file names, also for members that a group defines in its own file."""
    for member in config.get("task", []) if isinstance(config.get("task"), list) else []:
        if isinstance(member, dict):
            yield from _data_files(path, member)
    source, options = str(config.get("dataset_path", "")), config.get("dataset_kwargs") or {}
    if os.path.isdir(source):
        yield from (file for file in Path(source).rglob("*") if file.is_file() and not file.name.startswith("."))
    if source not in LOADERS:
        return
    for name in _strings(options.get("data_files", [])):
        if "://" in name:
            continue
        pattern = os.path.join(options.get("data_dir") or "", name)
        files = [Path(file) for file in glob.glob(pattern, recursive=True) if os.path.isfile(file)]
        if not files:
            raise HarnessError(
                f"{path} names the data file {pattern!r}, which does not exist (from {Path.cwd()}, where the harness runs)."
            )
        yield from files


def _strings(value: Any) -> list[str]:
    """Yield all strings in a nested value of strings, lists and mappings."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    return [value] if isinstance(value, str) else []
