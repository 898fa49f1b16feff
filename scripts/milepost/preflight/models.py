"""Checks that the files of every model are there, can be opened, and are whole."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from milepost.campaign.identity import IGNORED
from milepost.campaign.models import find_model
from milepost.campaign.types import Campaign, Checkpoint
from milepost.errors import MilepostError, listed
from milepost.preflight.checks import Check

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "tiktoken.model",
    "spiece.model",
)
# What training leaves beside weights under the same endings, and an adapter's, which are none by themselves.
NO_WEIGHTS = re.compile(
    "(training_args|optimizer|scheduler|rng_state|scaler|adapter_model|random_states|zero_pp_rank).*"
)
PART = re.compile(r"(?P<name>.*)-(?P<number>\d+)-of-(?P<all>\d+)(?P<ending>\.\w+)")
HEADER = 100 * 1024 * 1024  # bytes; the largest header that safetensors allows


SHOWN = 5  # of the models that have a problem, so many have a line of their own


def check_models(campaign: Campaign) -> Iterator[Check]:
    """Check that every model's files are there, can be opened, and are whole."""
    problems: list[tuple[str, str]] = []
    absent: list[Checkpoint] = []
    served_here = [ckpt for ckpt in campaign.checkpoints.values() if ckpt.endpoint is None]
    for ckpt in served_here:
        try:
            folder = find_model(ckpt)
        except MilepostError as error:
            problems.append((ckpt.name, str(error)))
            continue
        if folder is None:
            absent.append(ckpt)
        else:
            problems += [(ckpt.name, problem) for problem in inspect_model(folder, ckpt)]
    advice = "copy it again, ask its owner for the right to read it, or take the row out"
    for name, problem in problems[:SHOWN]:
        yield Check(f"model of {name}", "failed", problem, advice)
    if len(problems) > SHOWN:
        rest = list(dict.fromkeys(name for name, _ in problems[SHOWN:]))
        yield Check("more models", "failed", f"{len(problems) - SHOWN} more like these, in {listed(rest)}", advice)
    for ckpt in absent:
        switch = {**os.environ, **ckpt.serving.env}.get("HF_HUB_OFFLINE", "0")
        offline = switch.lower() not in ("", "0", "false", "no", "off")
        python = "envs/vllm/.venv/bin/hf"
        yield Check(
            f"model of {ckpt.name}", "failed" if offline else "warning",
            f"{ckpt.model} is not in the hub's cache{', and HF_HUB_OFFLINE is set' if offline else ': its job would fetch it, which takes a node with a way out'}",
            f"{python} download {ckpt.model} --revision {ckpt.revision}, with HF_HOME on a folder that the nodes see",
        )  # fmt: skip
    sound = len(served_here) - len(absent) - len({name for name, _ in problems})
    if sound:
        yield Check("models", "ok", f"{sound} of {len(served_here)}: configuration, tokenizer and weights can be read")


def inspect_model(folder: Path, ckpt: Checkpoint) -> list[str]:
    """List what is wrong with a model's files, as one sentence each."""
    try:
        files = {path.name: path for path in folder.iterdir() if path.is_file() or path.is_symlink()}
    except OSError as error:
        return [f"{folder} cannot be read: {error.strerror}"]
    problems = [problem for path in files.values() if not path.name.startswith(".") and (problem := unreadable(path))]
    problems += [problem for name, path in files.items() if name[0] != "." and (problem := no_json(path))]
    weights = [path for name, path in files.items() if path.suffix in WEIGHTS and not NO_WEIGHTS.fullmatch(name)]
    if not weights and "adapter_config.json" in files:
        problems.append(f"{folder} holds an adapter alone: merge it into its base, and name the merged folder")
    elif not weights:
        problems.append(f"{folder} holds no weights ({', '.join(WEIGHTS)})")
    indices = [path for name, path in files.items() if name.endswith(".index.json")]
    for index in indices:
        problems += missing_parts(index, files)
    if not indices:
        problems += missing_numbers(folder, files)
    tokenizer = Path(str(ckpt.serving.vllm_args.get("tokenizer", folder)))
    if tokenizer == folder or tokenizer.is_dir():
        beside = {path.name for path in tokenizer.iterdir()}
        if not beside & {*TOKENIZERS, "tokenizer_config.json"} and not any(path.suffix == ".gguf" for path in weights):
            problems.append(f"{tokenizer} holds no tokenizer ({', '.join(TOKENIZERS)})")
    template = str(ckpt.serving.vllm_args.get("chat-template", ""))
    if template.endswith((".jinja", ".jinja2", ".json", ".txt")) and not Path(template).is_file():
        problems.append(f"the chat template {template} does not exist (from {Path.cwd()})")
    return problems


def unreadable(path: Path) -> str | None:
    """Why a file cannot be read to its end, or None; the header of safetensors weights says where the end should be."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".safetensors":
                empty = not file.read(1) and path.suffix in WEIGHTS
                return f"{path} is empty" if empty else None
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER, size - 8):
                return f"{path} is no safetensors file, or cut short"
            tensors = json.loads(file.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0
            )
            if size < 8 + length + end:
                return f"{path} is cut short: {size} bytes, and its header speaks of {8 + length + end}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return f"{path} is no safetensors file: its header cannot be read"
    return None


def missing_parts(index: Path, files: Iterable[str]) -> list[str]:
    """Files of weights that a model's index names but that are missing."""
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{index} cannot be read as an index of weights"]
    missing = sorted(named - set(files))
    if missing:
        return [f"{index.parent} lacks {listed(missing)}, of {len(named)} files that {index.name} names"]
    # vLLM passes over weights that the index does not name.
    kinds = {_kind(name) for name in named}
    unnamed = sorted(name for name in files if _kind(name) in kinds - {None} and name not in named)
    if unnamed:
        return [f"{index} does not name {listed(unnamed)}, whose weights would be left out"]
    return missing_numbers(index.parent, files)


def missing_numbers(folder: Path, files: Iterable[str]) -> list[str]:
    """Parts of weights that the other parts' own names speak of (3 of 4), and that are not there."""
    there: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for name in files:
        if (kind := _kind(name)) and Path(name).suffix in WEIGHTS:
            there[kind].add(int(PART.fullmatch(name)["number"]))  # type: ignore[index]
    problems = []
    for (name, total, ending), numbers in there.items():
        first = 0 if 0 in numbers else 1
        missing = sorted(set(range(first, int(total) + first)) - numbers)
        names = [f"{name}-{number:0{len(total)}}-of-{total}{ending}" for number in missing]
        if names:
            problems.append(f"{folder} lacks {listed(names)}, of {int(total)} parts by their names")
    return problems


def _kind(name: str) -> tuple[str, str, str] | None:
    """What the parts of the same weights have in common: name, number of parts, ending."""
    fits = PART.fullmatch(name)
    return (fits["name"], fits["all"], fits["ending"]) if fits else None


def no_json(path: Path) -> str | None:
    """What is wrong with a file of a model's configuration or tokenizer that should hold a JSON object."""
    if path.suffix != ".json" or path.name in IGNORED:
        return None
    try:
        content = orjson.loads(path.read_bytes())
    except OSError:
        return None  # said already
    except ValueError as error:
        return f"{path} is no JSON: {error}"
    if path.name == "config.json" and not isinstance(content, dict):
        return f"{path} holds no JSON object, and should be a model's configuration"
    return None
