"""Random events of a campaign's life, one to three at once, then one run: every result is that of a run from nothing.

`make test-events` plays a thousand of them (MILEPOST_EVENTS), CI some fifty. A failure names its seed.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import Campaign, copy_code

EVENTS = int(os.environ.get("MILEPOST_EVENTS", "50"))
LIFE = 10  # runs of one campaign
HERE = Path(__file__).parent
WORDS = ("hello", "hi", "hey", "yo")
SCORERS = (
    {"name": "exact_match", "extract": r"^(\w+)"},
    {"name": "exact_match"},
    {"name": "exact_match", "ignore_case": True, "targets": "any"},
)[:2]
RESULTS = ("scores", "summaries", "answers", "prompts", "models", "evaluated", "tables", "figures")


class Life:
    """A campaign, what is in its configuration now, and the events that may happen to it."""

    def __init__(self, folder: Path, code: Path, dice: random.Random) -> None:
        self.dice, self.code = dice, code
        self.campaign = Campaign(folder, code, checkpoints="c1 m1, c2 m2", tasks=("t1", "t2"))
        self.tasks: dict[str, dict] = {name: {"word": "hello", "options": {}} for name in ("t1", "t2")}
        self.rows = {"c1": ["m1", "r", "1"], "c2": ["m2", "r", "2"]}
        self.config: dict = {}
        self.broken: list[tuple[str, str]] = []

    def write(self) -> None:
        """Write down what the configuration says now."""
        for name, task in self.tasks.items():
            self.campaign.items(name, task["word"])
            self.campaign.task(name, **task["options"])
        self.campaign.config = {"model_profiles": {"default": {"gpus": 0}}, **self.config}
        self.campaign.select(*self.tasks)
        rows = ", ".join(" ".join([name, *cells, "1"][:5]) for name, cells in self.rows.items())
        self.campaign.sheet(rows, "name model run step generation")

    # Events. Each says what it did.

    def add_task(self) -> str:
        name = self.dice.choice(["t1", "t2", "t3", "t4"])
        self.tasks.setdefault(name, {"word": "hello", "options": {}})
        return f"add {name}"

    def remove_task(self) -> str:
        if len(self.tasks) == 1:
            return "nothing"
        name = self.dice.choice(list(self.tasks))
        del self.tasks[name]
        return f"remove {name}"

    def reorder(self) -> str:
        names = list(self.tasks)
        self.dice.shuffle(names)
        self.tasks = {name: self.tasks[name] for name in names}
        return f"order {names}"

    def edit_question(self) -> str:
        name = self.dice.choice(list(self.tasks))
        self.tasks[name]["word"] = self.dice.choice(WORDS)
        return f"ask {self.tasks[name]['word']} in {name}"

    def edit_option(self) -> str:
        name = self.dice.choice(list(self.tasks))
        key, values = self.dice.choice(
            [
                ("scorer", SCORERS), ("samples", (1, 2, 3)), ("title", ("One", "Two {ckpt}", "Drei")),
                ("generation", (1, 2)), ("version", (1, 2)), ("limit", (1, 2)), ("system", ("Be brief.", "Be kind.")),
                ("sampling", ({"max_tokens": 8}, {"max_tokens": 9, "temperature": 0.0})),
            ]
        )  # fmt: skip
        self.tasks[name]["options"][key] = self.dice.choice(values)
        return f"{name}: {key} = {self.tasks[name]['options'][key]}"

    def edit_config(self) -> str:
        key, values = self.dice.choice(
            [
                ("title", ("A", "B_b")), ("limit", (1, 2)), ("tables", ({"metrics": "all"}, {"formats": ["tex"]}, {})),
                ("comparisons", ({}, {"ranking": "none"}, {"ranking": "all"}, {"correction": "holm"})),
                ("figures", ({}, {"smoothing": 1})),
            ]
        )  # fmt: skip
        if key in self.config and self.dice.random() < 0.3:
            del self.config[key]
            return f"no {key}"
        self.config[key] = self.dice.choice(values)
        return f"{key} = {self.config[key]}"

    def add_checkpoint(self) -> str:
        name = self.dice.choice(["c1", "c2", "c3"])
        row = [f"m{name[1]}", "r", name[1]]
        # A curve has one checkpoint at a step.
        if row[1:] not in [cells[1:] for each, cells in self.rows.items() if each != name]:
            self.rows.setdefault(name, row)
        return f"add {name}"

    def remove_checkpoint(self) -> str:
        if len(self.rows) == 1:
            return "nothing"
        name = self.dice.choice(list(self.rows))
        del self.rows[name]
        return f"remove {name}"

    def rename_checkpoint(self) -> str:
        name = self.dice.choice(list(self.rows))
        other = f"{name}x" if len(name) == 2 else name[:2]
        if other not in self.rows:
            self.rows = {other if each == name else each: cells for each, cells in self.rows.items()}
        return f"rename {name} to {other}"

    def move_on_curve(self) -> str:
        name = self.dice.choice(list(self.rows))
        self.rows[name][1:] = [self.dice.choice(["r", "q"]), str(self.dice.randrange(1, 9)) + name[1]]
        return f"{name} at {self.rows[name][1:]}"

    def other_model(self) -> str:
        name = self.dice.choice(list(self.rows))
        self.rows[name][0] = self.dice.choice(["m1", "m2", "m3", "m4"])
        return f"{name} is {self.rows[name][0]}"

    def train_on(self) -> str:
        name = self.dice.choice(list(self.rows))
        weights = self.campaign.folder / self.rows[name][0] / "model.safetensors"
        weights.parent.mkdir(exist_ok=True)
        self.campaign.model(weights.parent.name)
        weights.write_bytes(self.dice.randbytes(8))
        return f"train {weights.parent.name}"

    def lose_a_file(self) -> str:
        folder = self.campaign.folder / "results" / self.dice.choice(RESULTS)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return "nothing"
        path = self.dice.choice(files)
        path.unlink()
        return f"lose {path.relative_to(self.campaign.folder)}"

    def touch_a_file(self) -> str:
        path = self.campaign.folder / "config/tasks" / f"{self.dice.choice(list(self.tasks))}.yaml"
        path.touch()
        return f"touch {path.name}"

    def edit_code(self) -> str:
        with (self.code / "scripts/milepost/scorers/exact_match.py").open("a") as file:
            file.write(f"CHANGED_{self.dice.randrange(10**6)} = True\n")
        return "edit the scorer's code"

    def break_a_model(self) -> str:
        model = self.dice.choice(list(self.rows.values()))[0]
        fault = self.dice.choice(["die", *self.tasks])
        self.broken.append((model, fault))
        return f"break {model}: {fault}"

    def play(self) -> list[str]:
        """One to three events, then as many runs as they need: one, and another one where a model was broken."""
        events = [self.dice.choice(EVENT_NAMES) for _ in range(self.dice.choice([1, 2, 2, 3]))]
        done = [getattr(self, name)() for name in events]
        self.write()
        if self.broken:
            for model, fault in self.broken:
                self.campaign.model(model)
                self.campaign.write(f"{model}/faults", fault)
            self.campaign.run("--keep-going")
            for model, _ in self.broken:
                (self.campaign.folder / model / "faults").unlink(missing_ok=True)
            self.broken = []
        return done


EVENT_NAMES = [
    name for name, each in vars(Life).items() if callable(each) and name not in ("__init__", "write", "play")
]


def results_of(folder: Path) -> dict[str, str]:
    """All that a reader sees, and the numbers behind it."""
    kept = {}
    for pattern in ("tables/*.*", "summaries/*/*.json", "scores/*/*.jsonl", "answers/*/*.jsonl", "report.html"):
        for path in sorted((folder / "results").glob(pattern)):
            kept[str(path.relative_to(folder))] = path.read_text()
    return kept


def shown_of(folder: Path, life: Life) -> dict[str, str]:
    """The results of today's checkpoints and tasks: others may lie there from earlier."""
    pairs = {f"{ckpt}/{task}" for ckpt in life.rows for task in life.tasks}
    return {
        name: content for name, content in results_of(folder).items()
        if name.count("/") == 2 or name == "results/report.html" or re.sub(r"^results/\w+/|\.jsonl?$", "", name) in pairs
        if not name.endswith((".tex", ".xlsx"))
    }  # fmt: skip


