"""How long a store of a million answers takes to open, and how much memory: what every job does before it asks.

`python benchmarks/resume.py [--answers 1000000]`. The file is in the disk's cache, as one that was just written is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from measuring import ROOT, Table, scratch

SAMPLES = 8
ATTEMPTS = 3

OPEN = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from milepost.store.answers import TaskStore
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
begun = time.perf_counter(), time.process_time()
store = TaskStore(Path(sys.argv[2]), "another")
took = time.perf_counter() - begun[0], time.process_time() - begun[1]
print(json.dumps([len(store.settled), *took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, before]))
"""


def main() -> None:
    """Measure, print, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1_000_000)
    args = parser.parse_args()
    table = Table("resume")
    with scratch() as folder:
        path = folder / "task.jsonl"
        write_store(path, args.answers)
        runs = [open_store(path) for _ in range(ATTEMPTS)]
        size = path.stat().st_size / 1e6
    n, seconds, cpu, peak, before = (sorted(values)[ATTEMPTS // 2] for values in zip(*runs, strict=True))
    if n != args.answers:
        sys.exit(f"{n} of {args.answers} answers were found")
    table.rows(
        ["answers", "store, MB", "s", "core s", "peak MB", "of them Python and its imports"],
        [[f"{n:,.0f}", f"{size:.0f}", f"{seconds:.1f}", f"{cpu:.1f}", f"{peak:.0f}", f"{before:.0f}"]],
    )
    table.say(f"Medians of {ATTEMPTS}. Every line is parsed, so that a damaged one is found.")
    table.write()


def write_store(path: Path, answers: int) -> None:
    """Answers of a sentence each, as a job leaves them."""
    with path.open("w") as file:
        for k in range(answers):
            line = {
                "key": hashlib.sha256(str(k).encode()).hexdigest()[:32], "id": f"item-{k // SAMPLES:06d}", "sample": k % SAMPLES,
                "content": f"The answer to question {k} is forty-two; I have said so before and I will say it again.",
                "finish_reason": "stop", "usage": {"prompt_tokens": 64, "completion_tokens": 28}, "seed": k * 997 % 2**31,
                "latency_s": 0.1234, "attempt": "0123456789ab",
            }  # fmt: skip
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def open_store(path: Path) -> list[float]:
    """Open it in a process of its own: answers, seconds, core seconds, peak MB, MB before."""
    command = [sys.executable, "-c", OPEN, str(ROOT / "scripts"), str(path)]
    return list(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


if __name__ == "__main__":
    main()
