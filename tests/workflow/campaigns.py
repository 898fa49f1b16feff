"""A small campaign in a folder of its own, played with the real workflow and a stand-in for vLLM.

The code that is played is a copy, because the stand-in's place is the interpreter of envs/vllm, and because some tests
change code. `Campaign.run` calls Snakemake as a user would and says what that cost.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = ("Snakefile", "rules", "scripts", "config/schemas", "profiles", "report")
STUB = REPOSITORY / "tests" / "stub_server.py"
TIMEOUT_S = 300.0  # of one call of Snakemake, on a machine that does much else
# What may run when nothing is asked and nothing is scored: from the numbers to what people read.
FOR_READERS = {"all", "tabulate", "plot", "compare", "report", "check_numbers"}


def copy_code(folder: Path) -> Path:
    """Copy the workflow without its environments; vLLM's interpreter is the stand-in."""
    for name in CODE:
        source, target = REPOSITORY / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    python = folder / "envs" / "vllm" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    python.chmod(0o755)
    return folder


def snakemake() -> str:
    """The Snakemake of the environment that runs the tests."""
    beside = Path(sys.executable).with_name("snakemake")
    found = str(beside) if beside.exists() else shutil.which("snakemake")
    assert found, "no snakemake beside this Python, and none on PATH"
    return found


@dataclass(frozen=True)
class Job:
    """One job that Snakemake started, as its own log tells it."""

    rule: str
    wildcards: str
    resources: str


@dataclass(frozen=True)
class Run:
    """What one call of Snakemake did and cost."""

    rc: int
    said: str  # on the terminal, the steps' own words included
    log: str  # Snakemake's own
    stub: list[str]  # new lines of the stand-in's log

    @property
    def jobs(self) -> list[Job]:
        """All jobs that were started, those that failed included."""
        found = []
        for name, told in re.findall(r"^(?:local)?rule (\w+):\n((?: +.*\n)+)", self.log, re.M):
            lines = dict(re.findall(r"^ +(\w+): (.*)$", told, re.M))
            found.append(Job(name, lines.get("wildcards", ""), lines.get("resources", "")))
        return found

    @property
    def rules(self) -> Counter[str]:
        """How many jobs of each rule were started."""
        return Counter(job.rule for job in self.jobs)

    @property
    def asks(self) -> int:
        """Pairs of checkpoint and task of which anything was answered."""
        return len({tuple(line.split()[1:4:2]) for line in self.stub if line.startswith("ANSWER ")})

    @property
    def requests(self) -> list[str]:
        """Checkpoint and first line of every prompt that came to a server, sorted; one per sample."""
        return sorted(re.sub(r"^ASK | seed=\S+$", "", line) for line in self.stub if line.startswith("ASK "))

    @property
    def scores(self) -> int:
        """Jobs that scored."""
        return self.rules["score_answers"]

    @property
    def starts(self) -> dict[str, int]:
        """How often each checkpoint's server was started."""
        return dict(Counter(line.split()[1] for line in self.stub if line.startswith("START ")))

    @property
    def idle_jobs(self) -> int:
        """Evaluations that asked for no server, as they should when nothing is missing."""
        return sum(job.rule == "evaluate_checkpoint" and "server=0" in job.resources for job in self.jobs)

    @property
    def cost(self) -> tuple[int, int, int, dict[str, int], int]:
        """Exit code, pairs asked, scores made, servers started, evaluations without a server."""
        return self.rc, self.asks, self.scores, self.starts, self.idle_jobs


