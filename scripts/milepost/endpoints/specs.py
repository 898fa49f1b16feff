"""The endpoints that a campaign names in config/endpoints.yaml."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.campaign.identity import identify
from milepost.campaign.options import check_options
from milepost.campaign.schemas import check, read_yaml
from milepost.campaign.sheet import parse_step
from milepost.campaign.types import NAME, Checkpoint, Serving
from milepost.errors import ConfigError, EndpointError, did_you_mean

ENDPOINTS = Path("config/endpoints.yaml")
PROVIDERS = ("external", "shared")
# vLLM options that all models of a kind need, and those that a family needs on top.
KINDS: dict[str, dict[str, Any]] = {"chat": {}, "embedding": {"runner": "pooling"}, "reranker": {"runner": "pooling"}}
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_embedding": ("embedding", {}),
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
# What servers that want no key are given: clients of OpenAI's interface send it, too.
NO_KEY = "EMPTY"


@dataclass(frozen=True)
class Publication:
    """Where a shared server is made known to others than this campaign."""

    host: str
    port_file: Path
    key_file: Path
    ssh_config: Path | None = None


@dataclass(frozen=True)
class EndpointSpec:
    """One entry of config/endpoints.yaml.

    Attributes:
        name: Its name there.
        provider: Who runs it.
        model: Name that the server reports.
        kind: What it is asked: `chat`, `embedding` or `reranker`.
        revision: The user's word for the model's version.
        url: Base address with `/v1`; None for one that a tunnel leads to.
        host: Where the tunnel leads.
        port_file: File with the server's port on that host.
        ssh_config: Configuration of the tunnel's ssh.
        key_env: Environment variable with the key.
        key_file: File with the key.
        serving: How many requests at once, and how long they may take; of a shared one, how it is served.
        idle_s: Seconds without a question after which a shared one ends.
        publish: Where `serve_shared` makes a shared one known.
        reach: How jobs on other hosts reach a shared one: by `tunnel`, or `direct` at its node's address.
    """

    name: str
    provider: str
    model: str
    kind: str = "chat"
    revision: str | None = None
    url: str | None = None
    host: str | None = None
    port_file: Path | None = None
    ssh_config: Path | None = None
    key_env: str | None = None
    key_file: Path | None = None
    serving: Serving = field(default_factory=lambda: Serving(gpus=0))
    idle_s: float = 600.0
    publish: Publication | None = None
    reach: str = "tunnel"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers, for digests: who is asked where, as far as it can be seen from here."""
        if self.provider == "shared":
            return {"kind": self.kind, **identify(self.as_checkpoint())["identity"]}
        # The port behind a tunnel is another one after each start of the same server.
        address = {"url": self.url} if self.url else {"host": self.host}
        return {**address, "model": self.model, "revision": self.revision}

    def as_checkpoint(self) -> Checkpoint:
        """A shared one as its server takes it."""
        return Checkpoint(self.name, self.model, self.revision, None, None, 1, self.serving)

    def read_key(self) -> str:
        """The key.

        Raises:
            EndpointError: The variable is not set; the file is missing, empty, or others may read it.
        """
        if self.key_env:
            return _sendable(os.environ.get(self.key_env, ""), f"the environment variable {self.key_env}", self.name)
        if self.key_file:
            return _sendable(_read_key_file(self.key_file, self.name), str(self.key_file), self.name)
        return NO_KEY


def load_endpoints() -> dict[str, EndpointSpec]:
    """Read and check config/endpoints.yaml of the campaign in the current folder; nothing where there is none.

    Raises:
        ConfigError: An unknown provider or key, or a wrong value.
    """
    if not ENDPOINTS.is_file():
        return {}
    return {str(name): _parse(str(name), entry) for name, entry in read_yaml(ENDPOINTS).items()}


