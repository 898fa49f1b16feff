"""How long the way from scores to tables takes: 200 checkpoints x 6 tasks x 8 samples x 541 items by default.

Makes scores of a run whose accuracy rises, in a folder that is removed afterwards, and runs compare.py and tabulate.py
on them as the workflow does. Prints seconds and peak memory of each; fails above 60 s or 2 GB in all. Where the load is
above the number of cores, others take part of the seconds, and those "of cores" tell more.

    python benchmarks/tables.py [--checkpoints 200] [--against]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from milepost.campaign.shown import Point, Shown, ShownTask  # noqa: E402
from milepost.statistics.means import mean_estimate  # noqa: E402 (found by the line above)

MOST_SECONDS, MOST_MB = 60.0, 2_000.0
METRICS = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")


def main() -> None:
    """Make the scores, run the two steps, print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--items", type=int, default=541)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--against", action="store_true", help="compare all with the first, instead of the last alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = make_campaign(folder, args)
        size = sum(path.stat().st_size for path in folder.glob("results/scores/*/*")) / 1e6
        print(
            f"{lines:,} scores in {args.checkpoints * args.tasks:,} files, {size:,.0f} MB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        results = ["--settings", "settings.json", "--scores", "results/scores", "--summaries", "results/summaries"]
        places = "csv scores.csv metrics metrics.csv markdown scores.md text scores.txt also scores.tex".split()
        written = [f"--{word}" if k % 2 == 0 else f"results/tables/{word}" for k, word in enumerate(places)]
        steps = [
            run(folder, "compare.py", *results, "--out", "results/tables"),
            run(
                folder,
                "tabulate.py",
                *results[:2],
                *results[4:],
                "--compared",
                "results/tables",
                *written,
                "results/tables/scores.xlsx",
            ),
        ]
    seconds, memory = sum(step[0] for step in steps), max(step[1] for step in steps)
    print(f"together {seconds:.1f} s, peak {memory:,.0f} MB (limits: {MOST_SECONDS:.0f} s, {MOST_MB:,.0f} MB)")
    if seconds > MOST_SECONDS or memory > MOST_MB:
        sys.exit("above the limits")


def make_campaign(folder: Path, args: argparse.Namespace) -> int:
    """A campaign's configuration, scores and summaries; returns the number of scores."""
    tasks = [f"task{k}" for k in range(args.tasks)]
    comparisons = {"against": "run-0000"} if args.against else {"correction": "bh"}
    names = [f"run-{step:04d}" for step in range(args.checkpoints)]
    points = {name: Point(name, "run", step) for step, name in enumerate(names)}
    options = {"title": "Tables", "comparisons": comparisons}
    (folder / "settings.json").write_bytes(
        orjson.dumps(Shown(points, {task: ShownTask(task) for task in tasks}, options).record())
    )
    rng = np.random.default_rng(0)
    for task in tasks:
        easiness = rng.normal(size=args.items)
        for step, name in enumerate(names):
            skill = 2 * step / args.checkpoints - 1
            chance = 1 / (1 + np.exp(-(easiness + skill)))
            scores = (rng.random((args.items, args.samples)) < chance[:, None]).astype(float)
            write_results(folder / "results", name, task, scores)
    return args.checkpoints * args.tasks * args.items * args.samples


def write_results(results: Path, ckpt: str, task: str, scores: np.ndarray) -> None:
    """One file of scores, and its summary."""
    path = results / "scores" / ckpt / f"{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for item, samples in enumerate(scores.tolist()):
            for sample, score in enumerate(samples):
                metrics = dict.fromkeys(METRICS, score)
                record = {"id": f"item-{item:04d}", "sample": sample, "score": score, "metrics": metrics}
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    estimate = mean_estimate(scores.mean(axis=1).tolist())
    n_items, n_samples = len(scores), scores.size
    summary = {
        **{"ckpt": ckpt, "task": task, "task_version": 1, "scorer": "exact_match", "metric": "prompt_strict"},
        **estimate,
        **{"n_items": n_items, "n_samples": n_samples, "n_errors": 0, "n_unscored": 0},
        "metrics": dict.fromkeys(METRICS, estimate),
        "variance": {"items": None, "decoding": None},
        "rates": {"truncated": 0.0, "empty": 0.0, "unreadable": 0.0, "failed": 0.0},
        "mean_tokens": 100.0,
        "provenance": {"prompts": "one", "expected": {"items": n_items, "samples": n_samples}},
    }
    path = results / "summaries" / ckpt / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))


def run(folder: Path, script: str, *args: str) -> tuple[float, float]:
    """Run a step; returns its seconds and its peak memory in MB, and prints both."""
    before = time.monotonic()
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts" / script), *args], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{script} failed")
    seconds, memory = time.monotonic() - before, usage.ru_maxrss / 1e3
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{script}: {seconds:.1f} s ({cpu:.1f} s of cores), peak {memory:,.0f} MB")
    return seconds, memory


if __name__ == "__main__":
    main()
