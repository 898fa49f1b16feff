"""Runs NeMo Evaluator from 0.3 on, `nel`: its configuration, and its results in the form that earlier versions write.

From 0.3 on it is another program. It loads benchmarks of its own, one in a Python file of the user's, or a generating task of
lm-eval, which it asks and scores by itself. A task's file says the same for both programs; what this one cannot do is an
error before a run (`milepost.nemo.check`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from milepost.errors import HarnessError
from milepost.nemo.ask import BUILT_IN, LM_EVAL
from milepost.records import read_records, write_record

PROTOCOLS = {"chat": "chat_completions", "completions": "completions"}
# The number that nel draws from every item: 1 for right, 0 for wrong, or a share.
REWARD = "reward"
# What a task's `params` are called here, and where they stand.
GENERATION = {"temperature": "temperature", "top_p": "top_p", "max_new_tokens": "max_tokens"}
BENCHMARK = {"parallelism": "max_concurrent", "limit_samples": "max_problems"}
PROXY = {"request_timeout": "request_timeout", "max_retries": "max_retries"}
# `adapter` of a task's file: what has a counterpart.
ADAPTER = ("custom_system_prompt", "params_to_add")
# Kinds of failures that are not the model's; nel gives such items 0.
FAILED = ("infra_error", "timeout", "rate_limit", "server_error", "model_error")
# Set to nothing: in a job array it would take a part of the items, as its own jobs do.
VARIABLES = dict.fromkeys(
    ("NEL_SHARD_IDX", "NEL_TOTAL_SHARDS", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "NEL_INNER_EXECUTION"), ""
)


def benchmark_name(eval_type: str) -> str:
    """The name by which nel knows an `eval_type`.

    >>> benchmark_name("gsm8k"), benchmark_name("nemo-evaluator.gsm8k"), benchmark_name("lm-evaluation-harness.ifeval")
    ('gsm8k', 'gsm8k', 'lm-eval://ifeval')
    """
    if is_file(eval_type):
        path, _, name = eval_type.partition(":")
        return str(Path(path).resolve()) + (f":{name}" if name else "")
    harness, dot, name = eval_type.partition(".")
    if not dot or harness == BUILT_IN:
        return name or harness
    return f"lm-eval://{name}" if harness == LM_EVAL else eval_type


def is_file(eval_type: str) -> bool:
    """Whether an `eval_type` names a benchmark in a Python file, `FILE.py` or `FILE.py:NAME`.

    >>> is_file("bench/sums.py"), is_file("bench/sums.py:hard"), is_file("lm-evaluation-harness.pythia")
    (True, True, False)
    """
    return eval_type.partition(":")[0].endswith(".py")


def run_config(
    harness: Mapping[str, Any], url: str, model: str, key_variable: str, folder: Path, tuning: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration of one run. The key stays in the environment: nel reads the variable itself.

    Args:
        harness: What the task's prompts say of it.
        url: The whole address that is asked.
        model: Name of the model there.
        key_variable: The variable that holds its key.
        folder: Where results go.
        tuning: `params` and `adapter` settings that change no answer.
    """
    params = {**harness["params"], **tuning.get("params", {})}
    adapter = {**harness.get("adapter", {}), **tuning.get("adapter", {})}
    extra = dict(params.get("extra", {}))
    shots = extra.pop("num_fewshot", None)
    solver = {"type": "simple", "service": "model"}
    if "custom_system_prompt" in adapter:
        solver["system_prompt"] = adapter["custom_system_prompt"]
    proxy = {PROXY[name]: value for name, value in params.items() if name in PROXY}
    if "params_to_add" in adapter:
        proxy["extra_body"] = dict(adapter["params_to_add"])
    return {
        "services": {
            "model": {
                "type": "api", "url": url, "protocol": PROTOCOLS[harness["endpoint_type"]], "model": model,
                "api_key": f"${{{key_variable}}}",
                "generation": {GENERATION[name]: value for name, value in params.items() if name in GENERATION},
                "proxy": proxy,
            }
        },
        "benchmarks": [
            {
                "name": benchmark_name(harness["eval_type"]), "solver": solver,
                # Runs are repeated from outside, each with a seed of its own.
                "repeats": 1,
                **{BENCHMARK[name]: value for name, value in params.items() if name in BENCHMARK},
                **({"fewshot": shots} if shots is not None else {}),
                **({"params": extra} if extra else {}),
            }
        ],
        "output": {"dir": str(folder.resolve()), "timestamped": False, "report": []},
    }  # fmt: skip


