"""What an ordinary user of the site can do to a checkpoint's job, from before its server starts until after its end.

The server is vLLM, the harness NeMo Evaluator, the stranger a program on both GPU nodes that tries all it can. What
strangers can do to shared, direct and published endpoints is in test_endpoints.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from cluster import GPU_HOSTS, Cluster
from project import NEMO_ANSWERS, Project
from strangers import FORGED, Stranger

SUMS = 400


def keys_of(cluster: Cluster) -> set[str]:
    """The keys of the servers and harnesses that run just now."""
    found = set()
    for host in GPU_HOSTS:
        for process in cluster.processes(host):
            for entry in Path("/proc", str(process.pid), "environ").read_bytes().split(b"\0"):
                name, _, value = entry.decode(errors="replace").partition("=")
                if name in ("VLLM_API_KEY", "MILEPOST_ENDPOINT_KEY"):
                    found.add(value)
    return found


def test_a_stranger_gets_nothing_forges_nothing_and_costs_nothing(
    make_project: Callable[..., Project], cluster: Cluster, measured: Callable[[str], None]
) -> None:
    project = make_project("strangers")
    project.edit(
        "config/checkpoints.tsv", "demo-{step}\tmodel/step-{step}\tdemo\t{step}", "c\tmodel/step-400\tdemo\t400"
    )
    project.configure(tasks=["sums", "colours"])
    keys: set[str] = set()
    with Stranger(*GPU_HOSTS) as stranger:
        project.start("results/evaluated/c.json")
        while project.runs_now:
            try:
                keys |= keys_of(cluster)
            except OSError:  # a process that has just ended
                continue
        assert project.finish() == 0, project.said()[-3000:]
    assert len(keys) >= 2, "the server's, and the relay's of the harness"
    (attempt,) = project.ledger("c")
    assert attempt["end"] == "done", "it took one attempt"
    assert sum(project.stored("c").values()) == SUMS
    answers = [path for path in (project.folder / "results/store/c").rglob("*") if path.is_file()]
    assert (
        sum(path.read_text(errors="replace").count('"status"') for path in answers if "requests" in path.name)
        >= NEMO_ANSWERS
    )
    assert not [path for path in answers if FORGED in path.read_text(errors="replace")]
    stranger.check([*keys, "What is"])
    assert stranger.saw("heard") == []
    assert stranger.saw("met") == [], "nobody has come to him"
    # He has asked at the ports of the harness, and of vLLM's processes among themselves.
    asked = stranger.saw("asked")
    assert "401" in {status for *_, status in asked}, "the relay"
    measured(
        f"a stranger saw {len(stranger.saw('ps'))} command lines of a job, asked at {len({port for port, *_ in asked})} ports"
        f" and knocked at {len(stranger.saw('refused'))} sockets, and got nothing"
    )
    # Of how it is served, the process list says what program runs, and the name of a file that only its owner can enter.
    launch = "milepost.runtime.launch "
    (serving,) = {line.partition(launch)[2] for (line,) in stranger.saw("ps") if launch in line}
    program, arguments = serving.split()
    assert program == "vllm.entrypoints.openai.api_server"
    assert re.fullmatch("@/tmp/milepost-[0-9a-f]{16}/arguments", arguments)
    shown = json.dumps(stranger.saw("ps"))
    assert "VLLM_API_KEY" not in shown
