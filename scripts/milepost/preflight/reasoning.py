"""Which of vLLM's reasoning parsers fits a model: by the marks in its chat template, its family, and what the template opens.

Scoring takes reasoning out by itself where it knows the marks. A parser hands it over apart, which also tells a server's own
counts and harnesses of it; a parser that vLLM does not know costs a server's start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

import orjson

from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.models import find_model
from milepost.campaign.templates import opens_reasoning, template_of
from milepost.campaign.types import Campaign, Checkpoint
from milepost.endpoints.shared_spec import SharedSpec
from milepost.endpoints.specs import load_endpoints
from milepost.errors import MilepostError, did_you_mean, listed
from milepost.preflight.checks import Check
from milepost.reasoning import MARKS
from milepost.runtime.containers import read_containers
from milepost.runtime.environments import environment_python

# Of vLLM 0.32.0; an installed one is asked for its own.
KEPT = (
    "cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45 gemma4 glm45 glm47 granite"
    " granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 inkling k2_horizon kimi_k2 kimi_k3 ling3 mimo minicpmv"
    " minimax_m2 minimax_m2_append_think minimax_m3 mistral muse_glimmer nemotron_v3 olmo3 openai_gptoss plamo3"
    " poolside_v1 qwen3 seed_oss step3 step3p5"
).split()
# Marks that one parser alone is for.
OF_MARK = {
    "[THINK]": "mistral",
    "<seed:think>": "seed_oss",
    "<mm:think>": "minimax_m3",
    "<|START_THINKING|>": "cohere_command3",
    "<|channel|>": "openai_gptoss",
    "<|channel>thought": "gemma4",
    "<ifm|think>": "k2_horizon",
    "<|open|>think<|sep|>": "kimi_k3",
}
# Families whose parser has another name than they have in config.json.
OF_FAMILY = {"glm4_moe": "glm45", "hunyuan_v1_moe": "hunyuan_a13b", "nemotron_h": "nemotron_v3"}
# Any family's: all before the closing mark is reasoning; or what stands between both marks.
ALWAYS, SOMETIMES = "deepseek_r1", "qwen3"


def check_reasoning(campaign: Campaign) -> Iterator[Check]:
    """Models that reason, with the parser that fits; a parser that the serving vLLM does not know."""
    known, asked = known_parsers(campaign)
    fitting: dict[tuple[str, str], list[str]] = {}
    for name, ckpt in _served(campaign):
        given = ckpt.serving.vllm_args.get("reasoning-parser")
        if given is None:
            with suppress(MilepostError, OSError, ValueError):
                found = fitting_parser(ckpt, known)
                if found is not None:
                    fitting.setdefault(found, []).append(name)
        elif given not in known and "reasoning-parser-plugin" not in ckpt.serving.vllm_args:
            yield Check(
                f"reasoning parser of {name}",
                "failed" if asked else "warning",
                f"{'the vLLM that serves' if asked else 'vLLM 0.32.0'} has none called {given!r}.{did_you_mean(str(given), known)}",
                "correct reasoning-parser in vllm_args of the row, its model profile or the endpoint",
            )
    for (mark, parser), names in fitting.items():
        yield Check(
            f"reasoning of {listed(names)}", "ok",
            f"begins with {mark}, and scoring takes it out; vLLM's parser for it is {parser} (vllm_args: --reasoning-parser {parser})",
        )  # fmt: skip


def fitting_parser(ckpt: Checkpoint, known: Sequence[str] = KEPT) -> tuple[str, str] | None:
    """The mark that a model's reasoning begins with and the parser that fits; None where its template speaks of none."""
    folder = find_model(ckpt)
    template = (template_of(ckpt) or "").lower()
    marks = [*OF_MARK, *(mark for mark, _ in MARKS if mark not in OF_MARK)]
    # The closing mark is enough: a template may only take earlier traces out of the conversation.
    closing = dict(MARKS)
    spoken = (mark for mark in marks if mark.lower() in template or closing.get(mark, mark).lower() in template)
    mark = next(spoken, None)
    if folder is None or mark is None:
        return None
    own = OF_MARK.get(mark)
    if own is not None:
        return (mark, own) if own in known else None
    family = str(orjson.loads((folder / "config.json").read_bytes()).get("model_type", ""))
    opened = bool(opens_reasoning(ckpt, DigestCache(CACHE)))
    # A family's name begins with its parser's: qwen3_moe, ernie4_5_moe, granitemoehybrid.
    named = [one for one in known if _letters(family).startswith(_letters(one))]
    fits = OF_FAMILY.get(family) or max(named, key=len, default=ALWAYS if opened else SOMETIMES)
    if opened and fits == "deepseek_v3":
        fits = ALWAYS  # deepseek_v3 has to be told by each request that the model reasons
    return (mark, fits) if fits in known and mark == "<think>" else None


def known_parsers(campaign: Campaign) -> tuple[list[str], bool]:
    """The parsers of the vLLM that serves, and whether it could be asked: one in an image of its own is not."""
    containers = read_containers(campaign.config)
    if containers.vllm is None or containers.bind_environments:
        with suppress(MilepostError, OSError):
            for path in (
                environment_python("vllm").parents[1].glob("lib/python*/site-packages/vllm/reasoning/__init__.py")
            ):
                found = re.findall(r'^    "(\w+)": \(', path.read_text(), re.MULTILINE)
                if found:
                    return found, True
    return list(KEPT), False


def _letters(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


def _served(campaign: Campaign) -> Iterator[tuple[str, Checkpoint]]:
    """What vLLM serves for this campaign and chats: checkpoints and shared endpoints."""
    yield from ((ckpt.name, ckpt) for ckpt in campaign.checkpoints.values() if ckpt.endpoint is None)
    for name, spec in load_endpoints().items():
        if isinstance(spec, SharedSpec) and spec.kind == "chat":
            yield f"endpoint {name}", spec.as_checkpoint()