def bring_into_form(folder: Path) -> None:
    """Write down a run's results as earlier versions do: `results.yml`, a file of samples, and what the answers were like.

    Raises:
        HarnessError: It left no results, or an item without a verdict.
    """
    bundles = sorted(folder.glob("*/eval-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not bundles:
        raise HarnessError(f"NeMo Evaluator left no results in {folder}.")
    bundle = json.loads(bundles[-1].read_bytes())
    name, version = str(bundle["benchmark"]["name"]), str(bundle.get("sdk_version", ""))
    # Asked in an order drawn by a seed.
    rows = sorted(read_records(bundles[-1].parent / "results.jsonl"), key=lambda row: int(row["problem_idx"]))
    categories = (bundle["benchmark"]["scores"].get("failures") or {}).get("categories") or {}
    failed = {kind: categories[kind] for kind in FAILED if kind in categories}
    if not rows or failed:
        kinds = ", ".join(f"{kind} {one.get('count', '?')}" for kind, one in failed.items()) or "it asked nothing"
        raise HarnessError(
            f"NeMo Evaluator could not ask or score items of {name!r} ({kinds}), and would count them as wrong. {bundles[-1]}"
            " says why. What was answered is kept: run it again, or with a smaller max_new_tokens if prompts are too long."
        )
    samples = [_sample(row) for row in rows]
    numbers = {metric: _number([sample[metric] for sample in samples]) for metric in samples[0]["metrics"]}
    metrics = {metric: {"scores": {metric: number}} for metric, number in numbers.items() if number is not None}
    with (folder / f"samples_{name.rpartition('/')[2]}_1.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
    write_record(folder / "eval_factory_metrics.json", {"response_stats": _statistics(bundle)})
    results = {
        "results": {"tasks": {name: {"metrics": metrics}}},
        "metadata": {"versioning": {"nemo_evaluator": version}},
    }
    (folder / "results.yml").write_text(yaml.safe_dump(results, sort_keys=False))


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    """One item as lm-eval writes its samples."""
    scores = {REWARD: float(row["reward"]), **dict(_details(row.get("scoring_details") or {}))}
    return {
        "doc_id": row["problem_idx"], "filter": "none", "resps": [[row["model_response"]]],
        "filtered_resps": [row["extracted_answer"]], "metrics": list(scores), **scores,
    }  # fmt: skip


def _details(details: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers among what a scorer says of an item beside its verdict; lm-eval's stand one level deeper."""
    for name, value in {**details, **(details.get("lm_eval_metrics") or {})}.items():
        if isinstance(value, bool | int | float) and math.isfinite(value) and name != REWARD:
            yield name, float(value)


def _number(values: list[float]) -> dict[str, Any] | None:
    """A mean with what it rests on, n in the denominator of its variance as in earlier versions."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {"value": mean, "stats": {"count": len(values), "mean": mean, "variance": variance}}


def _statistics(bundle: Mapping[str, Any]) -> dict[str, Any]:
    runtime = bundle["benchmark"]["scores"].get("runtime") or {}
    reasons = Counter({str(name): count for name, count in (runtime.get("finish_reason_counts") or {}).items()})
    total = sum(reasons.values())
    return {
        "finish_reason": dict(reasons),
        "avg_completion_tokens": runtime.get("total_completion_tokens", 0) / total if total else None,
    }
