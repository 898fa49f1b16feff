"""NeMo Evaluator: a task of ours as its configuration in, its results out as our records."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from milepost.endpoints import Endpoint
from milepost.environments import environment_python
from milepost.errors import HarnessError, did_you_mean
from milepost.processes import ProcessGroup, Watchdog, free_port, last_lines
from milepost.records import Answer, Score, TaskHeader, read_records, write_record

KEY_VARIABLE = "MILEPOST_ENDPOINT_KEY"
SHUTDOWN_S = 2  # NeMo's own wait after TERM; it must fit into ours
PATHS = {"chat": "chat/completions", "completions": "completions"}
MARKS = (".nemo_evaluator_interrupted", ".nemo_evaluator_server_error")
DONE = "done.json"


def run_folders(store: Path, digest: str, header: TaskHeader) -> list[Path]:
    """The folders of a task's runs, one per repetition.

    A folder belongs to one model and one configuration: lm-eval keeps a cache in it that would answer for another model.

    Args:
        store: results/store/{ckpt}.
        digest: The model's.
        header: The task's.
    """
    asked = json.dumps([digest, header["generation"], header.get("harness", {})], sort_keys=True)
    folder = store / header["task"] / hashlib.sha256(asked.encode()).hexdigest()[:16]
    return [folder / f"run-{repetition}" for repetition in range(header["samples"])]


def is_done(folder: Path) -> bool:
    """Whether a run has ended well, as `run` found it."""
    return (folder / DONE).is_file()


def run_config(header: TaskHeader, repetition: int, endpoint: Endpoint, folder: Path, tokenizer: str) -> dict[str, Any]:
    """NeMo Evaluator's configuration of one run. The key stays in the environment."""
    harness = header.get("harness", {})
    params = dict(harness["params"])
    # Log-probability tasks need a tokenizer, which is the checkpoint's own where the task names none.
    if harness["endpoint_type"] == "completions":
        params["extra"] = {"tokenizer": tokenizer, "tokenizer_backend": "huggingface", **params.get("extra", {})}
    seed = int.from_bytes(hashlib.sha256(f"{header['task']}/{repetition}".encode()).digest()[:4], "big") >> 1
    return {
        "config": {"type": harness["eval_type"], "output_dir": str(folder.resolve()), "params": params},
        "target": {
            "api_endpoint": {
                "url": f"{endpoint.url}/{PATHS[harness['endpoint_type']]}",
                "model_id": endpoint.name,
                "type": harness["endpoint_type"],
                "api_key_name": KEY_VARIABLE,
                # Its cache merges identical requests, which would make samples of one prompt the same sample.
                "adapter_config": {"use_caching": False, "params_to_add": {"seed": seed}},
            }
        },
    }


def environment(endpoint: Endpoint) -> dict[str, str]:
    """Environment of a run: offline, silent, quick to end, with the key."""
    python = environment_python("nemo")
    env = dict(os.environ)
    env["PATH"] = f"{python.parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    env[KEY_VARIABLE] = endpoint.key
    env["ADAPTER_PORT"] = str(free_port())
    env["NEMO_EVALUATOR_SHUTDOWN_TIMEOUT_SECONDS"] = str(SHUTDOWN_S)
    env["NEMO_EVALUATOR_TELEMETRY_LEVEL"] = "0"
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        env.setdefault(name, "1")
    return env


async def run(
    header: TaskHeader, repetition: int, folder: Path, endpoint: Endpoint, tokenizer: str, log: Path, watchdog: Watchdog
) -> None:
    """Run one repetition of a task; a run that was cut short goes on where it was.

    Raises:
        HarnessError: It failed; with its last lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for mark in MARKS:
        (folder / mark).unlink(missing_ok=True)
    config = folder.with_suffix(".yml")
    config.write_text(yaml.safe_dump(run_config(header, repetition, endpoint, folder, tokenizer), sort_keys=False))
    command = [str(environment_python("nemo").with_name("nemo-evaluator")), "run_eval", "--run_config", str(config)]
    group = await ProcessGroup.start(command, env=environment(endpoint), log=log, watchdog=watchdog)
    try:
        code = await group.process.wait()
    finally:
        await group.stop(SHUTDOWN_S + 1)
    # An exit code of 0 after a signal is possible, so it takes all three.
    marks = [mark for mark in MARKS if (folder / mark).exists()]
    if code != 0 or marks or not (folder / "results.yml").is_file():
        how = f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise HarnessError(
            f"NeMo Evaluator {how} on task {header['task']!r}"
            f"{', and left ' + marks[0] if marks else ''}. The last lines of {log}:\n{last_lines(log)}"
        )
    write_record(
        folder / DONE, {"task": header["task"], "run": repetition, "eval_type": header["harness"]["eval_type"]}
    )


def collect(folders: list[Path], to: Path) -> None:
    """Copy the finished runs' results and samples to `to`; the raw folders stay in the store."""
    shutil.rmtree(to, ignore_errors=True)
    for folder in folders:
        target = to / folder.name
        target.mkdir(parents=True)
        for name in ("results.yml", "eval_factory_metrics.json", DONE):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        for path in newest_samples(folder):
            shutil.copyfile(path, target / path.name)


