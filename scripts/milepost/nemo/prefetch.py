"""Download what a campaign needs from the Hugging Face hub into the caches, for nodes that cannot reach the hub.

Everything is loaded as the run will load it: first from the caches alone, then what is missing with the hub, and that once
more without the hub, which proves that it is all there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.campaign.models import find_model
from milepost.campaign.types import Campaign
from milepost.errors import EnvironmentMissingError, MilepostError
from milepost.nemo.ask import LM_EVAL
from milepost.nemo.catalogue import included_tasks, read_catalogue
from milepost.nemo.check import find_benchmark
from milepost.nemo.installation import ENVIRONMENT, NemoInstallation, installation_of
from milepost.nemo.prefetch_worker import MARK
from milepost.nemo.run import OFFLINE
from milepost.runtime.containers import read_containers
from milepost.runtime.environments import environment_python
from milepost.tasks.data_files import hub_file
from milepost.tasks.lm_eval_files import include_folders

WORKER = Path(__file__).with_name("prefetch_worker.py")
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
# Variables that go into an image only for this: the hub's token under its older name, and older names of its caches.
PASSED_ON = re.compile(r"HUGGING_FACE_\w+|TRANSFORMERS_CACHE")


class PrefetchError(MilepostError):
    """Something that a run needs is not in the caches and could not be fetched."""


@dataclass(frozen=True)
class Download:
    """One data set, file, tokenizer or model that should be in the caches.

    Attributes:
        title: Its name in messages.
        options: What the worker loads: a task's name and folders, a model's name, revision, weights and code, or a file with
            the name and revision of its data set.
    """

    title: str
    options: dict[str, Any]


@dataclass
class Loading:
    """The downloads for one environment or image, which has its own versions of the loading libraries."""

    installation: NemoInstallation
    tasks: list[Download] = field(default_factory=list)
    models: list[Download] = field(default_factory=list)


@dataclass
class PrefetchPlan:
    """All downloads that a campaign needs, and notes on what cannot be fetched for it beforehand."""

    loadings: list[Loading]
    left: list[str]


def hub_home() -> Path:
    """The folder of the Hugging Face caches, as the libraries and the runs find it."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")


def make_plan(campaign: Campaign) -> PrefetchPlan:
    """Collect what a campaign needs: the data of its lm-eval tasks, the hub models of its sheet, and the tokenizers it names.

    Raises:
        ConfigError: A wrong include path, or an evaluation that is not there.
        HarnessError: An environment or image does not say what it can run.
        EnvironmentMissingError: A task's environment is not installed.
        ModelError: A checkpoint that is neither a folder nor a hub model with its commit.
    """
    loadings: dict[NemoInstallation, Loading] = {}
    left: list[str] = []
    containers = read_containers(campaign.config)
    for task in campaign.nemo.values():
        installation = installation_of(task.container, task.environment, containers)
        folders = include_folders(task.params)
        included = included_tasks(folders, installation) if folders else {}
        where = f"config/tasks/{task.name}.yaml"
        benchmark, name = find_benchmark(task.eval_type, read_catalogue(installation), included, where)
        if benchmark.harness != LM_EVAL:
            left.append(
                f"the data of task {task.name!r}: {benchmark.harness} fetches it while it runs, and offers no way to do so before. If"
                " the nodes cannot reach the internet, run it once on this host, with this HF_HOME, params.limit_samples"
                " 1 and any endpoint, and see docs/nemo.md"
            )
            continue
        options = {"name": name, "folders": [str(folder) for folder in folders]}
        loadings.setdefault(installation, Loading(installation)).tasks.append(
            Download(f"data of task {task.name!r} ({name})", options)
        )
    models = [*wanted_files(campaign), *wanted_models(campaign)]
    if models:
        with_hub = NemoInstallation(next((name for name in (ENVIRONMENT, "vllm") if _is_installed(name)), ENVIRONMENT))
        loadings.setdefault(with_hub, Loading(with_hub)).models = models
    return PrefetchPlan(list(loadings.values()), left)


def wanted_files(campaign: Campaign) -> Iterator[Download]:
    """Yield the files on the hub that tasks of our own name as their data."""
    for task in campaign.native.values():
        one = hub_file(task.data or "")
        if one is not None:
            options = {"name": one.name, "revision": one.revision, "file": one.file}
            yield Download(f"data of task {task.name!r} ({task.data})", options)


