"""Where the files of a checkpoint's model are, and what its tokenizer can do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from milepost.campaign.types import Checkpoint, Serving
from milepost.errors import ModelError


def find_model(ckpt: Checkpoint) -> Path | None:
    """Find the folder of a model's files; None if they are not on this machine (hub model not in the cache, endpoint).

    Raises:
        ModelError: A folder that is not there, or a hub model without a revision.
    """
    if ckpt.endpoint is not None:
        return None
    folder = Path(ckpt.model)
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # a name that is longer than a file's may be
        raise ModelError(
            f"Checkpoint {ckpt.name!r}: the model folder {ckpt.model[:80]!r} cannot be looked at: {error.strerror}."
            " Correct the column 'model'."
        ) from None
    if is_folder:
        if not (folder / "config.json").is_file():
            adapter = (folder / "adapter_config.json").is_file()
            advice = " It is an adapter: merge it into its base, and name the merged folder (docs/checkpoints.md)."
            raise ModelError(
                f"Checkpoint {ckpt.name!r}: {folder} holds no config.json, so it is no model that vLLM can serve."
                f"{advice if adapter else ''}"
            )
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", ckpt.model) or folder.parent.is_dir():
        raise ModelError(
            f"Checkpoint {ckpt.name!r}: the model folder {ckpt.model} does not exist (from {Path.cwd()})."
            " Correct the column 'model', or take the row out."
        )
    if not ckpt.revision or not re.fullmatch(r"[0-9a-f]{40}", ckpt.revision):
        raise ModelError(
            f"Checkpoint {ckpt.name!r}: {ckpt.model} is no folder here. As the name of a hub model it needs its commit"
            " (40 hexadecimal digits) in the column 'revision', or its numbers would belong to no certain model."
        )
    snapshot = hub_home(ckpt) / "hub" / f"models--{ckpt.model.replace('/', '--')}" / "snapshots" / ckpt.revision
    return snapshot if snapshot.is_dir() else None


def hub_home(ckpt: Checkpoint) -> Path:
    """Folder of the Hugging Face hub's cache, as the checkpoint's server sees it."""
    named = ckpt.serving.env.get("HF_HOME") or os.environ.get("HF_HOME")
    return Path(named).absolute() if named else Path.home() / ".cache" / "huggingface"


def has_chat_template(folder: Path, serving: Serving) -> bool:
    """Whether chat requests can be served: a template in the options, beside the tokenizer or inside its configuration."""
    if "chat-template" in serving.vllm_args:
        return True
    tokenizer = Path(str(serving.vllm_args.get("tokenizer", folder)))
    if any((tokenizer / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        return bool(json.loads((tokenizer / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"{tokenizer / 'tokenizer_config.json'} is no JSON object ({error}), so it cannot be seen whether the model has a"
            " chat template. Copy the model again, or correct the file."
        ) from None
