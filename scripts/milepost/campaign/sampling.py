"""What decides how an answer is drawn beside the task: the settings that a model brings along, and those of its server.

vLLM takes top_k, repetition_penalty and the like from a model's generation_config.json for every request that does not
name them, so two checkpoints of one run would be sampled differently. Servers are started so that they add nothing, and
keep the model's stop tokens all the same (`--generation-config vllm`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.types import Checkpoint, Serving

# What a request that says nothing gets: the plain distribution of the model.
NEUTRAL: dict[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
# Further values that mean the same: vLLM's own word for all tokens.
SAME_AS_NEUTRAL = {"top_k": -1}
OPTION, OVERRIDE = "generation-config", "override-generation-config"
SOURCE = "from"  # in a task's sampling: whose settings hold where it says nothing
MODEL = "model"
REST = "rest"  # as max_tokens: what the model's context leaves
AT_MOST = "at_most"  # beside it: and not more than that


def task_sampling(given: Any) -> Any:
    """A task's `sampling` with its short form written out.

    >>> task_sampling("model")
    {'from': 'model'}
    """
    return {SOURCE: MODEL} if given == MODEL else given


def longest_answer(sampling: Mapping[str, Any]) -> int | None:
    """How many tokens an answer may have at most; None where only the model's context says it.

    >>> longest_answer({"max_tokens": 9}), longest_answer({"max_tokens": "rest", "at_most": 7}), longest_answer({"max_tokens": "rest"})
    (9, 7, None)
    """
    limit = sampling.get("max_tokens")
    limit = sampling.get(AT_MOST) if limit == REST else limit
    return None if limit is None else int(limit)


def own_sampling(serving: Serving, folder: Path | None) -> dict[str, Any]:
    """What a model's makers want it sampled with; neutral values are left out.

    Args:
        serving: Its options: they may name another file of the kind, or settings in its place.
        folder: Where its files are; None if they are not here.
    """
    option = str(serving.vllm_args.get(OPTION, "auto"))
    sources = [Path(option)] if option not in ("auto", "vllm") else []
    if option == "auto" and folder is not None:
        sources = [Path(str(serving.vllm_args.get("hf-config-path", folder)))]
    settings = {**(_read(sources[0]) if sources else {}), **_overrides(serving)}
    return {name: value for name, value in settings.items() if name in NEUTRAL and not _is_neutral(name, value)}


def server_sampling(serving: Serving, folder: Path | None) -> dict[str, Any]:
    """What the server adds to a request that says nothing: nothing, unless the campaign's own options have it do so."""
    if OPTION in serving.vllm_args:
        return own_sampling(serving, folder)
    return {
        name: value for name, value in _overrides(serving).items() if name in NEUTRAL and not _is_neutral(name, value)
    }


def server_options(serving: Serving) -> dict[str, Any]:
    """The option that keeps a server from adding anything, where the campaign's own options do not say otherwise."""
    return {} if OPTION in serving.vllm_args else {OPTION: "vllm"}


def bears_on_answers(ckpt: Checkpoint, folder: Path | None) -> bool:
    """Whether a model brings sampling settings along, which it is served without, so that this is part of what it is.

    Of a hub model nobody knows before its files are here, and what it is must not depend on that.
    """
    serving = ckpt.serving
    if OPTION in serving.vllm_args or serving.vllm_args.get("runner") == "pooling":
        return False
    if folder is None or folder != Path(ckpt.model):
        return True
    return own_sampling(serving, folder) != server_sampling(serving, folder)


def effective(sampling: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by which answers are drawn: a task's, and those that hold where it says nothing.

    Args:
        sampling: A task's.
        base: What holds where it says nothing, by whose settings these are (see `bases`).

    >>> effective({"from": "model", "max_tokens": 8}, {"task": {"top_p": 1.0}, "model": {"top_p": 0.9}})
    {'top_p': 0.9, 'max_tokens': 8}
    """
    asked = {name: value for name, value in sampling.items() if name != SOURCE}
    return {**base.get(str(sampling.get(SOURCE, "task")), {}), **asked}


def bases(serving: Serving, folder: Path | None) -> dict[str, dict[str, Any]]:
    """The sampling settings that hold where a task says nothing: one set for most tasks, one for those that take the model's."""
    added = {**NEUTRAL, **server_sampling(serving, folder)}
    return {"task": added, MODEL: {**added, **own_sampling(serving, folder)}}


def _overrides(serving: Serving) -> dict[str, Any]:
    given = serving.vllm_args.get(OVERRIDE, {})
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = {}
    dotted = {
        name.removeprefix(f"{OVERRIDE}."): value
        for name, value in serving.vllm_args.items()
        if name.startswith(f"{OVERRIDE}.")
    }
    return {**(given if isinstance(given, dict) else {}), **dotted}


def _read(folder: Path) -> dict[str, Any]:
    """The settings in a model's folder; vLLM takes none from one that it cannot read, nor from elsewhere."""
    try:
        content = json.loads((folder / "generation_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_neutral(name: str, value: Any) -> bool:
    return value is None or value in (NEUTRAL[name], SAME_AS_NEUTRAL.get(name))
