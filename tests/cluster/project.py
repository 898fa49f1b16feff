"""A copy of the project that the cluster's ordinary user can read and run, with the demo as its campaign."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from cluster import BEGUN, CLUSTER, USER_ID, Cluster, Process, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = ("Snakefile", "rules", "scripts", "profiles", "report", "slurm", "envs", "containers", "config/schemas")
# What a user fills in, and what it is here.
SITE = {
    "# slurm_account: \"'PROJECT'\"": "slurm_account: \"'proj1'\"",
    "# slurm_partition: \"'PARTITION'\"": "slurm_partition: \"'main'\"",
    "# constraint: \"'CPU'\"": "constraint: \"'NOGPU'\"",
    "# constraint: \"None if gpus(wildcards) else 'CPU'\"": "constraint: \"None if gpus(wildcards) else 'NOGPU'\"",
    "# gpu_model: \"'A100' if gpus(wildcards) else ''\"": "gpu_model: \"'A40' if gpus(wildcards) else ''\"",
}
ITEMS = {"sums": 100, "where": 100, "constraints": 100}
SAMPLES = 4
NATIVE_ANSWERS = SAMPLES * sum(ITEMS.values())
NEMO_ANSWERS = 50


class Project:
    """One copy. Its root is the campaign, as it is for a user who clones the repository.

    Args:
        folder: Where to put it, on a path that all hosts share.
        cluster: Where it runs.
        serving: Changes to the demo's model profile.
    """

    def __init__(self, folder: Path, cluster: Cluster, **serving: Any) -> None:
        self.folder, self.cluster = folder, cluster
        self.runs = 0
        self._process: subprocess.Popen[bytes] | None = None
        copy_project(folder)
        demo = REPOSITORY / "demo"
        for name in ("config", "harness", "data", "model"):
            shutil.copytree(demo / name, folder / name, dirs_exist_ok=True)
        self.config: dict[str, Any] = yaml.safe_load((folder / "config/config.yaml").read_text())
        # vLLM's CPU build serves, but the job asks for a GPU as on a site.
        self.config["model_profiles"]["tiny"] |= {"gpus": 1, **serving}
        self.configure()
        profile = folder / "profiles/slurm/config.yaml"
        for before, after in SITE.items():
            content = profile.read_text()
            assert before in content, before
            profile.write_text(content.replace(before, after))  # one resource stands under several rules
        for name in ("results", "logs"):
            (folder / name).mkdir()
        for path in (folder, *(folder / name for name in ("results", "logs", "config", "data", "harness", "model"))):
            os.chown(path, USER_ID, USER_ID)

    def configure(self, **changes: Any) -> None:
        """Change the campaign's configuration."""
        self.config |= changes
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump(self.config))

    def edit(self, path: str, before: str, after: str) -> None:
        """Edit a file as a user would: the text has to be there, once."""
        file = self.folder / path
        content = file.read_text()
        assert content.count(before) == 1, f"{path} has {content.count(before)} times: {before}"
        file.write_text(content.replace(before, after))

    # Snakemake, as the user calls it.

    def start(self, *options: str) -> None:
        """Start `snakemake --profile slurm` in the root on the login host."""
        self.runs += 1
        BEGUN.append(self.end)
        path = f"{self.folder}/envs/workflow/.venv/bin:/usr/local/bin:/usr/bin:/bin"
        with open(self.folder / f"run-{self.runs}.log", "wb") as log:
            self._process = subprocess.Popen(
                # A program that runs in the background has its Ctrl-C ignored, and a terminal's have not.
                ["env", "--default-signal=INT", CLUSTER / "bin" / "as", "login", "bash", "-c", 'cd "$0" && exec "$@"', self.folder,
                 "snakemake", "--profile", "slurm", "--slurm-init-seconds-before-status-checks", "2", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "USER_PATH": path},
            )  # fmt: skip

    def finish(self, within_s: float = 600) -> int:
        """Wait for Snakemake's end: its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"Snakemake still runs after {within_s:.0f} s:\n{self.said()[-3000:]}") from None

    @property
    def runs_now(self) -> bool:
        """Whether Snakemake still runs."""
        return self._process is not None and self._process.poll() is None

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        assert self._process is not None
        # The wrappers around Snakemake have all replaced themselves by it.
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill Snakemake with signal 9, as a host that goes down does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End Snakemake, if it runs, and every job of this project."""
        if self.runs_now:
            self.kill()
        queue = self.cluster.call("login", "squeue", "--noheader", "--format=%i %Z").splitlines()
        jobs = [line.split()[0] for line in queue if line.split()[1] == str(self.folder)]
        if jobs:
            self.cluster.call("login", "scancel", *jobs)

    def said(self) -> str:
        """What the last run printed."""
        return (self.folder / f"run-{self.runs}.log").read_text(errors="replace")

    # What it left.

    def read(self, path: str) -> str:
        """A file's text; nothing if there is none."""
        file = self.folder / path
        return file.read_text(errors="replace") if file.exists() else ""

    def lines(self, path: str) -> list[dict[str, Any]]:
        """The whole lines of a JSON Lines file."""
        content = self.read(path)
        return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith("\n")]

    def stored(self, ckpt: str) -> Counter[str]:
        """How often each key stands in the checkpoint's store."""
        files = sorted((self.folder / "results/store" / ckpt).glob("[a-z]*.jsonl"))
        return Counter(line["key"] for file in files for line in self.lines(str(file.relative_to(self.folder))))

    def ledger(self, ckpt: str) -> list[dict[str, Any]]:
        """All attempts at a checkpoint."""
        return self.lines(f"results/store/{ckpt}/.ledger.jsonl")

    def log(self, ckpt: str) -> str:
        """What the checkpoint's supervisors said."""
        return self.read(f"logs/evaluate_checkpoint/{ckpt}.log")

    def wait_for_answers(self, ckpt: str, count: int, within_s: float = 400) -> None:
        """Wait until the checkpoint is in the middle of its work."""

        def reached() -> bool:
            assert self.runs_now, f"Snakemake has ended:\n{self.said()[-3000:]}"
            return sum(self.stored(ckpt).values()) >= count

        wait_until(f"{count} answers of {ckpt}", reached, within_s, every_s=0.2)


