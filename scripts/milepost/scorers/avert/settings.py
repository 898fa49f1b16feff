"""The settings of A-VERT's comparisons: which model, by which interface, with which words around the texts.

A task's `scorer` decides. Where it names no endpoint, the environment variables of the original program do, so that its
users can move; without either, it is the embedder that comes with Milepost.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from milepost.embedding.servers import Api
from milepost.endpoints import Endpoint
from milepost.errors import ConfigError, did_you_mean
from milepost.scorers.avert.verdict import grouping_of

Method = Literal["embedding", "rerank"]

BUILT_IN = "minilm"
INSTRUCTION = (
    "Find the document that best represents the meaning of the query. Pay attention to doubts, and to exact numbers, "
    "dates and symbols."
)
# The form that the model cards of Qwen3-Reranker give (Apache-2.0).
_QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n <Instruct>: {instruction}\n'
    "<Query>: {query}\n",
    "<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
TEMPLATES: Mapping[str, tuple[str | None, str | None]] = {
    "empty": (None, None),
    "qwen3-reranker": _QWEN3,
    "embedding-with-instruction": ("{instruction}{query}", None),
}
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class Template:
    """The words around a query and around a document; None leaves a text as it is."""

    query: str | None
    document: str | None
    instruction: str

    def queried(self, text: str) -> str:
        """Put a query into its template."""
        return _filled(self.query, "{query}", text, self.instruction)

    def documented(self, text: str) -> str:
        """Put a document into its template."""
        return _filled(self.document, "{document}", text, self.instruction)


@dataclass(frozen=True)
class Settings:
    """The settings: where similarities come from, and how groups are made and reduced.

    Attributes:
        endpoint: Name in config/endpoints.yaml; `minilm` for the embedder that comes with Milepost; an address for
            the endpoint of the original's environment variables.
        model: Name to ask for there, where `endpoint` is an address.
        api: The server's interface.
        method: `embedding` or `rerank`.
        template: The words around texts.
        grouping: How a group's similarities are reduced.
        enhance: Whether candidates are also written as answers would say them.
    """

    endpoint: str
    model: str | None
    api: Api
    method: Method
    template: Template
    grouping: str
    enhance: bool

    @property
    def address(self) -> Endpoint | None:
        """The endpoint that the environment variables name, if they do."""
        if "://" not in self.endpoint:
            return None
        url = self.endpoint.rstrip("/").removesuffix("/v1") + "/v1"
        return Endpoint(
            url=url, key=os.environ.get("AVERT_API_KEY", ""), model=self.model or "", name=self.model or url
        )


def settings_of(options: Mapping[str, Any], task: str = "", environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from a task's `scorer`, and from the environment where it says nothing.

    Args:
        options: `endpoint`, `method`, `api`, `template`, `instruction`, `grouping` and `enhance`; absent or None is silence.
        task: The task's name, for the file of instructions.
        environ: The environment.

    Raises:
        ConfigError: A variable holds what it cannot, or settings contradict each other.
    """
    given = {name: value for name, value in options.items() if value is not None}
    found = {} if "endpoint" in given else _from_environment(environ, task)
    merged = {**found, **given}
    endpoint = merged.get("endpoint", BUILT_IN)
    method = merged.get("method", "embedding")
    if endpoint == BUILT_IN and method == "rerank":
        raise ConfigError(
            "The scorer avert is to rerank, but no endpoint is named: the model that comes with Milepost only embeds. Name "
            "a reranker of config/endpoints.yaml in `endpoint`, or leave out `method`."
        )
    grouping = merged.get("grouping", "max")
    grouping_of(grouping)
    return Settings(
        endpoint=endpoint,
        model=merged.get("model"),
        api=cast(Api, merged.get("api", "openai")),
        method=cast(Method, method),
        template=_template(merged.get("template", "empty"), merged.get("instruction", INSTRUCTION)),
        grouping=grouping,
        enhance=merged.get("enhance", True),
    )


def environment_of(settings: Settings) -> dict[str, Any]:
    """The settings that the original program's environment variables make; empty if they name no endpoint."""
    if settings.address is None:
        return {}
    words = [settings.template.queried(""), settings.template.documented("")]
    return {
        "environment": [settings.endpoint, settings.model, settings.api, settings.method, settings.grouping],
        "enhance": settings.enhance,
        "words": words,
    }


