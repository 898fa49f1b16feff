"""How long Snakemake thinks before it runs anything, in campaigns of many checkpoints; and what one small step costs.

    python benchmarks/plan.py                       # minutes
    python benchmarks/plan.py 100 300 --tasks 10    # other numbers of checkpoints
    python benchmarks/plan.py --steps               # one step each, in a campaign of 100 checkpoints

A campaign is made in a temporary folder, with small models. It is planned from nothing (`snakemake --dry-run`), then all
its results are put there and marked as made (`snakemake --touch`), and it is run again with nothing to do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from measuring import ROOT, Table, run, scratch

MOST_S, MOST_MB = 30.0, 600.0
ITEMS = 20
# Written again for the steps that are timed alone.
PROGRAM = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
ENV = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def main() -> None:
    """Measure, print, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=int, nargs="*", default=[10, 100, 300, 1000])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--steps", action="store_true", help="time small steps instead")
    args = parser.parse_args()
    if args.steps:
        measure_steps()
        return
    table = Table("plan")
    rows = []
    for n in sorted(args.checkpoints):
        with scratch() as folder:
            make_campaign(folder, n, args.tasks)
            said = folder / "planned"
            dry = run([*PROGRAM, "--dry-run", "--quiet", "rules"], cwd=folder, env=ENV, out=said)
            jobs = int(re.search(r"^total\s+(\d+)$", said.read_text(), re.M)[1])
            complete(folder, n, args.tasks)
            again = run([*PROGRAM], cwd=folder, env=ENV)
        rows.append(
            [f"{n:,} x {args.tasks}", f"{jobs:,}", *(f"{value:,.1f}" for value in (dry.seconds, dry.cpu)), f"{dry.peak_mb:.0f}",
             *(f"{value:,.1f}" for value in (again.seconds, again.cpu)), f"{again.peak_mb:.0f}"]
        )  # fmt: skip
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    table.rows(
        ["checkpoints x tasks", "jobs", "dry run, s", "core s", "MB", "nothing to do, s", "core s", "MB"], rows,
    )  # fmt: skip
    table.say(f"Goals: 1,000 x 10 in {MOST_S:.0f} s and {MOST_MB:.0f} MB each, 100 x 10 in 6 s.")
    table.write()


