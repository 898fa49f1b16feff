"""The description of a model that many jobs of a campaign share: what is served, how, and who may reach it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.campaign.identity import identify
from milepost.campaign.options import check_options
from milepost.campaign.types import Checkpoint, EndpointSpec, Serving
from milepost.endpoints.specs import path_in
from milepost.errors import ConfigError
from milepost.schemas import defaults, of_schema

# vLLM options that all models of a kind need, and those that a family needs on top.
KINDS: dict[str, dict[str, Any]] = {"chat": {}, "embedding": {"runner": "pooling"}, "reranker": {"runner": "pooling"}}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_reranker": (
        "reranker",
        {
            "hf-overrides": {
                "architectures": ["Qwen3ForSequenceClassification"],
                "classifier_from_token": ["no", "yes"],
                "is_original_qwen3_reranker": True,
            }
        },
    ),
}
SERVED = ("gpus", "env", "concurrency", "start_timeout_s", "request_timeout_s", "retries")


@dataclass(frozen=True)
class Publication:
    """Where a shared server is published for people outside of this campaign."""

    host: str
    port_file: Path
    key_file: Path
    ssh_config: Path | None = None


@dataclass(frozen=True)
class SharedSpec(EndpointSpec, ABC):
    """The specification of a model that one server serves to many jobs.

    Attributes:
        ssh_config: Configuration of the ssh that leads to it.
        idle_s: Seconds without a question after which it ends.
        publish: Where `serve_shared` makes it known.
        reach: How jobs on other hosts reach it: by `tunnel`, or `direct` at its node's address.
    """

    provider = "shared"
    ours = True

    kind: str = of_schema("endpoint_shared", "kind")
    ssh_config: Path | None = None
    idle_s: float = of_schema("endpoint_shared", "idle_s")
    publish: Publication | None = None
    reach: str = of_schema("endpoint_shared", "reach")

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the model, from its files and options, and of what it is asked."""
        return {"kind": self.kind, **identify(self.as_checkpoint())["identity"]}

    @property
    def digest(self) -> str:
        """A digest that shows whether a running server is still what the configuration asks for."""
        decisive = {**self.identity, "reach": self.reach}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def as_checkpoint(self) -> Checkpoint:
        """The model as a checkpoint, which is what a server is started with."""
        return Checkpoint(self.name, self.model, self.revision, None, None, 1, self.serving)


def fields_of(name: str, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Make the attributes of a specification from an entry of config/endpoints.yaml that fits its schema.

    Raises:
        ConfigError: A preset of another kind.
    """
    preset_kind, preset = PRESETS[entry["preset"]] if "preset" in entry else (None, {})
    of_preset = {"kind": preset_kind} if preset_kind else {}
    entry = {**defaults("endpoint_shared"), **of_preset, **entry}
    kind = entry["kind"]
    if preset_kind not in (None, kind):
        raise ConfigError(f"{where}: the preset {entry['preset']!r} is for kind {preset_kind!r}, not {kind!r}.")
    vllm_args = check_options(entry.get("vllm_args", {}), entry.get("env", {}), where)
    serving = Serving(
        vllm_args={**KINDS[kind], **preset, **vllm_args}, **{key: entry[key] for key in SERVED if key in entry}
    )
    return {
        "name": name,
        "model": entry["model"],
        "kind": kind,
        "revision": entry.get("revision"),
        "serving": serving,
        "ssh_config": path_in(entry, "ssh_config"),
        "idle_s": entry["idle_s"],
        "publish": _publication(entry),
        "reach": entry["reach"],
    }


def _publication(entry: Mapping[str, Any]) -> Publication | None:
    if "publish" not in entry:
        return None
    given = entry["publish"]
    port_file, key_file = (Path(given[key]).expanduser() for key in ("port_file", "key_file"))
    return Publication(given["host"], port_file, key_file, path_in(entry, "ssh_config"))
