"""Reads the files that NeMo Evaluator and its harnesses wrote about a run: numbers, and samples where there are any."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from milepost.errors import HarnessError, did_you_mean, listed
from milepost.records import Answer, Score, read_records

Number = dict[str, Any]

# What lm-eval says of its numbers, in a collected run.
LM_EVAL = "lm_eval.json"


def read_metrics(folder: Path) -> dict[str, Number]:
    """Read all numbers of a run, `{metric.score: {"value", "stderr", "n"}}`; those of a group win over those of a task.

    With several tasks in a run and no group of all of them, names are `TASK/METRIC.SCORE`; those of a group's subgroups
    are `GROUP/SUBGROUP/METRIC.SCORE`. A score that is named like its metric is found under the metric's name alone as
    well. `n` is None where the harness does not say it.

    Raises:
        HarnessError: There is no results.yml, or nothing in it.
    """
    path = folder / "results.yml"
    numbers: dict[str, Number] = {}
    try:
        results = read_yaml(path)["results"]
        members = stated_by_lm_eval(folder).get("group_subtasks", {})
        for source in (results.get("tasks") or {}, results.get("groups") or {}):
            # The number without a name before it is that of the whole: never a subgroup's, which lm-eval lists beside it.
            whole = set(source) - {name for group in members.values() for name in group}
            for task, metric, score, entry in _entries(source):
                number = _number(entry)
                name = metric if score == metric else f"{metric}.{score}"
                if whole == {task}:
                    numbers[name] = number
                numbers[f"{task}/{name}"] = number
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise HarnessError(
            f"{path} cannot be read as results of NeMo Evaluator ({type(error).__name__}: {error})."
        ) from None
    if not numbers:
        raise HarnessError(f"{path} holds no number: the harness scored nothing.")
    return numbers


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that a harness wrote."""
    data = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (it is safe)
    return dict(data)


def _entries(source: dict[str, Any], above: str = "") -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield every number of the tasks or groups, nested groups included, as (task, metric, score, entry)."""
    for task, content in source.items():
        for metric, scores in (content.get("metrics") or {}).items():
            for score, entry in (scores.get("scores") or {}).items():
                yield above + task, metric, score, entry
        yield from _entries(content.get("groups") or {}, f"{above}{task}/")


def _number(entry: dict[str, Any]) -> Number:
    """A number's value, its standard error over items (from a variance with n - 1 in the denominator), and n.

    NeMo Evaluator's variances have n there. Where a harness states its variance and the number of values, the error is
    made from those; where it states an error alone, that one stands.

    >>> round(_number({"value": 0.5, "stats": {"count": 5, "variance": 0.24, "stderr": 0.219}})["stderr"], 6)
    0.244949
    """
    stats = entry.get("stats") or {}
    count, stderr = stats.get("count"), stats.get("stderr")
    variance = stats.get("variance")
    if variance is None and isinstance(stats.get("stddev"), int | float):
        variance = stats["stddev"] ** 2
    if isinstance(count, int) and count > 1 and isinstance(variance, int | float):
        stderr = math.sqrt(variance / (count - 1))
    return {"value": entry.get("value"), "stderr": stderr, "n": count if isinstance(count, int) else None}


def find_metric(numbers: dict[str, Number], metric: str, where: str) -> str:
    """Find the name under which the results hold a task's headline metric.

    Raises:
        HarnessError: It is not there; the message names what is.
    """
    if metric in numbers:
        return metric
    # lm-eval appends the filter of a metric: exact_match__strict-match.
    candidates = [name for name in numbers if name.partition("__")[0] == metric and "/" not in name]
    if len(candidates) == 1:
        return candidates[0]
    shown = [name for name in numbers if "/" not in name] or list(numbers)
    raise HarnessError(
        f"The results of {where} hold no metric {metric!r}. They hold: {listed(sorted(shown), 30)}."
        f"{did_you_mean(metric, numbers)} Correct 'metric' in the task's file; nothing is asked again for it."
    )


def stated_by_lm_eval(folder: Path) -> dict[str, Any]:
    """Read what lm-eval says of its numbers, in the newest of its own results; empty where it left none.

    It is `higher_is_better` by task and metric, and `group_subtasks`, the tasks of each group.
    """
    found = sorted(folder.rglob("results_*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    path = folder / LM_EVAL if (folder / LM_EVAL).is_file() else found[-1] if found else None
    if path is None:
        return {}
    try:
        content = json.loads(path.read_bytes())
        return {key: dict(content[key]) for key in ("higher_is_better", "group_subtasks") if content.get(key)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def higher_is_better(stated: dict[str, Any], name: str) -> bool | None:
    """Whether lm-eval says that a number is better when higher; None where it says nothing, or not the same of all tasks.

    >>> stated = {"higher_is_better": {"wikitext": {"word_perplexity": False}}}
    >>> higher_is_better(stated, "word_perplexity"), higher_is_better(stated, "acc")
    (False, None)
    """
    task, _, metric = name.rpartition("/")
    metric = metric.partition("__")[0]
    by_task = stated.get("higher_is_better", {})
    asked = [by_task.get(task.rpartition("/")[2], {})] if task else list(by_task.values())
    said = {one.get(metric) for one in asked if isinstance(one, dict)} - {None}
    return bool(said.pop()) if len(said) == 1 else None


def newest_samples(folder: Path) -> list[Path]:
    """lm-eval's sample files, only the newest of each task: every rerun in a folder adds another one."""
    newest: dict[str, Path] = {}
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        newest[sample_task(path)] = path
    return sorted(newest.values())


