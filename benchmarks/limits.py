"""How an endpoint with limits is asked: Milepost and inspect_ai, each of a server of its own, at the same time.

    python benchmarks/limits.py             # about a quarter of an hour, nearly all of it waiting
    python benchmarks/limits.py --ours      # without the peer; writes no table

300 and 3,000 requests under 60 in any 10 s, under 6,000 tokens in any 10 s (prompt and longest answer, about 100 a request),
and under 8 at once (answers take 0.5 s); each with headers that tell what remains, and without. For 3,000, windows and
answers are ten times shorter, so that a cell takes a minute. A cell's seconds are those from the first request to the last
answer, as the server sees them; what the limit allows is the least that they can be.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from measuring import ROOT, BenchmarkError, Peer, Table, install, run, scratch

INSPECT = Peer("inspect_ai", ("inspect_ai==0.3.285", "openai==3.57.0"))
LIMITS = {
    "60 requests in 10 s": ("requests", 60.0, 10.0),
    "6,000 tokens in 10 s": ("tokens", 6000.0, 10.0),
    "8 at once": ("at once", 8.0, 0.0),
}
LATENCY_S = 0.5
MOST_TOKENS = 80  # of an answer; a prompt takes about 20 more
SCALE = {300: 1.0, 3000: 0.1}
TASK = """from inspect_ai import Task, task
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.scorer import match

@task
def asked():
    return Task(dataset=json_dataset(%r, lambda line: Sample(line["prompt"], target="yes")), scorer=match())
"""


@dataclass(frozen=True)
class Cell:
    """One server, and what is asked of it."""

    limit: str
    requests: int
    headers: bool

    @property
    def allowed_s(self) -> float:
        """The least seconds that the limit allows."""
        _, most, period = LIMITS[self.limit]
        if not period:
            return self.requests / most * LATENCY_S * SCALE[self.requests]
        each = 100.0 if self.limit.split()[1] == "tokens" else 1.0
        # The last ones are sent then, and answered.
        return ((math.ceil(self.requests * each / most) - 1) * period + LATENCY_S) * SCALE[self.requests]


def ask(cell: Cell, who: str, folder: Path, bin_: Path | None) -> dict[str, float]:
    """Serve one cell, have it asked, and return what the server counted."""
    of, most, period = LIMITS[cell.limit]
    scale = SCALE[cell.requests]
    words = ["--of", of, "--most", most, "--period", period * scale, "--latency", LATENCY_S * scale]
    if cell.headers:
        words.append("--headers")
    command = [sys.executable, ROOT / "benchmarks" / "limited_server.py", *words]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        folder.mkdir(parents=True)
        data = folder / "items.jsonl"
        with data.open("w") as file:
            for n in range(cell.requests):
                prompt = f"Is {n:06d} a number? " + "Think well of it first. " * 2 + "." * 11
                asked = {"messages": [{"role": "user", "content": prompt}]} if bin_ is None else {"prompt": prompt}
                file.write(json.dumps({"id": f"i{n}", "target": "yes", **asked}) + "\n")
        if bin_ is None:
            run(
                [sys.executable, ROOT / "scripts" / "evaluate_endpoint.py", "--url", f"{url}/chat/completions", "--type", "chat",
                 "--model", "m", "--data", data, "--scorer", "exact_match", "--max-tokens", str(MOST_TOKENS), "--out", folder / "out"],
                timeout_s=900,
            )  # fmt: skip
        else:
            (folder / "task.py").write_text(TASK % str(data))
            run(
                [bin_ / "inspect", "eval", "task.py", "--model", "openai-api/stub/m", "--adaptive-connections", "true",
                 "--max-tokens", str(MOST_TOKENS), "--display", "none"],
                cwd=folder, timeout_s=900,
                env={"STUB_API_KEY": "k", "STUB_BASE_URL": url, "INSPECT_LOG_DIR": str(folder)},
            )  # fmt: skip
    finally:
        server.send_signal(signal.SIGTERM)
        said, _ = server.communicate(timeout=30)
    return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]


def shown(cell: Cell, counted: dict[str, float] | str) -> list[str]:
    """The cells of a table for one asker: seconds, of what is allowed, and the share that was refused."""
    if isinstance(counted, str):
        return [counted, "", ""]
    asked = counted["answered"] + counted["refused"]
    missing = "" if counted["answered"] >= cell.requests else f" ({counted['answered']:.0f} answered)"
    return [
        f"{counted['seconds']:.1f}{missing}",
        f"{counted['seconds'] / cell.allowed_s:.2f}",
        f"{100 * counted['refused'] / asked:.1f} %",
    ]


def main() -> None:
    """Measure every cell, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true", help="without the peer; writes no table")
    parser.add_argument("--requests", type=int, nargs="*", choices=tuple(SCALE), default=tuple(SCALE))
    args = parser.parse_args()
    askers: dict[str, Path | None] = {"Milepost": None}
    if not args.ours:
        askers["inspect_ai"] = install(INSPECT)
    table = Table("limits")
    rows = []
    with scratch() as folder, ThreadPoolExecutor(len(askers)) as threads:
        for number in args.requests:
            for limit in LIMITS:
                for headers in (True, False):
                    cell = Cell(limit, number, headers)
                    results = {
                        who: threads.submit(ask, cell, who, folder / f"{len(rows)}-{who}", bin_)
                        for who, bin_ in askers.items()
                    }
                    found: dict[str, dict[str, float] | str] = {}
                    for who, result in results.items():
                        try:
                            found[who] = result.result()
                        except BenchmarkError as error:
                            found[who] = str(error)
                    row = [f"{number:,}", limit, "yes" if headers else "no", f"{cell.allowed_s:.1f}"]
                    rows.append(row + [word for who in askers for word in shown(cell, found[who])])
                    print(rows[-1], f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    names = [f"{who}: {word}" for who in askers for word in ("s", "of allowed", "refused")]
    table.rows(["requests", "limit", "headers", "allowed, s", *names], rows)
    if not args.ours and set(args.requests) == set(SCALE):
        table.write()
    else:
        print("\n".join(table.lines))


if __name__ == "__main__":
    main()
