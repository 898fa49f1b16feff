"""Run a command beside a tunnel to a published server, which has to prove on every connection that it knows the key.

The command finds the address in $TUNNEL_URL. For clients that know nothing of config/endpoints.yaml: one that is told of a
tunnel made by hand (`ssh -L`) sends the key to whoever holds the port at its other end.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from milepost.endpoints.external import External
from milepost.endpoints.tunnel import read_port
from milepost.errors import run_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="where the server is published, as ssh takes it")
    parser.add_argument("--port-file", required=True, type=Path, help="holds its port there")
    parser.add_argument("--key-file", required=True, type=Path, help="holds its key; nobody but you may read it")
    parser.add_argument("--ssh-config", type=Path, help="for ssh, instead of your own")
    parser.add_argument("command", nargs="+", help="the command with its arguments, after --")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = External("tunnel", "", host=args.host, port_file=args.port_file, key_file=args.key_file,
                      ssh_config=args.ssh_config)  # fmt: skip
    sys.exit(asyncio.run(run(server, args.command)))


async def run(server: External, command: Sequence[str]) -> int:
    """Run the command while the tunnel is open; returns its exit code."""
    assert server.port_file is not None
    async with server.tunnelled(server.read_key()) as (endpoint, _):
        port = read_port(server.port_file, server.name)
        near = endpoint.url.rpartition(":")[2].removesuffix("/v1")
        print(f"port {port} of {server.host} leads here as port {near}", flush=True)
        child = await asyncio.create_subprocess_exec(*command, env={**os.environ, "TUNNEL_URL": endpoint.url})
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, child.send_signal, number)
        return await child.wait()


if __name__ == "__main__":
    run_step(main)
