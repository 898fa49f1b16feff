"""What a checkpoint's chat template does that scoring must know: whether answers begin within a reasoning trace.

The template is applied here as transformers does, to one short question, in a sandbox; no model and no tokenizer is loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from milepost.campaign.identity import DigestCache
from milepost.campaign.models import find_model
from milepost.campaign.types import Checkpoint
from milepost.reasoning import Marks, opens_trace

_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_QUESTION = [{"role": "user", "content": "What is two and two?"}]
# A tag of transformers' own, which marks what a model is trained on and writes nothing.
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_KNOWN = {True: "opens", False: "does not open", None: "unknown"}


def opens_reasoning(ckpt: Checkpoint, cache: DigestCache, marks: Marks = ()) -> bool | None:
    """Whether the checkpoint's chat template ends within a reasoning trace, so that its answers begin in one.

    Args:
        ckpt: The checkpoint.
        cache: Digests of files; it keeps what was found, as planning asks each time.
        marks: Further marks of traces than the known ones.

    Returns:
        None where it cannot be known: others serve the model, its files are not here, or its template is none.
    """
    if ckpt.endpoint is not None:
        return None
    options = ckpt.serving.vllm_args
    if options.get("reasoning-parser"):
        return False  # the server hands the trace over apart
    folder = find_model(ckpt)
    if folder is None:
        return None
    tokenizer = Path(str(options.get("tokenizer", folder)))
    files = [tokenizer / name for name in _FILES if (tokenizer / name).is_file()]
    given = str(options.get("chat-template", ""))
    if given and len(given) < 4096 and Path(given).is_file():
        files.append(Path(given))
    arguments = options.get("default-chat-template-kwargs", {})
    decides = [[(path.name, cache.digest(path)) for path in files], given, arguments, list(marks)]
    key = f"reasoning|{hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()}"
    if key not in cache.digests:
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
            opens = _ends_in_trace(tokenizer, given, dict(arguments), marks)
        except Exception:  # a template may fail in any way; what it opens is then not opens_trace
            opens = None
        cache.digests[key] = _KNOWN[opens]
        cache.changed = True
    return {said: opens_trace for opens_trace, said in _KNOWN.items()}[cache.digests[key]]


def template_of(ckpt: Checkpoint) -> str | None:
    """The text of a checkpoint's chat template; None where it has none, or its files are not here.

    Raises:
        OSError, ValueError: Its files cannot be read.
    """
    folder = find_model(ckpt)
    if folder is None:
        return None
    options = ckpt.serving.vllm_args
    tokenizer = Path(str(options.get("tokenizer", folder)))
    return _template(tokenizer, str(options.get("chat-template", "")), _read(tokenizer / "tokenizer_config.json"))


def model_record(
    identity: Mapping[str, Any], ckpt: Checkpoint, config: Mapping[str, Any], cache: DigestCache
) -> dict[str, Any]:
    """What results/models/{ckpt}.json holds: the identity, and what scoring must know of the model's reasoning."""
    marks = [(one, other) for one, other in config.get("reasoning_marks", [])]
    opened = opens_reasoning(ckpt, cache, marks)
    known: dict[str, Any] = {} if opened is None else {"opened": opened}
    if marks:
        known["marks"] = marks
    return {**identity, **({"reasoning": known} if known else {})}


def _ends_in_trace(tokenizer: Path, given: str, arguments: Mapping[str, Any], marks: Marks) -> bool | None:
    config = _read(tokenizer / "tokenizer_config.json")
    template = _template(tokenizer, given, config)
    if template is None:
        return None
    without, rendered = (
        _render(template, config, {**arguments, "add_generation_prompt": add}) for add in (False, True)
    )
    # What opens the answer; the conversation before it may speak of marks.
    opening = rendered[len(without) :] if rendered.startswith(without) else rendered[-200:]
    return opens_trace(opening, marks)


def _template(tokenizer: Path, given: str, config: Mapping[str, Any]) -> str | None:
    """The text of the template: the option's, else the tokenizer's own."""
    if given:
        return Path(given).read_text(encoding="utf-8") if len(given) < 4096 and Path(given).is_file() else given
    if (tokenizer / "chat_template.jinja").is_file():
        return (tokenizer / "chat_template.jinja").read_text(encoding="utf-8")
    template = _read(tokenizer / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(template, list):
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    return template if isinstance(template, str) else None


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def _render(template: str, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    # Here, not above: planning does without it where all is known.
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals |= {"raise_exception": fail, "strftime_now": lambda form: datetime.now().strftime(form)}
    tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and value
    }
    text = environment.from_string(_GENERATION.sub("", template)).render(
        messages=_QUESTION, tools=None, documents=None, **{**tokens, **arguments}
    )
    return str(text)
