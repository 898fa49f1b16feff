"""The folder of a shared endpoint, by which its jobs and servers find each other: its files, key and name.

All of it lies in results/endpoints/NAME, which only the user can enter: the key; the record of the server that answers
(host, port); the lease that a living server beats; the job that was submitted last.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.endpoints.keys import OURS
from milepost.errors import EndpointError
from milepost.store.lease import place

FOLDER = Path("results/endpoints")


@dataclass(frozen=True)
class SharedEndpointFolder:
    """The folder of a shared endpoint, with its key and a served name that no other server has.

    The key is sent to nobody: the key of each start of the server is made of it, and whoever asks makes it likewise.
    """

    folder: Path
    key: str
    model: str

    def __repr__(self) -> str:
        """The folder's path without the key, so that no log shows it."""
        return f"SharedEndpointFolder({self.folder})"

    def key_of(self, attempt: str) -> str:
        """The key of one start of the server; it is worth nothing after that server's end."""
        derived = hmac.new(self.key.encode(), f"start {attempt}".encode(), "sha256").digest()
        return OURS + base64.urlsafe_b64encode(derived).decode().rstrip("=")

    @property
    def record(self) -> Path:
        """Path of the server's record: where it is; written by the living server."""
        return self.folder / "server.json"

    @property
    def lease(self) -> Path:
        """Path of the lease, held by the living server from before its start to its end."""
        return self.folder / ".lease"

    @property
    def submitted(self) -> Path:
        """Path of the note on the job that was submitted last."""
        return self.folder / "submitted.json"

    @property
    def failed(self) -> Path:
        """Path of the note on why the server of the last job failed."""
        return self.folder / "failed.json"

    @property
    def stop(self) -> Path:
        """Path of the file that tells the server to end."""
        return self.folder / "stop"

    @property
    def log(self) -> Path:
        """Path of vLLM's log."""
        return Path("logs/endpoints") / f"{self.folder.name}.server.log"

    @property
    def job_log(self) -> Path:
        """Path of the log of the server's supervisor, and of SLURM."""
        return Path("logs/endpoints") / f"{self.folder.name}.log"


def place_of(name: str) -> SharedEndpointFolder:
    """The folder of a shared endpoint in the current campaign; it is made, with a new key, if there is none."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    secret = folder / "key"
    if not secret.exists():
        draft = folder / f".key.{secrets.token_hex(8)}"
        write_private(draft, {"key": secrets.token_urlsafe(32), "model": f"{name}-{secrets.token_hex(8)}"})
        try:
            place(draft, secret)
        finally:
            draft.unlink()
    content = read_json(secret)
    for _ in range(50):
        if content:
            break
        # Without hard links, the other of two that come at once sees it empty for a moment.
        time.sleep(0.1)
        content = read_json(secret)
    try:
        return SharedEndpointFolder(folder, str(content["key"]), str(content["model"]))
    except KeyError:
        raise EndpointError(
            f"Endpoint {name!r}: {secret} holds no key. Remove it, with nothing of this campaign running."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON file; empty if it is missing or torn."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file in one step; only the user can read it."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file)
    os.replace(draft, path)