def from_nothing(life: Life, folder: Path) -> Path:
    """The same campaign's results, made anew in another folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("config", "data", *{cells[0] for cells in life.rows.values()}):
        shutil.copytree(life.campaign.folder / name, folder / name)
    environment = {**life.campaign.environment, "PYTHONPATH": f"{life.code / 'scripts'}:{HERE}"}
    done = subprocess.run(
        [sys.executable, str(HERE / "from_nothing.py")],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def make_life(tmp_path: Path) -> Callable[[int], Life]:
    def make(seed: int) -> Life:
        code = copy_code(tmp_path / "code")
        shutil.copyfile(HERE / "answering.py", code / "scripts/evaluate_checkpoint.py")
        shutil.copyfile(HERE / "drawing.py", code / "scripts/plot.py")
        return Life(tmp_path / "campaign", code, random.Random(seed))

    return make


@pytest.mark.parametrize("seed", range(max(1, EVENTS // LIFE)))
def test_every_result_is_that_of_a_run_from_nothing(
    seed: int, make_life: Callable[[int], Life], tmp_path: Path
) -> None:
    life = make_life(seed)
    life.write()
    assert life.campaign.run().rc == 0
    story = []
    for _ in range(LIFE):
        story.append(life.play())
        run = life.campaign.run()
        told = f"seed {seed}, after {json.dumps(story, indent=1)}:\n{run.said[-3000:]}"
        assert run.rc == 0, told
        expected, there = shown_of(from_nothing(life, tmp_path / "nothing"), life), shown_of(life.campaign.folder, life)
        differ = [name for name in expected.keys() | there.keys() if expected.get(name) != there.get(name)]
        assert differ == [], told
