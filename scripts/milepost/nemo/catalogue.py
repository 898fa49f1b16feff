"""What NeMo Evaluator can run in an environment or an image: harnesses, their benchmarks, and the tasks behind them.

The environment or image itself is asked, which takes seconds, and its answer is kept in the user's cache folder until its
packages or the image change. Nothing here is asked before a task of NeMo Evaluator is planned.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from milepost.errors import EnvironmentMissingError, HarnessError
from milepost.nemo.ask import LM_EVAL, MARK
from milepost.nemo.installation import ENVIRONMENT, NemoInstallation, own_harnesses
from milepost.records import write_record
from milepost.runtime.containers import require_image
from milepost.runtime.environments import environment_python, harness_folders

# Apptainer colours its messages.
COLOURS = re.compile("\x1b\\[[0-9;]*m")
ASK = Path(__file__).with_name("ask.py")
TIMEOUT_S = 600
# What lm-eval asks for by log-probabilities, which a chat does not give.
LOG_PROBABILITIES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark that `nemo-evaluator ls` lists, or the defaults for those tasks of a harness that it does not list.

    Attributes:
        harness: The harness that runs it.
        name: Its `eval_type`; empty for what is not listed.
        endpoint_types: What it takes; empty where the harness does not say.
        task: The harness's own name of it.
        params: NeMo Evaluator's parameters as they are preset, `extra` included.
        known_params: The parameters that its command line uses.
        known_extra: Those under `extra`.
        log_probabilities: Whether it says that it needs them.
    """

    harness: str
    name: str
    endpoint_types: tuple[str, ...]
    task: str | None
    params: dict[str, Any]
    known_params: tuple[str, ...]
    known_extra: tuple[str, ...]
    log_probabilities: bool


@dataclass(frozen=True)
class Interface:
    """How runs are started in an environment or image.

    Attributes:
        program: `nemo-evaluator` up to 0.2, `nel` from 0.3 on.
        key: The field of its configuration that names the variable of the endpoint's key, up to 0.2.
    """

    program: str = "nemo-evaluator"
    key: str = "api_key_name"

    @property
    def is_nel(self) -> bool:
        """Whether it is the program of 0.3 and later."""
        return self.program == "nel"


@dataclass(frozen=True)
class Catalogue:
    """What one environment or image can run.

    Attributes:
        where: The environment or image, for messages.
        benchmarks: By harness and name.
        defaults: By harness: what holds for its tasks that are not listed.
        tasks: By harness, for those whose own list could be had: name to `{"kind", "asks"?, "members"?}`.
        options: By harness, the options that its `params.extra.args` may hold, where they are known.
        versions: Of NeMo Evaluator and the packages of its harnesses.
        interface: How its runs are started.
    """

    where: str
    benchmarks: dict[str, dict[str, Benchmark]]
    defaults: dict[str, Benchmark]
    tasks: dict[str, dict[str, dict[str, Any]]]
    options: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    interface: Interface = field(default_factory=Interface)

    def named(self, name: str) -> list[Benchmark]:
        """The benchmarks of a name, one for each harness that has it."""
        return [listed[name] for listed in self.benchmarks.values() if name in listed]

    def __iter__(self) -> Iterator[Benchmark]:
        """Every benchmark, by harness and name."""
        for harness in sorted(self.benchmarks):
            for name in sorted(self.benchmarks[harness]):
                yield self.benchmarks[harness][name]


@cache
def read_catalogue(installation: NemoInstallation) -> Catalogue:
    """Read what an environment or image can run; it is asked once, and again only after it has changed.

    Raises:
        EnvironmentMissingError: The environment is not installed.
        ContainerError: No such image, or no Apptainer to ask it with.
        HarnessError: There is no NeMo Evaluator in it, or it does not answer.
    """
    answer = _remembered(installation, ())
    harnesses: dict[str, Any] = answer["harnesses"]
    return Catalogue(
        where=f"the {installation.title}",
        benchmarks={
            harness: {name: _benchmark(harness, name, said) for name, said in found["benchmarks"].items()}
            for harness, found in harnesses.items()
        },
        defaults={harness: _benchmark(harness, "", found["defaults"]) for harness, found in harnesses.items()},
        tasks=answer["tasks"],
        options=answer["options"],
        versions=answer["versions"],
        interface=Interface(**answer["interface"]),
    )


def included_tasks(folders: Sequence[Path], installation: NemoInstallation) -> dict[str, Any]:
    """Read which lm-eval tasks, groups and tags folders of task files (`--include_path`) add.

    Args:
        folders: Searched for `*.yaml` files, as lm-eval does.
        installation: Whose lm-eval reads them.

    Raises:
        HarnessError: One of them is not there, or lm-eval cannot read it.
    """
    for folder in folders:
        if not folder.is_dir():
            raise HarnessError(
                f"The folder of lm-eval tasks {str(folder)!r} (--include_path) does not exist (from {Path.cwd()})."
            )
    tasks: dict[str, Any] = _remembered(installation, tuple(folder.resolve() for folder in folders))["tasks"]
    return dict(tasks.get(LM_EVAL, {}))


