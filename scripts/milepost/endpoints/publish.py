"""Publishes a server on another host, for people who cannot reach its node: by `ssh -R`, a port file and a key file."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from pathlib import Path

from milepost.endpoints.shared_spec import Publication
from milepost.endpoints.tunnel import BACKOFF_S, LOOPBACK, OPTIONS
from milepost.runtime.processes import ProcessGroup, Watchdog

log = logging.getLogger("milepost")
POLL_S = 0.2
ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")


async def publish(
    publication: Publication, port: int, key: str, watchdog: Watchdog, output: Path, address: str = LOOPBACK
) -> None:
    """Forward a port of the publication's host to this one and write both files; again when it drops, until cancelled.

    Args:
        publication: Where to.
        port: The server's.
        key: The server's.
        watchdog: Looks after ssh.
        output: Where ssh writes.
        address: At which the server listens here.
    """
    failures = 0
    write_shared(publication.key_file, key)
    try:
        while True:
            begun = output.stat().st_size if output.exists() else 0
            options = [word for option, value in OPTIONS.items() for word in ("-o", f"{option}={value}")]
            config = ["-F", str(publication.ssh_config)] if publication.ssh_config else []
            # 0: a port that is free there.
            command = ["ssh", *config, *options, "-N", "-T", "-R", f"0:{address}:{port}", "--", publication.host]
            env = {name: value for name, value in os.environ.items() if name not in ("VLLM_API_KEY",)}
            group = await ProcessGroup.start(command, env=env, log=output, watchdog=watchdog)
            try:
                while group.process.returncode is None:
                    match = ALLOCATED.search(output.read_bytes()[begun:])
                    port_there = match[1].decode() if match else ""
                    if port_there and publication_port(publication.port_file) != port_there:
                        failures = 0
                        write_shared(publication.port_file, port_there)
                        log.info(
                            "published on %s as port %s, in %s", publication.host, port_there, publication.port_file
                        )
                    await asyncio.sleep(POLL_S)
            finally:
                publication.port_file.unlink(missing_ok=True)
                await group.stop()
            last_lines = " ".join(group.last_lines(2).split())
            log.warning("the way to %s is closed (ssh said: %s); trying again", publication.host, last_lines)
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1
    finally:
        publication.key_file.unlink(missing_ok=True)


def publication_port(path: Path) -> str:
    """The port that a published server's port file holds, as text; empty without a file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def write_shared(path: Path, content: str) -> None:
    """Write a file in one step that the user's group may read, nobody else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, 0o640)  # whatever the user's umask keeps from the group elsewhere
        file.write(f"{content}\n")
    os.replace(draft, path)