def find_endpoint(name: str, where: str) -> EndpointSpec:
    """The endpoint of a name.

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
    """A checkpoint that others serve; what it is and how it is asked stands in config/endpoints.yaml."""
    for column in ("model", "revision", "gpus", "model_profile", "vllm_args"):
        if column in cells:
            raise ConfigError(
                f"{where} has an endpoint and a {column}. What is behind an endpoint is said in {ENDPOINTS}: empty the cell."
            )
    spec = find_endpoint(cells["endpoint"], where)
    if spec.provider != "external" or spec.kind != "chat":
        raise ConfigError(
            f"{where}: endpoint {spec.name!r} is {spec.provider}, of kind {spec.kind}. A checkpoint's is external and chats;"
            " to serve a model of yours, name it in the column 'model'."
        )
    return Checkpoint(
        name=cells["name"],
        model=spec.model,
        revision=spec.revision,
        run=cells.get("run"),
        step=parse_step(cells),
        generation=int(cells.get("generation", 1)),
        serving=spec.serving,
        # Its pace is that of nothing that is served here.
        model_profile=f"endpoint {spec.name}",
        endpoint=spec,
    )


def _parse(name: str, entry: Any) -> EndpointSpec:
    where = f"{ENDPOINTS}, endpoint {name!r}"
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{where}: a name has letters, digits, '.', '_' and '-' only, and begins with a letter or digit."
        )
    provider = entry.get("provider") if isinstance(entry, dict) else None
    if provider not in PROVIDERS:
        raise ConfigError(
            f"{where}: the provider is {provider!r}. Providers: {', '.join(PROVIDERS)}."
            f"{did_you_mean(str(provider), PROVIDERS)} config/README.md describes their keys."
        )
    check(entry, f"endpoint_{provider}", where)
    if provider == "shared":
        return _parse_shared(name, entry, where)
    if "key_env" in entry and "key_file" in entry:
        raise ConfigError(f"{where} names both key_env and key_file. Take one of them out.")
    if ("url" in entry) == ("host" in entry) or ("host" in entry) != ("port_file" in entry):
        raise ConfigError(f"{where} needs either a url, or a host and a port_file to tunnel to.")
    if "ssh_config" in entry and "host" not in entry:
        raise ConfigError(
            f"{where} has an ssh_config, but no host to tunnel to. Take it out, or add host and port_file."
        )
    served = ("concurrency", "request_timeout_s", "retries")
    return EndpointSpec(
        name=name,
        provider=provider,
        model=entry["model"],
        kind=entry.get("kind", "chat"),
        revision=entry.get("revision"),
        url=entry["url"].rstrip("/") if "url" in entry else None,
        host=entry.get("host"),
        port_file=_path(entry, "port_file"),
        ssh_config=_path(entry, "ssh_config"),
        key_env=entry.get("key_env"),
        key_file=_path(entry, "key_file"),
        serving=Serving(gpus=0, **{key: entry[key] for key in served if key in entry}),
    )


def _parse_shared(name: str, entry: Mapping[str, Any], where: str) -> EndpointSpec:
    preset_kind, preset = PRESETS[entry["preset"]] if "preset" in entry else (None, {})
    kind = entry.get("kind", preset_kind or "chat")
    if preset_kind not in (None, kind):
        raise ConfigError(f"{where}: the preset {entry['preset']!r} is for kind {preset_kind!r}, not {kind!r}.")
    given = check_options(entry.get("vllm_args", {}), entry.get("env", {}), where)
    options = ("gpus", "env", "concurrency", "start_timeout_s", "request_timeout_s", "retries")
    serving = Serving(
        vllm_args={**KINDS[kind], **preset, **given}, **{key: entry[key] for key in options if key in entry}
    )
    return EndpointSpec(
        name=name,
        provider="shared",
        model=entry["model"],
        kind=kind,
        revision=entry.get("revision"),
        ssh_config=_path(entry, "ssh_config"),
        serving=serving,
        publish=_parse_publication(entry),
        idle_s=entry.get("idle_s", 600.0),
        reach=entry.get("reach", "tunnel"),
    )


def _parse_publication(entry: Mapping[str, Any]) -> Publication | None:
    if "publish" not in entry:
        return None
    given = entry["publish"]
    port_file, key_file = (Path(given[key]).expanduser() for key in ("port_file", "key_file"))
    return Publication(given["host"], port_file, key_file, _path(entry, "ssh_config"))


def _path(entry: Mapping[str, Any], key: str) -> Path | None:
    return Path(entry[key]).expanduser() if key in entry else None


def _read_key_file(path: Path, name: str) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise EndpointError(
            f"Endpoint {name!r}: its key file {path} cannot be read: {error.strerror} (from {Path.cwd()})."
            f" Correct key_file in {ENDPOINTS}, or ask whoever runs the server for the key."
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EndpointError(
            f"Endpoint {name!r}: others than you may read its key file {path} (mode {stat.filemode(mode)})."
            f" Run `chmod 600 {path}`, and if it stood open for long, ask for a new key."
        )
    return text


def _sendable(key: str, where: str, name: str) -> str:
    """A key as a header takes it. The message must not repeat it."""
    key = key.strip()
    if not key:
        raise EndpointError(
            f"Endpoint {name!r}: {where}, which should hold its key, is not set or empty. Set it in the shell that starts"
            " Snakemake, or correct it."
        )
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise EndpointError(
            f"Endpoint {name!r}: {where} holds no key: {len(key)} characters with spaces, line ends or others that no key"
            " has. It must hold the key and nothing else."
        )
    return key
