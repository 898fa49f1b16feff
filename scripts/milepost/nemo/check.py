"""Checks that NeMo Evaluator can run the tasks of a campaign, made before a model is asked anything."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from milepost.campaign.models import find_model
from milepost.campaign.types import Campaign, Checkpoint, NemoTask
from milepost.errors import ConfigError, ContainerError, EnvironmentMissingError, ModelError, did_you_mean, listed
from milepost.nemo import nel
from milepost.nemo.ask import BUILT_IN
from milepost.nemo.catalogue import (
    Benchmark,
    Catalogue,
    asks_log_probabilities,
    included_tasks,
    read_catalogue,
)
from milepost.nemo.installation import installation_of
from milepost.nemo.known_faults import known_faults, untried_version
from milepost.runtime.containers import Containers, find_apptainer, is_made, read_containers
from milepost.tasks.lm_eval_files import command_line, include_folders, local_files

log = logging.getLogger(__name__)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")


def check_nemo_tasks(campaign: Campaign, *, installed: bool = True) -> None:
    """Check every NeMo task against what its environment or image can run.

    Args:
        campaign: The campaign in the current folder.
        installed: Whether an environment that is not installed is an error; a mere plan goes on without it. So does
            everything where an image is yet to be made, or only the nodes have Apptainer.

    Raises:
        ConfigError: An unknown evaluation, an endpoint type that it does not take, a parameter that it does not know.
        ContainerError: An image that is not there, and that nothing makes.
        HarnessError: No NeMo Evaluator where it should be; a file that a task rests on is missing.
        ModelError: A checkpoint without the tokenizer that log-probabilities need.
    """
    containers = read_containers(campaign.config)
    for name, task in campaign.nemo.items():
        low, high = task.range or (0, 1)
        if not -math.inf < low < high < math.inf:
            raise ConfigError(
                f"config/tasks/{name}.yaml: `range: [{low:g}, {high:g}]` is no range. Write the lowest value that the metric "
                "can take, then the highest; leave it out for one without bounds."
            )
        try:
            needs_tokenizer = check_nemo_task(task, containers)
        except (EnvironmentMissingError, ContainerError) as error:
            missing = comes_later(task, campaign.config)
            if missing is None and (installed or isinstance(error, ContainerError)):
                raise
            log.warning("task %r was not checked: %s", name, missing or error)
            continue
        if needs_tokenizer and task.tokenizer is None:
            for ckpt in campaign.checkpoints.values():
                _check_tokenizer(ckpt, name)


def comes_later(task: NemoTask, config: Mapping[str, Any]) -> str | None:
    """What a task needs and what need not be here yet: an image that a rule makes, or Apptainer if only the nodes have it; or None."""
    installation = installation_of(task.container, task.environment, read_containers(config))
    if installation.image is None:
        return None
    if not installation.image.exists():
        source = task.container or config["containers"]["nemo"]
        return f"{installation.image} is yet to be made from {source}." if is_made(source) else None
    try:
        find_apptainer()
    except ContainerError as error:
        return str(error)
    return None


def check_nemo_task(task: NemoTask, containers: Containers | None = None) -> bool:
    """Check one task, and return whether it asks for log-probabilities, and so needs a tokenizer."""
    where = f"config/tasks/{task.name}.yaml"
    containers = containers or Containers()
    if task.container is not None and task.environment is not None and not containers.bind_environments:
        raise ConfigError(f"{where} names both an environment and a container. Take one of them out.")
    installation = installation_of(task.container, task.environment, containers)
    catalogue = read_catalogue(installation)
    local_files(task.eval_type, task.params)
    folders = include_folders(task.params, where)
    included = included_tasks(folders, installation) if folders else {}
    benchmark, name = find_benchmark(task.eval_type, catalogue, included, where)
    tasks = {**included, **catalogue.tasks.get(benchmark.harness, {})}
    asks = benchmark.log_probabilities or asks_log_probabilities(name, tasks)
    for warning in filter(None, [untried_version(catalogue.versions), *known_faults(catalogue, name)]):
        log.warning("%s: %s", where, warning)
    if catalogue.interface.is_nel:
        _check_nel(task, asks, catalogue, where)
    _check_endpoint_type(task.endpoint_type, benchmark, asks, task.eval_type, where)
    _check_params(task.params, benchmark, where)
    if benchmark.harness in catalogue.options:
        _check_options(task.params, catalogue.options[benchmark.harness], where)
    tokenizer = task.tokenizer or ""
    if tokenizer.startswith((".", "/", "~")) and not Path(tokenizer).exists():
        raise ConfigError(f"{where}: the tokenizer {tokenizer!r} does not exist (from {Path.cwd()}).")
    return asks


def find_benchmark(
    eval_type: str, catalogue: Catalogue, included: Mapping[str, Any], where: str
) -> tuple[Benchmark, str]:
    """Find the benchmark that an `eval_type` names, and the harness's own name for it.

    Raises:
        ConfigError: There is no such benchmark; the message names similar ones.
    """
    if nel.is_file(eval_type):
        return _find_file(eval_type, catalogue, where), eval_type
    harness, dot, name = eval_type.partition(".")
    if not dot:
        benchmarks = catalogue.named(eval_type)
        if len(benchmarks) == 1:
            return benchmarks[0], benchmarks[0].task or eval_type
        if benchmarks:
            choice = " or ".join(f"{one.harness}.{eval_type}" for one in benchmarks)
            raise ConfigError(f"{where}: several harnesses have {eval_type!r}. Say which one: eval_type: {choice}.")
        besides = [f"{one}.{eval_type}" for one, tasks in catalogue.tasks.items() if eval_type in {**tasks, **included}]
        hint = f" Did you mean {besides[0]!r}?" if besides else did_you_mean(eval_type, {one.name for one in catalogue})
        raise ConfigError(
            f"{where} asks for {eval_type!r}, which NeMo Evaluator does not list in {catalogue.where}. {_listed(catalogue)}"
            f"{hint} `snakemake list_evals` shows them all; HARNESS.TASK reaches what a harness has besides."
        )
    if harness not in catalogue.benchmarks:
        raise ConfigError(
            f"{where} asks for the harness {harness!r}, which is not in {catalogue.where}. Harnesses there: "
            f"{', '.join(sorted(catalogue.benchmarks)) or 'none'}.{did_you_mean(harness, catalogue.benchmarks)}"
            " Correct 'eval_type', or name the environment or container that has it."
        )
    if name in catalogue.benchmarks[harness]:
        benchmark = catalogue.benchmarks[harness][name]
        return benchmark, benchmark.task or name
    own = catalogue.tasks.get(harness)
    if name in included and own is not None and name in own:
        raise ConfigError(
            f"{where}: {harness} has a task {name!r} of its own, which wins over the one in --include_path. Give"
            " yours another name."
        )
    if own is not None and name not in own and name not in included:
        listed = f"Tasks there: {', '.join(sorted(included))}. " if included else ""
        raise ConfigError(
            f"{where} asks for the task {name!r}, which {harness} in {catalogue.where} does not have, among"
            f" {len(own)} tasks, groups and tags of its own and {len(included)} from --include_path. {listed}"
            f"{did_you_mean(name, [*included, *own]).strip()} Correct 'eval_type', or add the folder of its task file:"
            ' params: {extra: {args: "--include_path FOLDER"}}.'
        )
    if own is None:
        log.warning("%s: %s does not list %r, and cannot be asked what it has besides.", where, harness, name)
    return catalogue.defaults[harness], name


def _find_file(eval_type: str, catalogue: Catalogue, where: str) -> Benchmark:
    """What holds for a benchmark in a Python file of the user's."""
    file = eval_type.partition(":")[0]
    if not catalogue.interface.is_nel:
        raise ConfigError(
            f"{where}: {eval_type!r} is a benchmark in a Python file, which NeMo Evaluator takes from 0.3 on, and {catalogue.where}"
            f" holds {catalogue.versions.get('nemo-evaluator', 'an earlier one')}. Add `environment: nemo-0.3`, or give lm-eval a task file."
        )
    if not Path(file).is_file():
        raise ConfigError(f"{where}: the benchmark file {file!r} does not exist (from {Path.cwd()}).")
    return catalogue.defaults[BUILT_IN]


