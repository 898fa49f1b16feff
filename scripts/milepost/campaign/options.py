"""vLLM's options as a campaign gives them: one spelling, nothing that must not stand there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from milepost.errors import ConfigError

# What a secret's name says: it changes no answer, and must stand in no record.
SECRET = re.compile("(TOKEN|KEY|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)
# Within an option's JSON: names that end in token may be words of a tokenizer there.
INNER_SECRET = re.compile(
    "((^|_|-)(hf|auth|access|api|secret|private|session)_?(token|key)|password|secret|credentials)$", re.I
)
# What decides who can reach the server and as whom it answers, and what would hold such options in another file.
OURS = (
    "model", "served-model-name", "host", "port", "uds", "middleware", "root-path", "ssl-keyfile", "ssl-certfile",
    "ssl-ca-certs", "config", "headless",
)  # fmt: skip
SECRETS = ("hf-token", "api-key")
ADAPTERS = ("enable-lora", "lora-modules", "default-mm-loras", "enable-prompt-adapter", "prompt-adapters")


def check_options(given: Mapping[str, Any], env: Mapping[str, str], where: str) -> dict[str, Any]:
    """The options of vLLM with dashes in their names; vLLM takes them with underscores as well.

    Args:
        given: By name, without the leading dashes.
        env: Variables of the server's own.
        where: What gives them, for the message.

    Raises:
        ConfigError: A secret, an adapter, what Milepost sets itself, or one option in two spellings.

    >>> check_options({"max_model_len": 512}, {}, "Profile 'a'")
    {'max-model-len': 512}
    """
    options: dict[str, Any] = {}
    for name, value in given.items():
        plain = name.lstrip("-").replace("_", "-")
        base = plain.partition(".")[0]
        if _is_or_begins(base, SECRETS) and not isinstance(value, bool):
            raise _secret(plain, where)
        if inner := next(_secrets(plain, value), None):
            raise _secret(inner, where)
        if _is_or_begins(base, OURS):
            further = " Write the options of that file into vllm_args." if base == "config" else ""
            raise ConfigError(
                f"{where} gives vLLM's option {plain!r}, which Milepost sets itself, so that no other server can pass for this"
                f" one. Take it out.{further}"
            )
        if "lora" in base or _is_or_begins(base, ADAPTERS):
            raise _adapter(f"vLLM's option {plain!r}", where)
        if plain in options and options[plain] != value:
            raise ConfigError(
                f"{where} gives vLLM's option {plain!r} twice, as {options[plain]!r} and as {value!r}. Keep one."
            )
        options[plain] = value
    for name in env:
        if "LORA" in name.upper():
            raise _adapter(f"the variable {name!r}", where)
    return options


def _is_or_begins(name: str, known: tuple[str, ...]) -> bool:
    """Whether a name is one of these or cut short of one: vLLM's command line takes that for the whole."""
    return bool(name) and any(whole.startswith(name) for whole in known)


def _secret(name: str, where: str) -> ConfigError:
    return ConfigError(
        f"{where} has a secret among vLLM's options ({name!r}), where everybody on the host reads it and results/models keeps"
        " it. Take it out, have it replaced if it was real, and set it in the environment of the shell that starts Snakemake"
        " (HF_TOKEN for the hub)."
    )


def _adapter(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"{where} gives {what}. Adapters cannot be served this way: the base model would answer under the checkpoint's name."
        " Merge the adapter into its base (PEFT: `merge_and_unload`, then `save_pretrained`, with the tokenizer beside it),"
        " and name the merged folder in the column 'model' (docs/checkpoints.md)."
    )


def _secrets(name: str, value: Any, known: re.Pattern[str] = SECRET) -> Iterator[str]:
    """Names of secrets in an option, or in its JSON. A switch holds none: `hf-token: true` uses the environment's."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if isinstance(value, dict):
        for inner, content in value.items():
            yield from (f"{name}.{secret}" for secret in _secrets(str(inner), content, INNER_SECRET))
    elif isinstance(value, list):
        for content in value:
            yield from _secrets(name, content, known)
    elif known.search(name) and isinstance(value, str):
        yield name