def asks_log_probabilities(name: str, tasks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an lm-eval task, or any task of a group or tag, asks for log-probabilities.

    >>> asks_log_probabilities("g", {"g": {"members": ["a"]}, "a": {"asks": "multiple_choice"}})
    True
    """
    seen: set[str] = set()
    open_names = [name]
    while open_names:
        one = open_names.pop()
        if one in seen or one not in tasks:
            continue
        seen.add(one)
        if tasks[one].get("asks") in LOG_PROBABILITIES:
            return True
        open_names += tasks[one].get("members", [])
    return False


def _benchmark(harness: str, name: str, said: Mapping[str, Any]) -> Benchmark:
    """Read one benchmark from the answer; parameters count only as far as its command line uses them."""
    listed, told_apart = said["endpoint_types"], said["told_apart"]
    types = [kind for kind in listed if kind in told_apart] or listed if told_apart else listed
    return Benchmark(
        harness=harness,
        name=name,
        endpoint_types=tuple(types or told_apart),
        task=said["params"].get("task"),
        params={key: value for key, value in said["params"].items() if key != "task"},
        known_params=tuple(said["known_params"]),
        known_extra=tuple(said["known_extra"]),
        log_probabilities="logprobs" in said["capabilities"],
    )


def _remembered(installation: NemoInstallation, folders: tuple[Path, ...]) -> dict[str, Any]:
    """The environment's or image's answer, from the cache if nothing has changed since it was asked."""
    state = json.dumps([_state(installation), [_listing(folder) for folder in folders]])
    path = _cache() / f"{hashlib.sha256(state.encode()).hexdigest()[:32]}.json"
    try:
        return dict(orjson.loads(path.read_bytes()))
    except (OSError, ValueError):
        pass
    answer = _ask(installation, folders)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, answer)
    except OSError:
        pass  # it is asked again the next time
    return answer


def _ask(installation: NemoInstallation, folders: Sequence[Path]) -> dict[str, Any]:
    """Ask the environment or image itself, in a process of its own."""
    env = {"NEMO_EVALUATOR_TELEMETRY_LEVEL": "0", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if installation.image is None:
        env |= own_harnesses()
    command, env = installation.python([str(folder) for folder in folders], env, folders)
    try:
        done = subprocess.run(
            command, input=ASK.read_text(), env=env, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"The {installation.title} could not be asked what it can run: {error}.") from None
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return dict(json.loads(line.removeprefix(MARK)))
    last_lines = " ".join(COLOURS.sub("", done.stderr).split("\n")[-4:]).strip()
    if done.returncode == 127 or "No module named 'nemo_evaluator'" in done.stderr:
        raise HarnessError(_not_there(installation))
    raise HarnessError(
        f"The {installation.title} does not say what NeMo Evaluator can run there: {last_lines or 'nothing'}"
    )


def _not_there(installation: NemoInstallation) -> str:
    if installation.environment is None:
        return (
            f"The image {installation.image} holds no NeMo Evaluator: there is neither a command 'nemo-evaluator' nor 'nel' in it. Correct 'container'"
            " in the task's file or 'containers' in the config, or set bind_environments there if the image is a bare system."
        )
    return (
        f"NeMo Evaluator is not installed in the environment {installation.environment!r}. Correct 'environment' in the task's file to"
        f" one that holds it (such as {ENVIRONMENT!r}), or install it: envs/setup.sh {ENVIRONMENT}."
    )


def _state(installation: NemoInstallation) -> list[Any]:
    """What an answer in the cache depends on: the installed packages by name and version, or the image's file."""
    code = hashlib.sha256(ASK.read_bytes()).hexdigest()
    inside: list[Any] = []
    if installation.image is not None:
        state = require_image(installation.image).stat()
        inside = [os.path.realpath(installation.image), state.st_size, state.st_mtime_ns]
    if installation.environment is None:
        return [inside, code]
    try:
        python = environment_python(installation.environment)
    except EnvironmentMissingError as error:
        raise EnvironmentMissingError(f"NeMo Evaluator is not installed. {error}") from None
    packages = sorted(
        path.name for path in python.parent.parent.glob("lib/python*/site-packages/*") if path.suffix == ".dist-info"
    )
    if not any(name.startswith("nemo_evaluator-") for name in packages):
        raise HarnessError(_not_there(installation))
    own = [
        [str(path), path.stat().st_mtime_ns]
        for folder in [*harness_folders(), *filter(None, [installation.harness])]
        for path in sorted(folder.glob("core_evals/*/framework.yml"))
    ]
    return [str(python), packages, own, code, inside]


def _listing(folder: Path) -> list[Any]:
    """The task files of a folder with their sizes and times of change."""
    states = [(path, path.stat()) for path in sorted(folder.rglob("*.yaml"))]
    return [str(folder), *([str(path), state.st_size, state.st_mtime_ns] for path, state in states)]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "milepost" / "nemo"
