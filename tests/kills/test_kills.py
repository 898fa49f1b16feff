"""Kill a running campaign, run it again, and see that nothing was lost, asked twice, or left running.

The campaign is the demo's with one checkpoint, on the real parts. MILEPOST_KILLS says how many of the kills are played.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STEP = 400
TASKS = ["sums", "where", "colours"]
NATIVE = ["sums", "where"]
TIMEOUT_S = 400
GONE_WITHIN_S = 30


class Campaign:
    """A shortened demo in a folder of its own, whose processes carry a mark in their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.ckpt = f"demo-{STEP}"
        self.runs = 0
        self.groups: set[int] = set()
        demo = ROOT / "demo"
        shutil.copytree(demo / "config", folder / "config")
        shutil.copytree(demo / "harness", folder / "harness")
        (folder / "model").mkdir()
        (folder / "model" / f"step-{STEP}").symlink_to(demo / "model" / f"step-{STEP}")
        (folder / "data").symlink_to(demo / "data")
        config = yaml.safe_load((folder / "config/config.yaml").read_text())
        config["tasks"] = TASKS
        # So slow that there is a middle to be hit.
        config["model_profiles"]["tiny"]["concurrency"] = 4
        (folder / "config/config.yaml").write_text(yaml.safe_dump(config))

    def start(self) -> subprocess.Popen[bytes]:
        """Start `demo/run.sh` as a terminal would, in a process group of its own."""
        self.runs += 1
        with open(self.folder / f"run-{self.runs}.log", "wb") as log:
            return subprocess.Popen(
                # A test that runs in the background has its Ctrl-C ignored, and a terminal's programs have not.
                ["env", "--default-signal=INT", ROOT / "demo/run.sh", self.folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "MILEPOST_TEST_MARK": self.mark},
            )  # fmt: skip

    def said(self) -> str:
        """What the last run printed."""
        return (self.folder / f"run-{self.runs}.log").read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """All living processes of this campaign, with their command lines; the remains of ended ones do not count.

        A process belongs to it by the mark in its environment, or by its group: vLLM's engine writes its title over its
        environment.
        """
        found: dict[int, tuple[int, bool, str]] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                marked = self.mark.encode() in (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = int(fields[2]), marked, command
        self.groups |= {group for group, marked, _ in found.values() if marked}
        return {pid: command for pid, (group, marked, command) in found.items() if marked or group in self.groups}

    def find(self, *words: str) -> list[int]:
        """Processes whose command line holds one of the words."""
        return [pid for pid, command in self.processes().items() if any(word in command for word in words)]

    def stored(self) -> int:
        """Answers in the store."""
        return sum(len(lines(self.folder / f"results/store/{self.ckpt}/{task}.jsonl")) for task in NATIVE)

    def log(self) -> str:
        """What the supervisor said."""
        path = self.folder / f"logs/evaluate_checkpoint/{self.ckpt}.log"
        return path.read_text() if path.exists() else ""


def lines(path: Path) -> list[dict[str, object]]:
    """The whole lines of a JSON Lines file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


Moment = Callable[[Campaign], bool]
TOTAL = 100 * 4 * len(NATIVE)
MOMENTS: dict[str, Moment] = {
    "start-up": lambda campaign: bool(campaign.find("vllm.entrypoints")) and "the server answers" not in campaign.log(),
    "first answers": lambda campaign: campaign.stored() > 0,
    "middle": lambda campaign: campaign.stored() > TOTAL * 0.4,
    "last answers": lambda campaign: campaign.stored() > TOTAL * 0.9,
    "between tasks": lambda campaign: campaign.stored() == TOTAL and bool(campaign.find("nemo-evaluator")),
    "collecting": lambda campaign: (campaign.folder / f"results/evaluated/{campaign.ckpt}.json").exists(),
    "scoring": lambda campaign: bool(campaign.find("score_answers.py", "score_harness.py")),
}
VICTIMS: dict[str, tuple[str, ...]] = {
    "server": ("vllm.entrypoints",),
    "engine": ("VLLM::EngineCore",),
    "supervisor": ("scripts/evaluate_checkpoint.py",),
    "snakemake": ("bin/snakemake --snakefile",),
}


@dataclass(frozen=True)
class Kill:
    """Who is killed, how, and when."""

    moment: str
    victim: str
    number: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.moment}-{self.victim}-{self.number.name}".replace(" ", "_")


# The first three are played in CI.
KILLS = [
    Kill("middle", "supervisor"),
    Kill("first answers", "snakemake"),
    Kill("between tasks", "server"),
    Kill("start-up", "server"),
    Kill("start-up", "snakemake", signal.SIGINT),
    Kill("middle", "engine"),
    Kill("middle", "snakemake", signal.SIGINT),
    Kill("last answers", "supervisor"),
    Kill("collecting", "snakemake"),
    Kill("scoring", "snakemake", signal.SIGINT),
][: int(os.environ.get("MILEPOST_KILLS", "10"))]


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    """A campaign, none of whose processes outlives its test."""
    made = Campaign(tmp_path)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def wait_for(moment: Moment, campaign: Campaign, run: subprocess.Popen[bytes]) -> None:
    """Wait for a moment of a run."""
    deadline = time.monotonic() + TIMEOUT_S
    while not moment(campaign):
        campaign.processes()  # notes the groups, while their leaders live
        assert run.poll() is None, f"the run ended before the moment came:\n{campaign.said()}"
        assert time.monotonic() < deadline, f"the moment never came:\n{campaign.said()}"
        time.sleep(0.02)


def hit(kill: Kill, campaign: Campaign, run: subprocess.Popen[bytes]) -> None:
    """Send the signal; Ctrl-C goes to the whole foreground group, as a terminal sends it."""
    if kill.number == signal.SIGINT:
        os.killpg(run.pid, signal.SIGINT)
        return
    victims = campaign.find(*VICTIMS[kill.victim])
    assert victims, f"no {kill.victim} to kill:\n{campaign.processes()}"
    for pid in victims:
        os.kill(pid, kill.number)


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_kill_and_run_again(kill: Kill, campaign: Campaign) -> None:
    run = campaign.start()
    wait_for(MOMENTS[kill.moment], campaign, run)
    hit(kill, campaign, run)
    run.wait(timeout=120)
    assert run.returncode != 0, f"a killed run must not count as a good one:\n{campaign.said()}"

    deadline = time.monotonic() + GONE_WITHIN_S
    while campaign.processes() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert campaign.processes() == {}
    stored = campaign.stored()
    ledger = campaign.folder / f"results/store/{campaign.ckpt}/.ledger.jsonl"
    finished = (campaign.folder / f"results/evaluated/{campaign.ckpt}.json").exists()
    attempts = len(lines(ledger))

    again = campaign.start()
    again.wait(timeout=TIMEOUT_S)
    assert again.returncode == 0, campaign.said()
    check_complete(campaign)
    assert campaign.stored() >= stored
    if finished:
        assert len(lines(ledger)) == attempts, "a finished checkpoint was served again"
    else:
        ends = [line["end"] for line in lines(ledger)]
        assert ends[-1] == "done"
        # The killed attempt is accounted for, also where it could not do it itself.
        assert len(ends) == 2
        assert ends[0] != "done"


def check_complete(campaign: Campaign) -> None:
    """Every item of every task was asked once and scored."""
    for task in NATIVE:
        prompts = lines(campaign.folder / f"results/prompts/{task}.jsonl")
        expected = {(prompt["id"], sample) for prompt in prompts[1:] for sample in range(4)}
        assert len(expected) == 400
        keys = Counter(line["key"] for line in lines(campaign.folder / f"results/store/{campaign.ckpt}/{task}.jsonl"))
        assert set(keys.values()) == {1}, "an answer was asked for twice"
        for kind in ("answers", "scores"):
            found = lines(campaign.folder / f"results/{kind}/{campaign.ckpt}/{task}.jsonl")
            assert {(line["id"], line["sample"]) for line in found} == expected
            assert len(found) == len(expected)
            assert not any("error" in line for line in found)
    scores = lines(campaign.folder / f"results/scores/{campaign.ckpt}/colours.jsonl")
    assert len(scores) == 50
    for name in ("report.html", "tables/scores.csv", "figures/all.svg"):
        assert (campaign.folder / "results" / name).stat().st_size > 0