class Campaign:
    """A campaign's folder: what a user edits there, and Snakemake's calls.

    Args:
        folder: Where to make it.
        code: The copy of the workflow.
        cores: For Snakemake's `-c`.
        checkpoints: Rows of the sheet, as `Campaign.sheet` takes them.
        tasks: Names of the first tasks.
        padding: Characters added to every prompt.
    """

    def __init__(
        self,
        folder: Path,
        code: Path,
        *,
        cores: int = 4,
        checkpoints: str = "c1 m1, c2 m2",
        tasks: tuple[str, ...] = ("t1", "t2", "t3"),
        padding: int = 0,
    ) -> None:
        self.folder, self.code, self.cores, self.padding = folder, code, cores, padding
        self._logs: set[str] = set()  # names, of Snakemake's runs so far
        self._seen = 0  # lines of the stand-in's log so far
        (folder / "config" / "tasks").mkdir(parents=True)
        (folder / "data").mkdir()
        self.config: dict[str, Any] = {
            # Retries of a request would only make failures slow.
            "model_profiles": {"default": {"gpus": 0, "retries": 0, "start_timeout_s": 60}},
        }
        for task in tasks:
            self.items(task, "hello")
            self.task(task)
        self.select(*tasks)
        self.sheet(checkpoints)

    # What a user edits.

    def select(self, *tasks: str, **options: Any) -> None:
        """Choose the campaign's tasks; options are further keys of config.yaml."""
        self.config |= {"tasks": list(tasks), **options}
        self.write("config/config.yaml", yaml.safe_dump(self.config))

    def profile(self, **options: Any) -> None:
        """Change the model profile that all checkpoints use."""
        self.config["model_profiles"]["default"] |= options
        self.select(*self.config["tasks"])

    def sheet(self, rows: str, columns: str = "name model") -> None:
        """Write checkpoints.tsv: rows separated by commas, cells by spaces. Their models are made as well."""
        lines = [line.split() for line in [columns, *rows.split(",")]]
        self.write("config/checkpoints.tsv", "".join("\t".join(cells) + "\n" for cells in lines))
        for cells in lines[1:]:
            if not (self.folder / cells[1]).exists():
                self.model(cells[1])

    def model(self, name: str) -> Path:
        """Make a model's folder; its weights say its name, so that each is another model."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text('{"model_type": "stub"}\n')
        (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}\n')
        (folder / "model.safetensors").write_bytes(name.encode())
        return folder

    def items(self, task: str, *words: str) -> None:
        """Write two items for a task. Their prompts begin with `WORD TASK NUMBER`; one word may stand for both."""
        both = words if len(words) == 2 else words * 2
        padding = "\n" + "pad " * (self.padding // 4) if self.padding else ""
        items = [
            {"id": f"i{i}", "messages": [{"role": "user", "content": f"{word} {task} {i}{padding}"}], "target": word}
            for i, word in enumerate(both)
        ]
        self.write(f"data/{task}.jsonl", "".join(json.dumps(item) + "\n" for item in items))

    def task(self, task: str, **options: Any) -> None:
        """Write a task's file: the answer's first word is right if it is the prompt's."""
        spec = {
            "version": 1,
            "data": f"data/{task}.jsonl",
            "samples": 2,
            "sampling": {"max_tokens": 8},
            "scorer": {"name": "exact_match", "extract": r"^(\w+)"},
        }
        self.write(f"config/tasks/{task}.yaml", yaml.safe_dump({**spec, **options}))

    def faults(self, model: str, *faults: str) -> None:
        """Have a model's server misbehave, or no longer; stub_server.py says how."""
        self.write(f"{model}/stub.faults", "".join(f"{fault}\n" for fault in faults))

    def write(self, path: str, content: str) -> None:
        """Write a file of the campaign."""
        (self.folder / path).write_text(content)

    def move(self, project: Path) -> None:
        """Move the folder that holds the campaign and its own copy of the code."""
        old = self.folder.parent
        assert self.code.parent == old, "made without own_code"
        old.rename(project)
        self.folder, self.code = project / self.folder.name, project / self.code.name

    # What a user calls.

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process of this campaign."""
        foreign = ("MILEPOST_", "SNAKEMAKE_", "PYTEST_", "SLURM_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # A cache of its own, so that runs beside each other share nothing.
        return {**kept, "STUB_LOG": str(self.log), "XDG_CACHE_HOME": str(self.folder / ".cache")}

    @property
    def log(self) -> Path:
        """The stand-in's log."""
        return self.folder / "stub.log"

    def run(self, *options: str) -> Run:
        """Call Snakemake and wait for its end; nothing that it started may be left then."""
        return self.finish(self.start(*options))

    def look(self, *options: str) -> str:
        """Call Snakemake beside a run that goes on; returns what was said."""
        return self.start(*options).communicate(timeout=TIMEOUT_S)[0]

    def finish(self, process: subprocess.Popen[str]) -> Run:
        """Wait for the end of a call of Snakemake."""
        said = process.communicate(timeout=TIMEOUT_S)[0]
        assert self.processes() == [], "a process of this run is left behind"
        # Snakemake's own log, because what the steps say cannot come between its lines there.
        logs = [log for log in sorted(self.folder.glob(".snakemake/log/*.log")) if log.name not in self._logs]
        lines = self.stub_lines()
        run = Run(process.returncode, said, "".join(log.read_text() for log in logs), lines[self._seen :])
        self._logs.update(log.name for log in logs)
        self._seen = len(lines)
        return run

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Call Snakemake in a process group of its own, as a terminal does."""
        command = [snakemake(), "--snakefile", str(self.code / "Snakefile"), f"-c{self.cores}", *options]
        return self._popen(command)

    def step(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Run a step's script by hand."""
        return self._popen([sys.executable, str(self.code / "scripts" / f"{name}.py"), *options])

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    # What can be seen afterwards.

    def stub_lines(self) -> list[str]:
        """The stand-in's log so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, what: str, count: int = 1, timeout_s: float = 120.0) -> None:
        """Wait until the stand-in's log holds so many lines of a kind."""
        deadline = time.monotonic() + timeout_s
        while sum(line.startswith(what) for line in self.stub_lines()) < count:
            assert time.monotonic() < deadline, f"{what} was not seen within {timeout_s} s"
            time.sleep(0.1)

    def processes(self, timeout_s: float = 5.0) -> list[str]:
        """Command lines of this campaign's processes that are still there after a while."""
        deadline = time.monotonic() + timeout_s
        while (left := dict(self._processes())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return list(left.values())

    def end_all(self) -> None:
        """End what a failed test left running."""
        for pid, _ in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Processes whose environment names this campaign's log: whoever started them, in whatever group."""
        mark = f"STUB_LOG={self.log}\0".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        yield (
                            int(entry.name),
                            (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"),
                        )

    def summary(self, ckpt: str, task: str) -> dict[str, Any]:
        """The numbers of one checkpoint on one task."""
        return dict(json.loads((self.folder / f"results/summaries/{ckpt}/{task}.json").read_bytes()))

    def stored(self, ckpt: str, task: str) -> list[dict[str, Any]]:
        """The lines of a store's file."""
        path = self.folder / f"results/store/{ckpt}/{task}.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def stale(self) -> list[str]:
        """Pairs of checkpoint and task whose answers or numbers are missing, or not those of today's questions."""
        rows = (self.folder / "config/checkpoints.tsv").read_text().splitlines()[1:]
        pairs = [(row.split("\t")[0], task) for row in rows for task in self.config["tasks"]]
        return [f"{ckpt}/{task}" for ckpt, task in pairs if not self._is_current(ckpt, task)]

    def _is_current(self, ckpt: str, task: str) -> bool:
        results = self.folder / "results"
        items = [json.loads(line) for line in (self.folder / f"data/{task}.jsonl").read_bytes().splitlines()]
        asked = {item["id"]: item["messages"][0]["content"].partition("\n")[0] for item in items}
        spec = yaml.safe_load((self.folder / f"config/tasks/{task}.yaml").read_bytes())
        try:
            answers = [
                json.loads(line) for line in (results / f"answers/{ckpt}/{task}.jsonl").read_bytes().splitlines()
            ]
            summary = self.summary(ckpt, task)
            digest = json.loads((results / f"models/{ckpt}.json").read_bytes())["digest"]
        except FileNotFoundError:
            return False
        prompts = hashlib.sha256((results / f"prompts/{task}.jsonl").read_bytes()).hexdigest()
        return (
            len(answers) == len(items) * spec["samples"]
            and all(answer["content"].startswith(f"{asked[answer['id']]}, said") for answer in answers)
            # The stand-in repeats the prompt: only the scorer that looks at the first word finds it right.
            and summary["value"] == float("extract" in spec["scorer"])
            and (summary["provenance"]["model"], summary["provenance"]["prompts"]) == (digest, prompts)
        )