def wanted_models(campaign: Campaign) -> Iterator[Download]:
    """Yield the hub models of the sheet with their weights, and the tokenizers that checkpoints and tasks name, each once."""
    seen: set[str] = set()
    for ckpt in campaign.checkpoints.values():
        if ckpt.endpoint is not None:
            continue
        find_model(ckpt)  # raises the error for a name that is no hub model's
        if not Path(ckpt.model).is_dir() and ckpt.model + str(ckpt.revision) not in seen:
            seen.add(ckpt.model + str(ckpt.revision))
            code = ckpt.serving.vllm_args.get("trust-remote-code") in (True, "true")
            options = {"name": ckpt.model, "revision": ckpt.revision, "weights": True, "code": code}
            yield Download(f"model {ckpt.model}", options)
    tokenizers = [str(ckpt.serving.vllm_args.get("tokenizer", "")) for ckpt in campaign.checkpoints.values()]
    for task in campaign.nemo.values():
        extra = task.params.get("extra", {})
        tokenizers += [task.tokenizer or "", str(extra.get("tokenizer") or "")]
    for name in dict.fromkeys(tokenizers):
        if HUB_NAME.fullmatch(name) and not Path(name).exists() and name not in seen:
            yield Download(f"tokenizer {name}", {"name": name, "revision": None, "weights": False, "code": False})


def fetch(loading: Loading, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Download all that one installation needs into the caches.

    Args:
        loading: The environment or image, and what it loads.
        say: Called with a line for each download that is complete.

    Returns:
        What failed: the worker's answers, each with the `title` of what it was asked for.
    """
    wanted = [*loading.tasks, *loading.models]
    here = load(loading, wanted, offline=True)
    for one in wanted:
        if "said" in here[one.title]:
            say(f"there     {one.title}: {here[one.title]['said']}")
    missing = [one for one in wanted if "said" not in here[one.title]]
    fetched = load(loading, missing, offline=False)
    checked = load(loading, [one for one in missing if "said" in fetched[one.title]], offline=True)
    failed = []
    for one in missing:
        if "said" in checked.get(one.title, {}):
            say(f"fetched   {one.title}: {checked[one.title]['said']}")
            continue
        answer = fetched[one.title]
        if one.title in checked:
            because = f"it loads with the hub, but not without it afterwards: {checked[one.title]['error']}"
            answer = {"error": because, "kind": "other"}
        failed.append({"title": one.title, **answer})
    return failed


def load(loading: Loading, wanted: Sequence[Download], *, offline: bool) -> dict[str, dict[str, Any]]:
    """Load data or models in one process of the installation.

    Returns:
        The worker's answer for each download, by title.

    Raises:
        PrefetchError: The worker itself failed.
    """
    if not wanted:
        return {}
    installation = loading.installation
    tasks = [one.options for one in wanted if one in loading.tasks]
    models = [one.options for one in wanted if one in loading.models]
    request = json.dumps({"tasks": tasks, "models": models})
    switches = {**dict.fromkeys(OFFLINE, str(int(offline))), "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
    binds: list[Path] = []
    if installation.image is not None:
        home = hub_home().resolve()
        home.mkdir(parents=True, exist_ok=True)
        switches |= {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        switches["HF_HOME"] = str(home)
        binds = [home, *(Path(folder).resolve() for task in tasks for folder in task["folders"])]
    command, env = installation.python([request], switches, binds)
    done = subprocess.run(command, input=WORKER.read_text(), env=env, capture_output=True, text=True, check=False)
    answers = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if len(answers) != len(wanted):
        last = " ".join(done.stderr.strip().splitlines()[-3:]) or "nothing"
        raise PrefetchError(
            f"The data of the {installation.title} could not be loaded (exit code {done.returncode}). Last lines: {last}"
        )
    ordered = [one for one in wanted if one in loading.tasks] + [one for one in wanted if one in loading.models]
    return {one.title: answer for one, answer in zip(ordered, answers, strict=True)}


def explain(failed: Sequence[dict[str, Any]]) -> str:
    """The message of the error: all that is missing, and what to do about it, in one paragraph."""

    def listed(kind: str) -> list[dict[str, Any]]:
        return [one for one in failed if one["kind"] == kind]

    def titles(kind: str) -> str:
        return ", ".join(one["title"] for one in listed(kind))

    parts = []
    if listed("hub"):
        parts.append(
            f"Not in the caches of {hub_home()} and not to be had, because the Hugging Face hub cannot be reached from this"
            f" host ({_first_line(listed('hub')[0])}): {titles('hub')}. Run this on a host with a way there, often a login"
            " host, with HF_HOME on a folder that the nodes see too; behind a proxy, set HTTPS_PROXY, and for a mirror"
            " HF_ENDPOINT."
        )
    if listed("refused"):
        parts.append(
            f"The hub refused {titles('refused')} ({_first_line(listed('refused')[0])}). Correct the name or the commit; if"
            " its owner asks for consent, give it on its page and set HF_TOKEN."
        )
    parts += [f"{one['title']} could not be loaded: {_first_line(one)}." for one in listed("other")]
    return " ".join(parts)


def _first_line(answer: dict[str, Any]) -> str:
    lines: list[str] = str(answer["error"]).strip().splitlines()
    return lines[0].rstrip(".")[:300]


def _is_installed(environment: str) -> bool:
    try:
        environment_python(environment)
    except EnvironmentMissingError:
        return False
    return True