def _check_nel(task: NemoTask, asks: bool, catalogue: Catalogue, where: str) -> None:
    """Refuse what NeMo Evaluator cannot do from 0.3 on, and would leave out without a word or find out late."""
    version = catalogue.versions.get("nemo-evaluator", "0.3")
    instead = f"NeMo Evaluator {version} in {catalogue.where} cannot do it; `environment: nemo` can."
    if asks:
        raise ConfigError(f"{where}: {task.eval_type!r} asks for log-probabilities. {instead}")
    if "args" in task.params.get("extra", {}):
        raise ConfigError(
            f"{where}: params.extra.args are options of lm-eval's command line, which is not called. {instead} A benchmark of your own"
            " can also be a Python file, `eval_type: FILE.py`; docs/nemo.md shows one."
        )
    if not isinstance(task.params.get("limit_samples", 1), int):
        raise ConfigError(f"{where}: limit_samples is a share of the items. {instead} Or write a number of items.")
    unknown = [name for name in task.adapter if name not in (*nel.ADAPTER, "use_caching")]
    if unknown:
        raise ConfigError(f"{where}: adapter has {unknown[0]!r}. {instead} What both take: {', '.join(nel.ADAPTER)}.")


def _check_endpoint_type(given: str, benchmark: Benchmark, asks: bool, eval_type: str, where: str) -> None:
    takes = [kind for kind in benchmark.endpoint_types if not (asks and kind == "chat")]
    if takes and given not in takes:
        why = ""
        if asks and given == "chat":
            why = " It asks for log-probabilities, which a chat does not give."
        elif given == "completions_logprob" and "completions" in takes:
            why = " Its log-probability tasks run with 'completions'."
        raise ConfigError(
            f"{where}: {eval_type!r} does not take endpoint_type {given!r}. It takes: {', '.join(takes)}.{why}"
        )


