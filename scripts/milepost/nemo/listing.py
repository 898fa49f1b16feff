"""The benchmarks that NeMo Evaluator can run, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from milepost.campaign.config import load_config
from milepost.errors import did_you_mean
from milepost.nemo.catalogue import Benchmark, Catalogue, asks_log_probabilities
from milepost.nemo.installation import NemoInstallation, installation_of
from milepost.paths import WORKFLOW
from milepost.runtime.containers import Containers, read_containers
from milepost.schemas import read_yaml
from milepost.terminal import columns

# Rows of a harness's own tasks: enough to see which words would narrow the search.
SHOWN = 40
LOG_PROBABILITIES = "log-probabilities"
HEAD = ("eval_type", "endpoint_type", "asks for")

Row = tuple[str, ...]


def installations(environment: str | None = None, container: str | None = None) -> list[NemoInstallation]:
    """The environments that hold NeMo Evaluator or are meant to, and the images in which this folder's campaign runs tasks.

    Args:
        environment: Only this one; if there is no such environment, reading its catalogue fails.
        container: Only this image: a file, or named as in the campaign's config.
    """
    if container:
        containers = campaign_containers()
        image = Path(container)
        installation = installation_of(container, environment, containers)
        return [replace(installation, image=image) if image.exists() else installation]
    if environment:
        return [NemoInstallation(environment)]
    return list(dict.fromkeys([*map(NemoInstallation, environments()), *campaign_installations()]))


def environments() -> list[str]:
    """Folders of envs/ whose requirements name NeMo Evaluator, or in which somebody installed it; the default one first."""
    envs = WORKFLOW / "envs"
    asking = {path.parent.name for path in envs.glob("*/requirements.in") if "\nnemo-evaluator" in path.read_text()}
    holding = {
        path.parents[4].name for path in envs.glob("*/.venv/lib/python*/site-packages/nemo_evaluator-*.dist-info")
    }
    return sorted(asking | holding, key=lambda name: (name != "nemo", name))


def campaign_containers() -> Containers:
    """The configuration of containers of the campaign in this folder; empty if there is no campaign."""
    return read_containers(load_config()) if Path("config/config.yaml").is_file() else Containers()


def campaign_installations() -> list[NemoInstallation]:
    """The images in which the campaign in this folder runs NeMo Evaluator; none if there is no campaign."""
    containers = campaign_containers()
    named: list[dict[str, Any]] = [{}]
    if Path("config/config.yaml").is_file():
        # Unchecked: a file that is being written names its image before it names what this list is asked for.
        contents = [read_yaml(path) for path in sorted(Path("config/tasks").glob("*.yaml"))]
        named += [content for content in contents if content.get("harness") == "nemo"]
    used = [installation_of(each.get("container"), each.get("environment"), containers) for each in named]
    return [installation for installation in used if installation.image is not None]


def render(
    installation: NemoInstallation,
    catalogue: Catalogue | str,
    *,
    find: str = "",
    harness: str | None = None,
    complete: bool = False,
) -> list[str]:
    """The lines for one environment or image: a paragraph for each harness that has something to show.

    Args:
        installation: The environment or image.
        catalogue: What it can run, or why that is not known.
        find: Only names that hold this, of listed benchmarks and of the harness's own tasks.
        harness: Only this one.
        complete: Whether to show all of the harness's own tasks that fit.
    """
    if isinstance(catalogue, str):
        return [f"{installation.title}: {catalogue}", ""]
    lines: list[str] = []
    for name in sorted(catalogue.benchmarks):
        if harness and harness != name:
            continue
        tasks = catalogue.tasks.get(name, {})
        listed = [
            _row_of(one, catalogue, tasks)
            for one in catalogue
            if one.harness == name and _fits(find, one.name, one.task or "")
        ]
        own = own_tasks(name, tasks, catalogue.defaults[name], find) if find or complete else []
        if not listed and not own:
            continue
        lines += [f"{installation.title}, {name}: {len(listed)} of {len(catalogue.benchmarks[name])} benchmarks"]
        lines += _table("harness's own name", listed) if listed else []
        if own:
            shown = own if complete else own[:SHOWN]
            lines += ["", f"{len(own)} of {len(tasks)} tasks and groups of {name}'s own, run as HARNESS.TASK:"]
            lines += _table("kind", shown)
            lines += (
                [f"  ... and {len(own) - len(shown)} more: a longer word, or --all"] if len(own) > len(shown) else []
            )
        elif tasks and not find:
            lines += [f"  ... and {len(tasks)} tasks and groups of {name}'s own: search for them (find=WORD)"]
        lines.append("")
    return lines


def own_tasks(harness: str, tasks: dict[str, dict[str, Any]], defaults: Benchmark, find: str) -> list[Row]:
    """Rows for the tasks that a harness knows besides its benchmarks: an exact match first, then groups, then tasks."""
    # What a tag or group is called often begins the names of its hundreds of tasks.
    fitting = sorted(
        # NeMo Evaluator takes HARNESS.TASK with no further dot.
        (name for name in tasks if "." not in name and _fits(find, name)),
        key=lambda name: (name.casefold() != find.casefold(), tasks[name]["kind"] in ("task", "python_task"), name),
    )
    return [_own_row(f"{harness}.{name}", name, tasks, defaults) for name in fitting]


def not_found(
    wanted: Sequence[NemoInstallation], harnesses: Iterable[str], find: str, harness: str | None
) -> list[str]:
    """The message for a search that found nothing."""
    looked = f"Looked into: {', '.join(installation.title for installation in wanted)}."
    known = sorted(set(harnesses))
    if harness and harness not in known:
        near = did_you_mean(harness, known)
        return [f"There is no harness {harness!r}. Harnesses: {', '.join(known) or 'none'}. {looked}{near}"]
    return [f"No benchmark or task has {find!r} in its name. {looked} Leave the word out to see what there is."]


def _table(last: str, rows: Iterable[Row]) -> list[str]:
    return [f"  {line}" for line in columns([(*HEAD, last), *rows])]


def _row_of(one: Benchmark, catalogue: Catalogue, tasks: dict[str, dict[str, Any]]) -> Row:
    """The row of a benchmark; its name is preceded by the harness where several harnesses have the same name."""
    name = one.name if len(catalogue.named(one.name)) == 1 else f"{one.harness}.{one.name}"
    asks = LOG_PROBABILITIES if one.log_probabilities or asks_log_probabilities(one.task or "", tasks) else "text"
    return name, _types(one), asks, "" if one.task in (None, one.name) else str(one.task)


def _own_row(eval_type: str, name: str, tasks: dict[str, dict[str, Any]], defaults: Benchmark) -> Row:
    kind = "task" if tasks[name]["kind"] == "python_task" else tasks[name]["kind"]
    if asks_log_probabilities(name, tasks):
        # A chat gives none.
        return eval_type, "completions", LOG_PROBABILITIES, kind
    asks = "text" if kind != "task" or tasks[name].get("asks") else "see its code"
    return eval_type, _types(defaults), asks, kind


def _types(one: Benchmark) -> str:
    return ", ".join(sorted(one.endpoint_types)) or "any"


def _fits(find: str, *names: str) -> bool:
    return any(find.casefold() in name.casefold() for name in names)
