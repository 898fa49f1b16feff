"""Reads the endpoints that a campaign names in config/endpoints.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from milepost.campaign.frozen import config_folder
from milepost.campaign.sheet import parse_generation, parse_step
from milepost.campaign.types import LONGEST, NAME, Checkpoint, EndpointSpec
from milepost.endpoints import ENDPOINTS
from milepost.errors import ConfigError, did_you_mean
from milepost.schemas import SCHEMAS, check, check_names, expand, read_yaml

__all__ = ["ENDPOINTS", "EndpointSpec", "checkpoint_at", "find_endpoint", "load_endpoints", "providers"]

SCHEMA = "endpoint_"  # begins the names of the providers' schemas


def providers() -> list[str]:
    """Names of the providers whose endpoints config/endpoints.yaml may name: those with a schema there."""
    return sorted(path.stem.removeprefix(SCHEMA) for path in SCHEMAS.glob(f"{SCHEMA}*.yaml"))


def load_endpoints() -> dict[str, EndpointSpec]:
    """Read and check config/endpoints.yaml of the campaign in the current folder; nothing where there is none.

    Raises:
        ConfigError: An unknown provider or key, or a wrong value.
    """
    path = config_folder() / ENDPOINTS.name
    if not path.is_file():
        return {}
    entries = {str(name): entry for name, entry in read_yaml(path).items()}
    check_names(entries, str(ENDPOINTS))
    return {name: _parse(name, entry) for name, entry in entries.items()}


def find_endpoint(name: str, where: str) -> EndpointSpec:
    """Find an endpoint by its name.

    Args:
        name: As the configuration refers to it.
        where: What refers to it, for the message.

    Raises:
        ConfigError: There is none; the message names those that there are.
    """
    known = load_endpoints()
    if name not in known:
        raise ConfigError(
            f"{where} asks for endpoint {name!r}. Endpoints in {ENDPOINTS}: {', '.join(sorted(known)) or 'none'}."
            f"{did_you_mean(name, known)} Correct the name, or add it there; config/README.md says how."
        )
    return known[name]


def checkpoint_at(cells: Mapping[str, str], where: str) -> Checkpoint:
    """Make the checkpoint of a row that names an endpoint: others serve it, and config/endpoints.yaml describes it."""
    for column in ("model", "revision", "gpus", "model_profile", "vllm_args"):
        if column in cells:
            raise ConfigError(
                f"{where} has an endpoint and a {column}. What is behind an endpoint is said in {ENDPOINTS}: empty the cell."
            )
    spec = find_endpoint(cells["endpoint"], where)
    if spec.ours or spec.kind != "chat":
        raise ConfigError(
            f"{where}: endpoint {spec.name!r} is {spec.provider}, of kind {spec.kind}. A checkpoint's is served by others and"
            " chats; to serve a model of yours, name it in the column 'model'."
        )
    return Checkpoint(
        name=cells["name"],
        model=spec.model,
        revision=spec.revision,
        run=cells.get("run"),
        step=parse_step(cells),
        generation=parse_generation(cells),
        serving=spec.serving,
        # Its pace is that of nothing that is served here.
        model_profile=f"endpoint {spec.name}",
        endpoint=spec,
    )


def path_in(entry: Mapping[str, Any], key: str) -> Path | None:
    """The path that an entry names under a key; None where it has no such key."""
    return Path(entry[key]).expanduser() if key in entry else None


def _parse(name: str, entry: Any) -> EndpointSpec:
    where = f"{ENDPOINTS}, endpoint {name!r}"
    if not re.fullmatch(NAME, name) or len(name) > LONGEST:
        raise ConfigError(
            f"{where}: a name has letters, digits, '.', '_' and '-' only, {LONGEST} at most, and begins with a letter or digit."
        )
    known = providers()
    provider = entry.get("provider") if isinstance(entry, dict) else None
    if not isinstance(provider, str) or provider not in known:
        raise ConfigError(
            f"{where}: the provider is {provider!r}. Providers: {', '.join(known)}."
            f"{did_you_mean(str(provider), known)} config/README.md describes their keys."
        )
    check(entry, f"{SCHEMA}{provider}", where)
    entry = expand(entry, f"{SCHEMA}{provider}", where)
    return cast(EndpointSpec, import_module(f"milepost.endpoints.{provider}").parse(name, entry, where))