def _check_params(params: Mapping[str, Any], benchmark: Benchmark, where: str) -> None:
    """Refuse parameters that the harness's command line does not use: they would be ignored without a word."""
    for given, known, inside in (
        ([name for name in params if name != "extra"], benchmark.known_params, "params"),
        (list(params.get("extra", {})), sorted({*benchmark.known_extra, *benchmark.params.get("extra", {})}), "params.extra"),
    ):  # fmt: skip
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"{where}: {inside} has {name!r}, which {benchmark.harness} does not use. It uses:"
                    f" {', '.join(known) or 'none'}.{did_you_mean(name, known)}"
                )


def _check_options(params: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse options that the harness does not know: it may ignore them without a word."""
    for word in command_line(params, where):
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            raise ConfigError(
                f"{where}: params.extra.args has {option!r}, which the harness does not know. It knows:"
                f" {', '.join(known)}.{did_you_mean(option, known)}"
            )


def _check_tokenizer(ckpt: Checkpoint, task: str) -> None:
    folder = find_model(ckpt)
    if ckpt.endpoint is not None:
        raise ModelError(
            f"Checkpoint {ckpt.name!r} is behind an endpoint, and task {task!r} asks for log-probabilities, which need a"
            " tokenizer. Name one in the task's file: tokenizer: FOLDER."
        )
    if folder is not None and not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(
            f"Checkpoint {ckpt.name!r}: {folder} holds no tokenizer, and task {task!r} asks for log-probabilities, which"
            " need one. Put it beside the weights, or name one in the task's file: tokenizer: FOLDER."
        )


def _listed(catalogue: Catalogue, most: int = 12) -> str:
    return f"It lists {listed(sorted({one.name for one in catalogue}), most)}."
