"""Whether vLLM would take what a campaign gives it: its options, and lengths that fit each other and the model."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from milepost.campaign.models import find_model
from milepost.campaign.sampling import REST, longest_answer
from milepost.campaign.types import Campaign, Checkpoint, NativeTask, NemoTask, Serving, Task
from milepost.endpoints.specs import load_endpoints
from milepost.endpoints.vllm import command_line
from milepost.errors import ContainerError, EnvironmentMissingError, MilepostError, did_you_mean, listed
from milepost.preflight.checks import Check
from milepost.runtime.containers import Containers, inside, read_containers
from milepost.runtime.environments import environment_python

# No version of vLLM knows this option: its command line ends at once, and names all that it does not know.
PROBE = "--milepost-asks-what-is-known"
PROBE_S = 180.0
KEPT = "vLLM 0.32.0"  # whose options stand in vllm_options.txt
UNKNOWN = re.compile(r"error: unrecognized arguments: (?P<words>.*)")
REFUSED = re.compile(r"error: (?P<said>argument .*)")
# The names that configurations have for the longest text of a model, as vLLM looks for them.
LENGTHS = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_length", "max_seq_len", "seq_length",
    "seq_len", "max_target_positions",
)  # fmt: skip
UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def check_serving(campaign: Campaign) -> list[Check]:
    """All checks of how models are served."""
    return [*check_options(campaign), *check_lengths(campaign)]


def check_options(campaign: Campaign) -> Iterator[Check]:
    """Check that the vLLM that will serve knows every option, in the environment or in the image."""
    containers = read_containers(campaign.config)
    users: dict[tuple[str, ...], list[str]] = {}
    for name, serving in _served(campaign):
        if serving.vllm_args:
            users.setdefault(tuple(command_line(serving.vllm_args)), []).append(name)
    if not users:
        return
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda words: ask_vllm(words, containers), users))
    known = 0
    for (words, names), (reply, problem) in zip(users.items(), answers, strict=True):
        what = f"vLLM's options of {listed(names)}"
        if reply is None and (strange := unknown_of_old(words)):
            yield Check(
                what, "failed", f"{KEPT} does not know {strange}, and the vLLM that serves could not be asked here: {problem}",
                "correct vllm_args of the row, its model profile or the endpoint; if your vLLM knows them, pass over this",
            )  # fmt: skip
        elif reply is None:
            yield Check(what, "skipped", f"{KEPT} knows them; the vLLM that serves could not be asked here: {problem}")
        elif problem:
            yield Check(what, "failed", problem, "correct vllm_args of the row, its model profile or the endpoint")
        else:
            known += len(names)
    if known:
        yield Check(
            "vLLM's options", "ok", f"known to the vLLM that serves, for {known} of {sum(map(len, users.values()))}"
        )


def ask_vllm(options: Iterable[str], containers: Containers) -> tuple[str | None, str]:
    """What vLLM says of options, and what is wrong with them; None and why where it cannot be asked."""
    brought = containers.vllm is not None and not containers.bind_environments
    try:
        python = "python3" if brought else str(environment_python("vllm"))
        words = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", "none", *options, PROBE]
        image = None if containers.vllm is None else str(containers.vllm.absolute())
        if image is not None and not Path(image).exists():
            return None, f"{image} is not there"
        binds = [] if brought or image is None else [Path(python).parents[3]]
        command, env = inside(words, image, env={"VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": ""}, binds=binds)
        asked = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except (MilepostError, EnvironmentMissingError, ContainerError) as error:
        return None, str(error)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{type(error).__name__}: {error}"
    return read_answer(asked.stdout + asked.stderr)


def unknown_of_old(words: Iterable[str]) -> str:
    """Options that the version of vLLM whose options are kept here does not know, with near ones."""
    kept = Path(__file__).with_name("vllm_options.txt").read_text().splitlines()[1:]
    known = " ".join(kept).split()
    given = [word[2:].partition(".")[0].removeprefix("no-") for word in words if word.startswith("--")]
    strange = [name for name in given if not any(option.startswith(name) for option in known)]
    hints = [did_you_mean(name, known) for name in strange]
    return "".join(f"{name!r}{hint and f' ({hint.strip()})'}, " for name, hint in zip(strange, hints, strict=True))[:-2]


def read_answer(said: str) -> tuple[str | None, str]:
    """What the command line of vLLM says of the options before the probe; None if it did not come so far.

    >>> read_answer("api_server.py: error: unrecognized arguments: --dtpe --milepost-asks-what-is-known float32")[1]
    'vLLM does not know: --dtpe'
    """
    if unknown := UNKNOWN.search(said):
        words = [word for word in unknown["words"].split() if word.startswith("--") and word != PROBE]
        # vLLM puts what stands behind a dot into JSON before it looks.
        if not words:
            return said, ""
        hints = "".join(did_you_mean(word, set(re.findall(r"--[a-z][\w-]+", said)) - {*words, PROBE}) for word in words)
        return said, f"vLLM does not know: {', '.join(words)}{'.' + hints.rstrip('.') if hints else ''}"
    if refused := REFUSED.search(said):
        return said, f"vLLM refuses: {refused['said'][:300]}"
    last = [line for line in said.splitlines() if line.strip()]
    return None, last[-1][:200] if last else "it said nothing"


def check_lengths(campaign: Campaign) -> Iterator[Check]:
    """Check that texts are not longer than models take, and that answers leave room for a question."""
    sound = 0
    for ckpt in campaign.checkpoints.values():
        if ckpt.endpoint is not None:
            continue
        problems = list(_lengths_of(ckpt, campaign))
        yield from problems
        sound += not problems
    if sound:
        yield Check("lengths", "ok", f"of texts and answers, as far as {sound} models' configurations say them")


def _lengths_of(ckpt: Checkpoint, campaign: Campaign) -> Iterator[Check]:
    limit = model_length(ckpt)
    given = ckpt.serving.vllm_args.get("max-model-len")
    asked = read_length(given)
    allowed = {**os.environ, **ckpt.serving.env}.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").lower() in ("1", "true")
    if given is not None and asked is None and str(given).lower() not in ("auto", "-1"):
        yield Check(f"max-model-len of {ckpt.name}", "failed", f"{given!r} is no length", "give a number of tokens")
        return
    if asked is not None and limit is not None and asked > limit and not allowed:
        yield Check(
            f"max-model-len of {ckpt.name}", "failed", f"{asked} tokens, and the model takes {limit} (its config.json)",
            f"give max-model-len {limit} or less",
        )  # fmt: skip
        return
    context = asked if asked is not None else limit
    if context is None:
        return
    for name, task in campaign.tasks.items():
        longest = _longest_answer(task)
        if longest is not None and longest >= context:
            yield Check(
                f"lengths of {ckpt.name}", "failed",
                f"task {name} asks for answers of up to {longest} tokens, and question and answer together may have {context}",
                "lower max_tokens (max_new_tokens) in the task's file, or raise max-model-len",
            )  # fmt: skip


def _longest_answer(task: Task) -> int | None:
    """How many tokens an answer has to have room for; None where only the harness knows, or the context says it."""
    if isinstance(task, NemoTask):
        return task.params.get("max_new_tokens")
    # Answers that are cut to what the context leaves are never too long for it.
    if not isinstance(task, NativeTask) or task.sampling.get("max_tokens") == REST:
        return None
    return longest_answer(task.sampling)


def model_length(ckpt: Checkpoint) -> int | None:
    """The longest text that a model's configuration allows; None where it does not say, or is not here."""
    try:
        folder = find_model(ckpt)
        folder = Path(str(ckpt.serving.vllm_args.get("hf-config-path", folder))) if folder else None
        config = orjson.loads((folder / "config.json").read_bytes()) if folder else {}
    except (MilepostError, OSError, ValueError):
        return None
    overrides = ckpt.serving.vllm_args.get("hf-overrides", {})
    if isinstance(overrides, str):
        try:
            overrides = orjson.loads(overrides)
        except ValueError:
            return None
    if not isinstance(config, dict) or not isinstance(overrides, dict):
        return None
    if any(name.startswith("hf-overrides.") for name in ckpt.serving.vllm_args):
        return None
    config = {**config, **overrides}
    inner = config.get("text_config")
    text: dict[str, Any] = {**config, **(inner if isinstance(inner, dict) else {})}
    lengths: list[int] = [text[name] for name in LENGTHS if isinstance(text.get(name), int)]
    if not lengths:
        return None
    scalings = [text.get(name) for name in ("rope_scaling", "rope_parameters")]
    factors = [_factor(scaling) for scaling in scalings if isinstance(scaling, dict)]
    # Whether a factor counts once more depends on its kind and vLLM's version: what may fit is no error.
    longest = int(min(lengths) * max([1.0, *factors]))
    further = text.get("model_max_length")
    return max(longest, further) if isinstance(further, int) else longest


def _factor(scaling: Mapping[str, Any]) -> float:
    inner = [_factor(value) for value in scaling.values() if isinstance(value, dict)]
    value = scaling.get("factor")
    return max([float(value) if isinstance(value, int | float) else 1.0, *inner])


def read_length(value: Any) -> int | None:
    """A number of tokens as vLLM reads it; None for one that it finds out by itself, and for what is none.

    >>> read_length("8k"), read_length("8K"), read_length(512), read_length("1.5K"), read_length("auto")
    (8000, 8192, 512, 1536, None)
    """
    fits = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kKmMgG]?)", str(value))
    if not fits:
        return None
    return int(float(fits[1]) * UNITS.get(fits[2], 1)) or None


def _served(campaign: Campaign) -> Iterator[tuple[str, Serving]]:
    """What vLLM serves for this campaign: checkpoints and shared endpoints."""
    for ckpt in campaign.checkpoints.values():
        if ckpt.endpoint is None:
            yield ckpt.name, ckpt.serving
    for name, spec in load_endpoints().items():
        if spec.ours:
            yield f"endpoint {name}", spec.serving