def sample_task(path: Path) -> str:
    """The lm-eval task that a file of samples belongs to.

    >>> sample_task(Path("samples_colours_2026-11-21T09-00-00.123456.jsonl"))
    'colours'
    """
    return path.stem.removeprefix("samples_").rpartition("_")[0]


def read_samples(folder: Path, run: int, metric: str) -> Iterator[tuple[Score, Answer]]:
    """Read score and answer of every item of one run from lm-eval's sample files; nothing where there are none.

    The items of a group are those of all its tasks, `TASK/ITEM`.

    Args:
        folder: A collected run.
        run: Its number: the sample's.
        metric: As `find_metric` found it, with its filter and, for one task of several, its task before it.
    """
    task, _, name = metric.rpartition("/")
    name, _, wanted = name.partition("__")
    paths = newest_samples(folder)
    several = len(paths) > 1
    if task:
        members = _members(folder, task.rpartition("/")[2], [sample_task(path) for path in paths])
        paths = [path for path in paths if sample_task(path) in members]
    for path in paths:
        for record in read_records(path):
            if name not in record or record.get("filter", "none") != (wanted or "none"):
                continue
            ident = f"{sample_task(path)}/{record['doc_id']}" if several else str(record["doc_id"])
            score = _value(record[name])
            # Others of the same filter, such as acc_norm beside acc; the headline under the name that the summary uses.
            others = {_named(other, wanted): _value(record.get(other)) for other in record.get("metrics", [])}
            others.pop(_named(name, wanted), None)
            answer = Answer(id=ident, sample=run)
            text = _said(record)
            # A log-probability task has no text.
            if text is not None:
                answer["content"] = text
            found = Score(id=ident, sample=run, score=score, metrics={metric: score, **others})
            if extracted := _extracted(record):
                found["extracted"] = extracted
            yield found, answer


def _members(folder: Path, name: str, tasks: list[str]) -> set[str]:
    """Which of the tasks that have samples a task or group is made of."""
    if name in tasks:
        return {name}
    groups = stated_by_lm_eval(folder).get("group_subtasks", {})
    found, left = set(), [name]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += groups.get(one, [])
    # Where lm-eval does not say it: tasks of a group begin with its name, or the group is that of all. Whether the samples
    # are those of the group's number is seen by their mean.
    return found & set(tasks) or {task for task in tasks if task.startswith(f"{name}_")} or set(tasks)


def _named(metric: str, filtered: str) -> str:
    return f"{metric}__{filtered}" if filtered else metric


def _value(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _said(record: dict[str, Any]) -> str | None:
    """The text that the model wrote (the first one where the harness asked several times); None for log-probabilities.

    `resps` holds a list for each request, with a text for each time it was asked, or a log-probability and whether it is
    the largest.
    """
    try:
        first = record["resps"][0][0]
    except (KeyError, IndexError, TypeError):
        return None
    return first if isinstance(first, str) else None


def _extracted(record: dict[str, Any]) -> str | None:
    """What a filter of lm-eval took for the answer; None where there is no text."""
    try:
        first = record["filtered_resps"][0]
    except (KeyError, IndexError, TypeError):
        return None
    return first.strip() if isinstance(first, str) else None


def said_again(folder: Path) -> tuple[int, int]:
    """Count the items that a harness asked several times within a run, and those of them whose answers are all the same."""
    repeated = same = 0
    for path in newest_samples(folder):
        for record in read_records(path):
            resps = record.get("resps")
            answers = resps[0] if isinstance(resps, list) and len(resps) == 1 else None
            if isinstance(answers, list) and len(answers) > 1 and all(isinstance(one, str) for one in answers):
                repeated += 1
                same += len(set(answers)) == 1
    return repeated, same


def token_statistics(folder: Path) -> dict[str, Any]:
    """The share of truncated answers and the mean tokens of an answer, as NeMo's adapter counted them; None where it did not."""
    path = folder / "eval_factory_metrics.json"
    try:
        stats = json.loads(path.read_bytes())["response_stats"]
        reasons = stats.get("finish_reason") or {}
        total = sum(reasons.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"truncated": None, "mean_tokens": None}
    return {
        "truncated": reasons.get("length", 0) / total if total else None,
        "mean_tokens": stats.get("avg_completion_tokens"),
    }


def run_versions(folder: Path) -> dict[str, str]:
    """Versions of the packages that made a run's results, from the run's own files."""
    versions: dict[str, str] = {}
    try:
        versions |= json.loads((folder / "done.json").read_bytes()).get("versions") or {}
        stated = (read_yaml(folder / "results.yml").get("metadata") or {}).get("versioning") or {}
        if stated.get("nemo_evaluator"):
            versions["nemo-evaluator"] = str(stated["nemo_evaluator"])
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        pass
    return versions
