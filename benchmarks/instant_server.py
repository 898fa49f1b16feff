"""Servers that cost a client as little waiting as can be: nginx with one answer, and one that holds answers back exactly.

`python benchmarks/instant_server.py PORT SECONDS` is the second one, by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPLY = {
    "id": "chatcmpl-0123456789abcdef", "object": "chat.completion", "created": 1750000000, "model": "m",
    "choices": [{
        "index": 0, "logprobs": None, "finish_reason": "stop", "stop_reason": None,
        "message": {
            "role": "assistant", "reasoning_content": None, "tool_calls": [],
            "content": "The answer is forty-two; I have said so before and I will say it again when I am asked for it once more.",
        },
    }],
    "usage": {"prompt_tokens": 64, "total_tokens": 92, "completion_tokens": 28, "prompt_tokens_details": None},
}  # fmt: skip

# %s: a folder for its files (twice), its port, the answer.
NGINX = """
worker_processes 1;
daemon off;
pid %s/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path %s/body;
    proxy_temp_path %s/proxy;
    fastcgi_temp_path %s/fastcgi;
    uwsgi_temp_path %s/uwsgi;
    scgi_temp_path %s/scgi;
    server {
        listen 127.0.0.1:%d backlog=4096;
        default_type application/json;
        location = /count { stub_status; }
        location = /v1/models { return 200 '{"object": "list", "data": [{"id": "m", "object": "model"}]}'; }
        location / { return 200 '%s'; }
    }
}
"""


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nginx_version() -> str | None:
    """The version of nginx, or None where there is none."""
    program = _nginx()
    if program is None:
        return None
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    return said.strip().rpartition("/")[2]


def _nginx() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(folder: Path, core: int) -> Iterator[str]:
    """A server that answers everything at once, on a core of its own; its base URL."""
    program = _nginx()
    assert program is not None, "ask for its version first"
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX % (*[folder] * 6, port, json.dumps(REPLY)))
    process = subprocess.Popen(
        [program, "-c", str(config), "-p", str(folder), "-e", "stderr"],
        stderr=(folder / "nginx.log").open("w"),
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 (one thread)
    )
    try:
        _wait_for(port, process, folder / "nginx.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def count(url: str) -> int:
    """Requests that nginx has answered so far, this one aside."""
    with urllib.request.urlopen(f"{url}/count", timeout=10) as answer:  # noqa: S310 (loopback)
        numbers = re.findall(r"\d+", answer.read().decode().splitlines()[2])
    return int(numbers[2]) - 1


@contextmanager
def holding(seconds: float, folder: Path, core: int) -> Iterator[str]:
    """A server that holds each answer back for so long, and says in it for how long it did; its base URL."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, __file__, str(port), str(seconds)],
        stderr=(folder / "holding.log").open("w"),
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 (one thread)
    )
    try:
        _wait_for(port, process, folder / "holding.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"the server did not start: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("the server did not start within 10 s")


class Holding(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, seconds: float) -> None:
        """Nothing has come yet."""
        self.seconds = seconds
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a whole request later."""
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if end and len(body) >= int(re.search(rb"(?i)content-length: *(\d+)", head)[1]):
            self.buffer = b""
            asyncio.get_running_loop().call_later(self.seconds, self.answer, time.perf_counter())

    def answer(self, since: float) -> None:
        """Say how long it was held back; what the client adds is all above that."""
        body = json.dumps({**REPLY, "held_s": time.perf_counter() - since}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


async def hold(port: int, seconds: float) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(lambda: Holding(seconds), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(hold(int(sys.argv[1]), float(sys.argv[2])))
