"""Reads keys of endpoints that others serve, from an environment variable or a file; no message shows them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from milepost.endpoints import ENDPOINTS
from milepost.errors import EndpointError

# What servers that want no key are given: clients of OpenAI's interface send it, too.
NO_KEY = "EMPTY"


def read_key(name: str, key_env: str | None, key_file: Path | None) -> str:
    """Read the key of an endpoint.

    Args:
        name: The endpoint's, for messages.
        key_env: The environment variable that holds the key.
        key_file: The file that holds it.

    Raises:
        EndpointError: The variable is not set; the file is missing, empty, or others may read it.
    """
    if key_env:
        return _sendable(os.environ.get(key_env, ""), f"the environment variable {key_env}", name)
    if key_file:
        return _sendable(_read_key_file(key_file, name), str(key_file), name)
    return NO_KEY


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
    """Check that a key can be sent as a header, and strip its white space. The error must not repeat the key."""
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