def make_campaign(folder: Path, checkpoints: int, tasks: int) -> None:
    """Models of a few bytes, all different; tasks of our own."""
    (folder / "config/tasks").mkdir(parents=True)
    names = [f"t{k}" for k in range(tasks)]
    config = {"tasks": names, "model_profiles": {"default": {"gpus": 0}}}
    (folder / "config/config.yaml").write_text(json.dumps(config))
    for name in names:
        spec = {
            "version": 1,
            "data": f"{name}.jsonl",
            "samples": 2,
            "sampling": {"max_tokens": 8},
            "scorer": {"name": "exact_match"},
        }
        (folder / f"config/tasks/{name}.yaml").write_text(json.dumps(spec))
        items = [
            {"id": f"i{k}", "messages": [{"role": "user", "content": f"{name}: {k}?"}], "target": str(k)}
            for k in range(ITEMS)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    sheet = ["name\tmodel\trun\tstep"]
    for k in range(checkpoints):
        model = folder / f"models/m{k:05d}"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
        (model / "model.safetensors").write_bytes(str(k).encode())
        sheet.append(f"{checkpoint_name(k)}\tmodels/{model.name}\trun\t{k}")
    (folder / "config/checkpoints.tsv").write_text("\n".join(sheet) + "\n")


def complete(folder: Path, checkpoints: int, tasks: int) -> None:
    """Put something where each result is to be, and have Snakemake remember that it made them."""
    first = checkpoint_name(0)
    with scratch() as small:
        # What one checkpoint makes, all of them make: asking for this plan is quick.
        make_campaign(small, 1, tasks)
        run([*PROGRAM, "--dry-run", "--nocolor"], cwd=small, env=ENV, out=small / "planned")
        lines = re.findall(r"^    output: (.+)$", (small / "planned").read_text(), re.M)
    for name in [name for line in lines for name in line.split(", ")]:
        for each in map(checkpoint_name, range(checkpoints if first in name else 1)):
            path = folder / name.replace(first, each)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n")
    run([*PROGRAM, "--touch", "--quiet", "all"], cwd=folder, env=ENV, timeout_s=1800)
    # What the collected answers answer is written beside them.
    run([sys.executable, "-c", STAMP, ROOT / "scripts"], cwd=folder)


STAMP = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from milepost.campaign.identity import CACHE, DigestCache
from milepost.evaluation.collect import stamp
from milepost.preflight.campaign import load_campaign
from milepost.preflight.decides import code_of, current_digests
current = current_digests(load_campaign(), DigestCache(CACHE))
for ckpt, model in current.models.items():
    for task, asked in current.asked.items():
        stamp(Path(f"results/answers/{ckpt}/{task}.jsonl"), asked, model, code_of("collect_answers.py"))
"""


def checkpoint_name(number: int) -> str:
    """As the sheet has it."""
    return f"c{number:05d}"


def measure_steps() -> None:
    """What is run often and does little: mostly imports."""
    table = Table("steps")
    scripts = ROOT / "scripts"
    with scratch() as folder:
        make_campaign(folder, 100, 10)
        for command in (["prepare_prompts.py", "--task", "t0", "--out", "results/prompts/t0.jsonl"],):
            run([sys.executable, scripts / command[0], *command[1:]], cwd=folder)
        answer_all(folder)
        same = ["--ckpt", "c00000", "--model", "results/models/c00000.json", "--prompts", "results/prompts/t0.jsonl"]
        out = "results/answers/c00000/t0.jsonl"
        step = [
            sys.executable,
            scripts / "collect_answers.py",
            *same,
            "--evaluated",
            "results/evaluated/c00000.json",
            "--code",
            "any",
            "--out",
            out,
        ]
        score = [sys.executable, scripts / "score_answers.py", *same, "--task", "t0", "--answers", out]
        (folder / "scoring.json").write_text('{"scorer": {"name": "exact_match"}}')
        score += ["--scoring", "scoring.json"]
        score += ["--scores", "results/scores/c00000/t0.jsonl", "--summary", "results/summaries/c00000/t0.json"]
        timed = {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`snakemake --version`": [*PROGRAM, "--version"],
            "`snakemake --list-rules`": [*PROGRAM, "--list-rules"],
            "`snakemake preflight`": [*PROGRAM, "preflight"],
            "`collect_answers.py`": step,
            "`score_answers.py`": score,
        }
        rows = []
        for name, command in timed.items():
            # preflight fails where something is missing here, such as vLLM: it has looked at all the same things.
            allowed = (0, 1) if "preflight" in name else (0,)
            runs = [time_step(command, folder, allowed) for _ in range(3)]
            seconds, cpu, peak = (sorted(values)[1] for values in zip(*runs, strict=True))
            rows.append([name, f"{seconds:.2f}", f"{cpu:.2f}", f"{peak:.0f}"])
    table.rows(["command", "s", "core s", "MB"], rows)
    table.say(f"Medians of three, in a campaign of 100 checkpoints and 10 tasks of {ITEMS} items and 2 samples.")
    table.write()


def time_step(command: list[str | Path], folder: Path, allowed: tuple[int, ...]) -> tuple[float, float, float]:
    """Seconds, core seconds and peak memory of one step."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **ENV},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in allowed:
        sys.exit(f"{command} failed: {said[-500:]}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def answer_all(folder: Path) -> None:
    """A complete store of one checkpoint and task."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from milepost.campaign.identity import identify
from milepost.preflight.campaign import load_campaign
from milepost.records import read_prompts, read_record, write_record
from milepost.store.answers import TaskStore
from milepost.evaluation.work import requests_of, store_file
identity = identify(load_campaign().checkpoints["c00000"])
write_record("results/models/c00000.json", identity)
digest = identity["digest"]
store = TaskStore(store_file("c00000", "t0"), "a")
for request in requests_of(read_prompts("results/prompts/t0.jsonl"), digest):
    answer = {"id": request.id, "sample": request.sample, "content": "7", "finish_reason": "stop"}
    store.append(request.key, {**answer, "usage": {"prompt_tokens": 9, "completion_tokens": 2}, "seed": 1, "latency_s": 0.1})
store.close()
write_record("results/evaluated/c00000.json", {"ckpt": "c00000", "tasks": {"t0": {"done": 40, "missing": 0}}, "ledger": {}})
"""
    run([sys.executable, "-c", code, ROOT / "scripts"], cwd=folder)


if __name__ == "__main__":
    main()
