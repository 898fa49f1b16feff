"""Ask one task of an endpoint that is served already, and score the answers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from milepost.errors import ConfigError, run_step
from milepost.evaluation.standalone import PATHS, Target, evaluate_task, make_task
from milepost.schemas import defaults
from milepost.style import places


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--url", required=True, help="where requests are posted, with its path (.../v1/chat/completions)"
    )
    parser.add_argument("--type", required=True, choices=sorted(PATHS), help="what the URL takes")
    parser.add_argument("--model", required=True, help="name of the model to ask for")
    parser.add_argument("--key-variable", metavar="NAME", help="environment variable with the endpoint's key")
    parser.add_argument("--task", default="endpoint", help="name of the task in the results")
    parser.add_argument("--data", required=True, help="JSON Lines file of the items")
    parser.add_argument(
        "--scorer", required=True, help="its name, or a mapping: '{name: exact_match, ignore_case: true}'"
    )
    parser.add_argument("--system", help="a system message before every item")
    parser.add_argument("--samples", type=int, help="answers per item")
    parser.add_argument("--limit", type=float, help="ask only so many items; below 1, their share")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token")
    parser.add_argument("--top-p", type=float, help="nucleus sampling")
    parser.add_argument("--max-tokens", type=int, help="longest answer")
    parser.add_argument("--seed", type=int, help="every sample of every item draws its own seed from this one")
    served = defaults("endpoint_external")
    parser.add_argument("--concurrency", type=int, default=served["concurrency"], help="requests under way at once")
    parser.add_argument(
        "--timeout", type=float, default=served["request_timeout_s"], help="seconds that one try of a request may take"
    )
    parser.add_argument("--retries", type=int, default=served["retries"], help="further tries of a request")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder to write prompts, answers, scores and summary to"
    )
    args = parser.parse_args(argv)
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "max_tokens": args.max_tokens, "seed": args.seed}
    spec = {
        "data": args.data,
        "scorer": read_scorer(args.scorer),
        "system": args.system,
        "samples": args.samples,
        "sampling": sampling,
    }
    task = make_task(args.task, spec, args.limit)
    target = Target(
        url=args.url,
        kind=args.type,
        model=args.model,
        key=read_key(args.key_variable),
        concurrency=args.concurrency,
        timeout_s=args.timeout,
        retries=args.retries,
    )
    summary = evaluate_task(task, target, args.out)
    value = "not scored" if summary["value"] is None else f"{summary['value']:.{places(summary['value'], 4)}f}"
    error = "" if summary["stderr"] is None else f" ± {summary['stderr']:.4f} (standard error)"
    print(f"{summary['metric']} {value}{error}, {summary['n_items']} items, in {args.out / 'summary.json'}")


def read_scorer(text: str) -> dict[str, Any]:
    """Read a scorer's options from the command line: its name alone, or a mapping in YAML."""
    try:
        scorer = yaml.safe_load(text)
    except yaml.YAMLError:
        scorer = None
    if isinstance(scorer, str):
        return {"name": scorer}
    if not isinstance(scorer, dict) or "name" not in scorer:
        raise ConfigError(f"The scorer {text!r} has no name. Write it as '{{name: exact_match, ignore_case: true}}'.")
    return scorer


def read_key(variable: str | None) -> str:
    """Read the key from an environment variable; without one, a placeholder that servers without keys accept."""
    if not variable:
        return "EMPTY"
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"The environment variable {variable}, which should hold the endpoint's key, is not set.")
    return key


if __name__ == "__main__":
    run_step(main)