def gone(cluster: Cluster, host: str, before: list[Process], within_s: float = 30) -> float:
    """Wait until none of these processes is left; how long it took."""
    begun = time.monotonic()
    left = set(before)

    def ended() -> bool:
        left.intersection_update(cluster.processes(host))
        return not left

    wait_until(f"the end of {[process.command[:80] for process in before]}", ended, within_s)
    return time.monotonic() - begun


def copy_project(target: Path) -> None:
    """Copy what runs, environments included, without their weight of gigabytes where the file system can link."""
    target.mkdir(parents=True)
    for name in CODE:
        source = REPOSITORY / name
        if source.is_symlink():
            (target / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".venv*", "*.sif"))
        elif source.exists():
            shutil.copy2(source, target / name)
    for venv in REPOSITORY.glob("envs/*/.venv"):
        if venv.parent.name != "train":
            copy_environment(venv, target / "envs" / venv.parent.name / ".venv")


def copy_environment(source: Path, target: Path) -> None:
    """Copy a Python environment, and tell it its new place."""
    if subprocess.run(["cp", "-al", source, target], capture_output=True, check=False).returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)
    # Its place stands in the first lines of its programs, and in the stamp of envs/setup.sh.
    for file in [*target.glob("bin/*"), *target.glob(".milepost-stamp*")]:
        if file.is_symlink() or not file.is_file():
            continue
        content = file.read_bytes()
        moved = content.replace(os.fsencode(source), os.fsencode(target))
        if moved != content:
            # Another file in its place: what was linked must stay as it is.
            draft = file.with_name(f"{file.name}.moved")
            draft.write_bytes(moved)
            shutil.copymode(file, draft)
            draft.replace(file)
