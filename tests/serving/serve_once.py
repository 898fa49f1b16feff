"""Serve a model within an image, ask it once, end it, and say what was seen, as JSON; run by test_apptainer.py.

It is a program of its own, so that the tests can start it as an ordinary user and kill it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path

import aiohttp

from milepost.campaign.types import Checkpoint, Serving
from milepost.endpoints.vllm import VllmServer
from milepost.errors import ServerError
from milepost.runtime.containers import Containers, inside
from milepost.runtime.processes import ProcessGroup, Watchdog

ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
ARGS = {"dtype": "float32", "enforce-eager": True, "max-model-len": 512}


def session_of(leader: int) -> dict[int, str]:
    """Command lines of all processes of a session."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command and os.getsid(int(entry.name)) == leader:  # the remains of an ended process have none
                    found[int(entry.name)] = command
            except OSError:
                continue
    return found


async def serve(image: Path, model: str, serving: Serving) -> dict[str, object]:
    """The life of one server."""
    watchdog = Watchdog()
    ckpt = Checkpoint("tiny", model, None, None, None, 1, serving)
    containers = Containers(vllm=image, bind_environments=True)
    server = VllmServer(ckpt, Path("server.log"), watchdog, containers=containers)
    begun = time.monotonic()
    try:
        await server.start()
        ready = time.monotonic() - begun
        group = server._group.process.pid
        processes = session_of(group)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(server.endpoint.socket)) as session:
            body = {
                "model": server.endpoint.model, "max_tokens": 8, "temperature": 0,
                "messages": [{"role": "user", "content": "What is the capital of Norland?"}],
            }  # fmt: skip
            headers = {"Authorization": f"Bearer {server.endpoint.key}"}
            url = f"{server.endpoint.url}/chat/completions"
            async with session.post(url, json=body, headers=headers) as response:
                answer = await response.json()
            async with session.post("http://localhost/invocations", json=body) as response:
                refused = response.status
        version = await server.version()
        everywhere = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        shown = any(server.endpoint.key.encode() in command for command in everywhere)
        begun = time.monotonic()
        await server.stop()
        return {
            "answer": answer, "refused": refused, "version": version, "key_shown": shown, "ready_s": ready,
            "stop_s": time.monotonic() - begun, "processes": processes, "left": session_of(group),
            "log": server.log.read_text(), "key_logged": server.endpoint.key in server.log.read_text(),
        }  # fmt: skip
    except ServerError as error:
        return {"error": str(error)}
    finally:
        await server.stop()
        watchdog.close()


async def sleep(image: Path, *, stop: bool) -> None:
    """Start a program with a child within the image, say its group, and wait to be killed."""
    watchdog = Watchdog()
    command, env = inside(["sh", "-c", "sleep 300 & sleep 301; true"], str(image), env={})
    group = await ProcessGroup.start(command, env=env, log=Path("sleep.log"), watchdog=watchdog)
    # Both children of the program; what starts it names them among its arguments.
    while sum(command.startswith("sleep 30") for command in session_of(group.process.pid).values()) < 2:
        assert group.process.returncode is None, Path("sleep.log").read_text()
        await asyncio.sleep(0.1)
    print(json.dumps({"group": group.process.pid, "processes": session_of(group.process.pid)}), flush=True)
    if stop:
        await group.stop()
        watchdog.close()
    else:
        await asyncio.sleep(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["serve", "starve", "sleep", "stop"])
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--model", default="")
    args = parser.parse_args()
    if args.what in ("sleep", "stop"):
        asyncio.run(sleep(args.image, stop=args.what == "stop"))
        return
    # A cache of keys and values that is far too small for even one answer of this length.
    env = ENV if args.what == "serve" else {**ENV, "VLLM_CPU_KVCACHE_SPACE": "0"}
    vllm_args = ARGS if args.what == "serve" else {**ARGS, "kv-cache-memory-bytes": 100_000}
    serving = Serving(gpus=0, vllm_args=vllm_args, env=env, start_timeout_s=300)
    print(json.dumps(asyncio.run(serve(args.image, args.model, serving))))


if __name__ == "__main__":
    main()
