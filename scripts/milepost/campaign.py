"""What a campaign evaluates: config/config.yaml, the sheet of checkpoints and the tasks, checked against closed schemas."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milepost.errors import ConfigError, ModelError, UnknownTaskError, did_you_mean
from milepost.schemas import SCHEMAS, check, read_yaml

if TYPE_CHECKING:
    from milepost.endpoints.specs import EndpointSpec

WORKFLOW = Path(__file__).resolve().parents[2]
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

# The parts of a task's file, so that a change in one reruns only what depends on it.
NATIVE_QUESTIONS = ("version", "generation", "data", "format", "system", "samples", "sampling", "limit")
NEMO_QUESTIONS = (
    "version", "generation", "eval_type", "endpoint_type", "params", "tokenizer", "adapter", "environment", "container",
    "samples", "limit",
)  # fmt: skip
# What of a NeMo task's settings changes no answer: nothing is asked again for it.
NEMO_TUNING = {
    "params": ("parallelism", "request_timeout", "max_retries"),
    "adapter": (
        "log_failed_requests",
        "use_request_logging",
        "use_response_logging",
        "save_requests",
        "save_responses",
    ),
}
SCORING = ("scorer", "metric")


@dataclass(frozen=True)
class Serving:
    """How a checkpoint is served: its model profile with its row's own options on top."""

    gpus: int = 1
    vllm_args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    concurrency: int = 64
    start_timeout_s: float = 1800.0
    request_timeout_s: float = 600.0
    retries: int = 5
    stage: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """One row of the sheet. `run` and `step` place it on a curve and are no part of what it is.

    With an `endpoint`, others serve it: `model` is then its name there, and no file of it is here.
    """

    name: str
    model: str
    revision: str | None
    run: str | None
    step: float | None
    generation: int
    serving: Serving
    model_profile: str = "default"
    endpoint: EndpointSpec | None = None


@dataclass(frozen=True)
class Task:
    """One file of config/tasks."""

    name: str
    spec: dict[str, Any]

    @property
    def kind(self) -> str:
        """`nemo` for NeMo Evaluator's tasks, `native` for our own."""
        return "nemo" if self.spec.get("harness") == "nemo" else "native"

    @property
    def title(self) -> str:
        """Name for people."""
        return str(self.spec.get("title", self.name))

    def questions(self) -> dict[str, Any]:
        """The part of the file that decides what is asked."""
        keys = NEMO_QUESTIONS if self.kind == "nemo" else NATIVE_QUESTIONS
        asked = {key: self.spec[key] for key in keys if key in self.spec}
        if self.kind == "nemo":
            for part, inert in NEMO_TUNING.items():
                if part in asked:
                    asked[part] = {key: value for key, value in asked[part].items() if key not in inert}
        return asked

    def tuning(self) -> dict[str, dict[str, Any]]:
        """The settings of a NeMo task that change no answer, `params` and `adapter`."""
        return {
            part: {key: value for key, value in self.spec.get(part, {}).items() if key in inert}
            for part, inert in NEMO_TUNING.items()
        }

    def scoring(self) -> dict[str, Any]:
        """The part of the file that decides scores."""
        return {key: self.spec[key] for key in SCORING if key in self.spec}


@dataclass(frozen=True)
class Campaign:
    """All checkpoints, all tasks: the matrix that `rule all` asks for."""

    config: dict[str, Any]
    checkpoints: dict[str, Checkpoint]
    tasks: dict[str, Task]

    def named(self, kind: str) -> list[str]:
        """Names of the tasks of one kind."""
        return [task.name for task in self.tasks.values() if task.kind == kind]


def load_config() -> dict[str, Any]:
    """The campaign's configuration as Snakemake merged it, or config/config.yaml when a step is run by hand.

    The workflow hands its configuration down in the environment, so that `--configfile` and `--config` hold in every
    step without becoming a parameter that would rerun it.
    """
    handed = os.environ.get("MILEPOST_CONFIG")
    config = json.loads(handed) if handed else read_yaml(Path("config/config.yaml"))
    return dict(config)


def load_campaign(config: Mapping[str, Any] | None = None) -> Campaign:
    """Read and check the campaign in the current folder.

    Raises:
        ConfigError: An unknown key, task or profile, a wrong value, or a checkpoint named twice.
    """
    from milepost.endpoints.specs import load_endpoints

    config = dict(config if config is not None else load_config())
    check(config, "config", "config/config.yaml")
    tasks = {name: load_task(name) for name in config["tasks"]}
    sheet = Path(config.get("checkpoints", "config/checkpoints.tsv"))
    checkpoints = read_checkpoints(sheet, config.get("model_profiles", {}))
    load_endpoints()  # also where nothing refers to one: a wrong entry is found before it is needed
    return Campaign(config, checkpoints, tasks)