def _template(template: str | Mapping[str, str], instruction: str) -> Template:
    if isinstance(template, str):
        if template not in TEMPLATES:
            raise ConfigError(
                f"There is no template {template!r}. Templates: {', '.join(TEMPLATES)}.{did_you_mean(template, TEMPLATES)} "
                "Or write two of your own: `template: {query: ..., document: ...}`."
            )
        query, document = TEMPLATES[template]
        return Template(query, document, instruction)
    query, document = template["query"], template["document"]
    for name, text in (("query", query), ("document", document)):
        if f"{{{name}}}" not in text:
            raise ConfigError(
                f"The {name} template does not say where the text goes: {text!r}. Put {{{name}}} into it."
            )
    if "{instruction}" in query and "{instruction}" in document:
        raise ConfigError("Both templates hold {instruction}. Take it out of one of them.")
    return Template(query, document, instruction)


def _filled(template: str | None, place: str, text: str, instruction: str) -> str:
    if template is None:
        return text
    # The text last: what a model wrote is never a place to fill.
    before, _, after = template.replace("{instruction}", instruction).partition(place)
    return before + text + after.replace(place, text)


def _from_environment(environ: Mapping[str, str], task: str) -> dict[str, Any]:
    """What the original's environment variables say; nothing if they name no endpoint."""
    address = environ.get("AVERT_MODEL_ENDPOINT")
    if not address:
        return {}
    if "://" not in address:
        raise ConfigError(f"AVERT_MODEL_ENDPOINT is {address!r}. It must be an address, as http://127.0.0.1:8000.")
    api = _one_of(environ, "AVERT_ENDPOINT_TYPE", ("vllm", "openai", "tei"))
    found: dict[str, Any] = {
        "endpoint": address,
        "api": api,
        "method": _one_of(environ, "AVERT_METHOD", ("rerank", "embedding")),
        "grouping": environ.get("AVERT_GROUPING", "max"),
    }
    model = environ.get("AVERT_MODEL_NAME")
    if model is None and api != "tei":
        raise ConfigError(
            "AVERT_MODEL_ENDPOINT is set, but AVERT_MODEL_NAME is not. Set it to the model's served name."
        )
    found["model"] = model
    enhance = environ.get("AVERT_ENHANCE", "true").lower()
    if enhance not in _YES + _NO:
        raise ConfigError(f"AVERT_ENHANCE is {enhance!r}. It must be one of: {', '.join(_YES + _NO)}.")
    found["enhance"] = enhance in _YES
    found["template"] = _template_of(environ)
    instruction = _instruction_of(environ, task)
    if instruction is not None:
        found["instruction"] = instruction
    return found


def _one_of(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = environ.get(name)
    if value not in known:
        raise ConfigError(
            f"AVERT_MODEL_ENDPOINT is set, so {name} must be, too, to one of: {', '.join(known)}. It is {value or 'not set'}."
        )
    return value


def _template_of(environ: Mapping[str, str]) -> str | dict[str, str]:
    name = environ.get("AVERT_PROMPT_TEMPLATE")
    if name is not None:
        return name
    query, document = environ.get("AVERT_QUERY_TEMPLATE"), environ.get("AVERT_DOCUMENT_TEMPLATE")
    if query is None or document is None:
        raise ConfigError(
            "AVERT_MODEL_ENDPOINT is set, but not how texts are put to the model. Set AVERT_PROMPT_TEMPLATE (one of: "
            f"{', '.join(TEMPLATES)}), or both AVERT_QUERY_TEMPLATE and AVERT_DOCUMENT_TEMPLATE."
        )
    return {"query": _unescaped(query), "document": _unescaped(document)}


def _unescaped(text: str) -> str:
    r"""Replace escapes such as `\n` by what they stand for; letters outside of ASCII stay as they are.

    >>> _unescaped(r"ä\n")
    'ä\n'
    """
    return codecs.decode(text.encode("latin-1", "backslashreplace"), "unicode_escape")


def _instruction_of(environ: Mapping[str, str], task: str) -> str | None:
    """The task's own instruction, else the default one."""
    by_task: dict[str, str] = {}
    path = environ.get("AVERT_INSTRUCTION_CONFIG_PATH")
    if path:
        try:
            by_task = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"AVERT_INSTRUCTION_CONFIG_PATH names {path}, which cannot be read as JSON: {error}."
            ) from None
        if not isinstance(by_task, dict) or not all(isinstance(text, str) for text in by_task.values()):
            raise ConfigError(
                f"{path} (AVERT_INSTRUCTION_CONFIG_PATH) must hold one object that gives a text to each task."
            )
    default = environ.get("AVERT_INSTRUCTION_PROMPT", "").strip()
    if default:
        by_task["default"] = default
    return by_task.get(task, by_task.get("default"))
