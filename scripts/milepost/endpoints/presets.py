"""Presets of common providers: their address, the variable of their key, and how they take requests.

`presets.yaml` beside this module is the table of facts; a campaign may have a `config/presets.yaml` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from milepost.campaign.frozen import config_folder
from milepost.errors import ConfigError, did_you_mean
from milepost.schemas import check, read_yaml

TABLE = Path(__file__).with_name("presets.yaml")
OWN = "presets.yaml"  # in a campaign's config
FACTS = ("title", "source", "note")  # of a preset, and no part of an entry


@cache
def known_presets() -> Mapping[str, Mapping[str, Any]]:
    """The presets that come with Milepost, by name."""
    return _read(TABLE)


def presets() -> dict[str, Mapping[str, Any]]:
    """All presets: those that come with Milepost, and the campaign's own, which go before.

    Raises:
        ConfigError: The campaign's own are malformed.
    """
    own = config_folder() / OWN
    return {**known_presets(), **(_read(own) if own.is_file() else {})}


def preset(name: str, where: str) -> dict[str, Any]:
    """What a preset says of an entry.

    Raises:
        ConfigError: There is none of this name.
    """
    known = presets()
    if name not in known:
        raise ConfigError(
            f"{where} asks for preset {name!r}. Presets: {', '.join(known)}.{did_you_mean(name, known)} Correct the name, or"
            f" add it to config/{OWN}, as scripts/milepost/endpoints/{OWN} has the others."
        )
    return {key: value for key, value in known[name].items() if key not in FACTS}


def preset_at(url: str) -> dict[str, Any]:
    """What is known of the provider at an address; nothing where none is known.

    >>> preset_at("https://api.mistral.ai/v1/chat/completions")["key_env"]
    'MISTRAL_API_KEY'
    >>> preset_at("https://eu.openai.azure.com/openai/v1")["key_header"], preset_at("http://127.0.0.1:9/v1")
    ('api-key', {})
    """
    host = urlsplit(url).hostname or ""
    for name, facts in presets().items():
        of = urlsplit(facts["url"].replace("{RESOURCE}", "resource")).hostname or ""
        if "{" in facts["url"]:
            found = host.endswith(of.partition(".")[2]) and host != of.partition(".")[2]
        else:
            found = host == of
        if found and not of.startswith("127."):
            return preset(name, "")
    return {}


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    found = {str(name): entry for name, entry in read_yaml(path).items()}
    for name, entry in found.items():
        check(entry, "preset", f"{path}, preset {name!r}")
    return found