def load_task(name: str) -> Task:
    """Read and check config/tasks/{name}.yaml.

    Raises:
        UnknownTaskError: There is no such file; the message names those that there are.
    """
    path = Path("config/tasks") / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or not path.is_file():
        known = sorted(file.stem for file in Path("config/tasks").glob("*.yaml"))
        raise UnknownTaskError(
            f"config/config.yaml asks for task {name!r}. Tasks in config/tasks: {', '.join(known) or 'none'}."
            f"{did_you_mean(name, known)} Correct the name, or add {path}."
        )
    spec = read_yaml(path)
    if spec.get("harness") == "nemo":
        check(spec, "task_nemo", str(path))
    else:
        check(spec, "task_native", str(path))
        check_scorer(spec["scorer"], str(path))
    return Task(name, spec)


def check_scorer(spec: Mapping[str, Any], where: str) -> None:
    """Check a task's `scorer` against the schema of the scorer that it names.

    Raises:
        UnknownScorerError: No such scorer; the message names those that there are.
    """
    from milepost.errors import UnknownScorerError

    name = spec["name"]
    known = sorted(file.stem for file in (SCHEMAS / "scorers").glob("*.yaml"))
    if name not in known:
        raise UnknownScorerError(
            f"{where} asks for scorer {name!r}. Scorers: {', '.join(known)}.{did_you_mean(name, known)} "
            "Correct the name, or add a module to scripts/milepost/scorers with its schema in config/schemas/scorers."
        )
    check(spec, f"scorers/{name}", f"{where}, scorer")