def newest_samples(folder: Path) -> list[Path]:
    """lm-eval's files of samples, the newest for each of its tasks: each rerun in a folder adds one."""
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


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """All numbers of a run: `{metric.score: {"value", "stderr"}}`; those of a group win over those of a task.

    With several tasks in a run and no group, names are `TASK/METRIC.SCORE`. A score that is named like its metric is
    found under the metric's name alone as well.

    Raises:
        HarnessError: There is no results.yml, or nothing in it.
    """
    path = folder / "results.yml"
    numbers: dict[str, dict[str, Any]] = {}
    try:
        results = yaml.safe_load(path.read_text())["results"]
        for source in (results.get("tasks") or {}, results.get("groups") or {}):
            for task, metric, score, entry in _entries(source):
                number = {"value": entry.get("value"), "stderr": (entry.get("stats") or {}).get("stderr")}
                name = metric if score == metric else f"{metric}.{score}"
                if len(source) == 1:
                    numbers[name] = number
                numbers[f"{task}/{name}"] = number
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise HarnessError(
            f"{path} cannot be read as results of NeMo Evaluator ({type(error).__name__}: {error})."
        ) from None
    if not numbers:
        raise HarnessError(f"{path} holds no number: the harness scored nothing.")
    return numbers


def _entries(source: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Every number of the tasks or groups: their name, its metric and score, and its entry."""
    for task, content in source.items():
        for metric, scores in (content.get("metrics") or {}).items():
            for score, entry in (scores.get("scores") or {}).items():
                yield task, metric, score, entry


def find_metric(numbers: dict[str, dict[str, Any]], metric: str, where: str) -> str:
    """The name under which a task's headline metric stands.

    Raises:
        HarnessError: It is not there; the message names what is.
    """
    if metric in numbers:
        return metric
    # lm-eval appends the filter of a metric: exact_match__strict-match.
    candidates = [name for name in numbers if name.partition("__")[0] == metric and "/" not in name]
    if len(candidates) == 1:
        return candidates[0]
    raise HarnessError(
        f"The results of {where} hold no metric {metric!r}. They hold: {', '.join(sorted(numbers))}."
        f"{did_you_mean(metric, numbers)} Correct 'metric' in the task's file; nothing is asked again for it."
    )


def read_samples(folder: Path, run: int, metric: str) -> Iterator[tuple[Score, Answer]]:
    """Score and answer of every item of one run, where lm-eval wrote them; nothing where it did not.

    Args:
        folder: A collected run.
        run: Its number: the sample's.
        metric: As `find_metric` found it, with its filter.
    """
    name, _, wanted = metric.partition("__")
    paths = newest_samples(folder)
    for path in paths:
        for record in read_records(path):
            if name not in record or (wanted and record.get("filter") != wanted):
                continue
            ident = f"{sample_task(path)}/{record['doc_id']}" if len(paths) > 1 else str(record["doc_id"])
            value = record[name]
            score = float(value) if isinstance(value, int | float) else None
            said = record.get("resps", [[None]])
            while isinstance(said, list) and said:
                said = said[0]
            answer = Answer(id=ident, sample=run)
            # A log-probability task has no text.
            if isinstance(said, str):
                answer["content"] = said
            yield Score(id=ident, sample=run, score=score, metrics={name: score}), answer


def token_statistics(folder: Path) -> dict[str, Any]:
    """Share of truncated answers and mean tokens of an answer, as NeMo's adapter counted them; None where it did not."""
    path = folder / "eval_factory_metrics.json"
    try:
        stats = read_record_loosely(path)["response_stats"]
        reasons = stats.get("finish_reason") or {}
        total = sum(reasons.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"truncated": None, "mean_tokens": None}
    return {
        "truncated": reasons.get("length", 0) / total if total else None,
        "mean_tokens": stats.get("avg_completion_tokens"),
    }


def read_record_loosely(path: Path) -> dict[str, Any]:
    """A JSON file that spans lines."""
    return dict(json.loads(path.read_bytes()))


def versions() -> dict[str, str]:
    """Versions of NeMo Evaluator and its harness, from their packages."""
    found = {}
    for package in ("nemo_evaluator", "nvidia_lm_eval"):
        for info in environment_python("nemo").parent.parent.glob(f"lib/python*/site-packages/{package}-*.dist-info"):
            found[package.replace("_", "-")] = info.name.removesuffix(".dist-info").rpartition("-")[2]
    return found
