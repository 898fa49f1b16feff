"""Whether the files of every model are there, can be opened, and are whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

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
# What stands beside weights under the same ending, and is none.
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin")
HEADER = 100 * 1024 * 1024  # bytes; the largest header that safetensors allows


SHOWN = 5  # of the models that have a problem, so many have a line of their own


def check_models(campaign: Campaign) -> Iterator[Check]:
    """Every model's files are there, can be opened, and are whole."""
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
    """What is wrong with a model's files, one sentence each."""
    try:
        files = {path.name: path for path in folder.iterdir() if path.is_file() or path.is_symlink()}
    except OSError as error:
        return [f"{folder} cannot be read: {error.strerror}"]
    problems = [problem for path in files.values() if not path.name.startswith(".") and (problem := unreadable(path))]
    weights = [path for name, path in files.items() if path.suffix in WEIGHTS and name not in NO_WEIGHTS]
    if not weights:
        problems.append(f"{folder} holds no weights ({', '.join(WEIGHTS)})")
    for index in (path for name, path in files.items() if name.endswith(".index.json")):
        problems += missing_parts(index, files)
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
    """Why a file cannot be read to its end, or None. Of weights in safetensors, its header says where that is."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".safetensors":
                file.read(1)
                return None
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
    """Files of weights that a model's index names and that are not there."""
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{index} cannot be read as an index of weights"]
    missing = sorted(named - set(files))
    return [f"{index.parent} lacks {listed(missing)}, of {len(named)} files that {index.name} names"] if missing else []