def read_checkpoints(sheet: Path, profiles: Mapping[str, Mapping[str, Any]]) -> dict[str, Checkpoint]:
    """Read the sheet of checkpoints; rows with `{step}` are spread over the folders that fit.

    Raises:
        ConfigError: An unknown column or profile, a pattern without a folder, or a name that stands twice.
    """
    try:
        text = sheet.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark first
        lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    except FileNotFoundError:
        raise ConfigError(
            f"{sheet} does not exist (looked for in {Path.cwd()}). It lists one checkpoint a row."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{sheet} is not UTF-8 ({error}). Save it as UTF-8 text.") from None
    checkpoints: dict[str, Checkpoint] = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        if None in row or None in row.values():
            raise ConfigError(
                f"{sheet}: the row of {row.get('name')!r} has not as many columns as the header. Separate by tabs."
            )
        cells = {key: value.strip() for key, value in row.items() if value.strip()}
        for cells_of_one in spread(cells, sheet):
            check(cells_of_one, "checkpoint", f"{sheet}, row {cells_of_one.get('name', '')!r}")
            ckpt = parse_checkpoint(cells_of_one, sheet, profiles)
            if ckpt.name in checkpoints:
                raise ConfigError(f"{sheet} names the checkpoint {ckpt.name!r} twice. Names file results: rename one.")
            checkpoints[ckpt.name] = ckpt
    if not checkpoints:
        raise ConfigError(
            f"{sheet} lists no checkpoint. Add a row for each: a name and the model's folder, separated by a tab."
        )
    return checkpoints


def spread(cells: dict[str, str], sheet: Path) -> list[dict[str, str]]:
    """One row per folder that a `{step}` in `model` fits, by ascending step."""
    model = re.sub("/+", "/", cells.get("model", ""))
    if "{step}" not in "".join(cells.values()):
        return [cells]
    if model.count("{step}") != 1 or "{step}" not in cells.get("name", ""):
        raise ConfigError(
            f"{sheet}: a row with {{step}} needs it once in 'model', and in 'name' (row {cells.get('name')!r})."
        )
    before, after = model.split("{step}")
    fits = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    paths = glob.iglob(f"{glob.escape(before)}*{glob.escape(after)}")
    found = [(int(fit[1]), fit[1]) for fit in map(fits.fullmatch, paths) if fit]
    if not found:
        raise ConfigError(
            f"{sheet}: no folder fits the pattern {model!r} (from {Path.cwd()}). Train first, or correct it."
        )
    return [{key: value.replace("{step}", step) for key, value in cells.items()} for _, step in sorted(found)]


def parse_checkpoint(cells: Mapping[str, str], sheet: Path, profiles: Mapping[str, Mapping[str, Any]]) -> Checkpoint:
    """Make a checkpoint of its row and its model profile."""
    where = f"{sheet}, row {cells['name']!r}"
    if "endpoint" in cells:
        from milepost.endpoints.specs import checkpoint_at

        return checkpoint_at(cells, where)
    if "model" not in cells:
        raise ConfigError(f"{where} has neither a model nor an endpoint. Fill in one of these columns.")
    name = cells.get("model_profile", "default")
    if name not in profiles and name != "default":
        raise ConfigError(
            f"{where} asks for model profile {name!r}. Profiles in config/config.yaml: {', '.join(sorted(profiles)) or 'none'}."
            f"{did_you_mean(name, profiles)}"
        )
    options = dict(profiles.get(name, {}))
    given = {**options.get("vllm_args", {}), **parse_options(cells.get("vllm_args", ""), where)}
    # vLLM takes both spellings; one option must not stand here twice, nor be two identities.
    options["vllm_args"] = {name.replace("_", "-"): value for name, value in given.items()}
    if "gpus" in cells:
        options["gpus"] = int(cells["gpus"])
    serving = Serving(**options)
    size = 1
    for kind in ("tensor", "pipeline", "data"):
        given_size = str(serving.vllm_args.get(f"{kind}-parallel-size", 1))
        if not re.fullmatch("[1-9][0-9]*", given_size):
            raise ConfigError(f"{where}: {kind}-parallel-size is {given_size!r}. It must be a whole number from 1 on.")
        size *= int(given_size)
    if serving.gpus not in (size, 0) or (serving.gpus == 0 and size > 1):
        raise ConfigError(
            f"{where}: tensor x pipeline x data parallel sizes make {size}, but gpus is {serving.gpus}. They must be the same"
            " (gpus 0 is for vLLM's CPU build)."
        )
    return Checkpoint(
        name=cells["name"],
        model=cells["model"],
        revision=cells.get("revision"),
        run=cells.get("run"),
        step=parse_step(cells),
        generation=int(cells.get("generation", 1)),
        serving=serving,
        model_profile=name,
    )


def parse_step(cells: Mapping[str, str]) -> float | None:
    """Where a row stands on its curve."""
    step = cells.get("step")
    return None if not step else int(step) if step.isdigit() else float(step)


def parse_options(text: str, where: str) -> dict[str, Any]:
    """Options of a command line as a mapping; a switch becomes true.

    >>> parse_options("--dtype float32 --enforce-eager --seed=1", "")
    {'dtype': 'float32', 'enforce-eager': True, 'seed': '1'}
    """
    options: dict[str, Any] = {}
    name = None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{where}: vllm_args cannot be read: {error}.") from None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else True
            name = None if equals else name
        elif name:
            options[name] = word
            name = None
        else:
            raise ConfigError(f"{where}: vllm_args holds {word!r} where an option (--name value) is expected.")
    return options


def find_model(ckpt: Checkpoint) -> Path | None:
    """The folder that holds the model's files, or None if they are not on this machine: a hub model's, an endpoint's.

    Raises:
        ModelError: A folder that is not there, or a hub model without a revision.
    """
    if ckpt.endpoint is not None:
        return None
    folder = Path(ckpt.model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"Checkpoint {ckpt.name!r}: {folder} holds no config.json, so it is no model that vLLM can serve."
            )
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", ckpt.model) or folder.parent.is_dir():
        raise ModelError(
            f"Checkpoint {ckpt.name!r}: the model folder {ckpt.model} does not exist (from {Path.cwd()})."
            " Correct the column 'model', or take the row out."
        )
    if not ckpt.revision or not re.fullmatch(r"[0-9a-f]{40}", ckpt.revision):
        raise ModelError(
            f"Checkpoint {ckpt.name!r}: {ckpt.model} is no folder here. As the name of a hub model it needs its commit"
            " (40 hexadecimal digits) in the column 'revision', or its numbers would belong to no certain model."
        )
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    snapshot = home / "hub" / f"models--{ckpt.model.replace('/', '--')}" / "snapshots" / ckpt.revision
    return snapshot if snapshot.is_dir() else None


def has_chat_template(folder: Path, serving: Serving) -> bool:
    """Whether chat requests can be served: a template in the options, beside the tokenizer or inside its configuration."""
    if "chat-template" in serving.vllm_args:
        return True
    tokenizer = Path(str(serving.vllm_args.get("tokenizer", folder)))
    if any((tokenizer / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        return bool(json.loads((tokenizer / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except FileNotFoundError:
        return False


def check_campaign(campaign: Campaign) -> None:
    """What can be seen to be wrong before anything runs: comparisons, models, chat templates, items.

    Raises:
        ConfigError: A checkpoint or run to be compared that does not exist.
        ModelError: A model folder that is missing, or has no chat template where a task chats.
        RecordError: Items that are malformed, empty or share an id; names file and line.
    """
    from milepost.pairs import plan_pairs
    from milepost.scorers.avert_settings import compared_by
    from milepost.tasks import asks_chat, load_items

    plan_pairs(campaign.config, campaign.checkpoints)
    for task in campaign.tasks.values():
        if task.spec.get("scorer", {}).get("name") == "avert":
            compared_by(task.spec["scorer"], task.name)
    chats = [name for name, task in campaign.tasks.items() if asks_chat(task, load_items(task))]
    for ckpt in campaign.checkpoints.values():
        folder = find_model(ckpt)
        if folder is not None and chats and not has_chat_template(folder, ckpt.serving):
            raise ModelError(
                f"Checkpoint {ckpt.name!r}: the tokenizer in {folder} has no chat template, and {_listed(chats)} chats."
                " Add one (vllm_args: --chat-template FILE), or ask with 'prompt' in place of 'messages'."
            )


def _listed(names: Iterable[str]) -> str:
    return "task " + ", ".join(repr(name) for name in names)
