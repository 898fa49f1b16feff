"""Ask one task of an endpoint that is served already, score the answers, and show the number and the worst items.

python scripts/evaluate_endpoint.py --preset openai --model gpt-4o-mini --data questions.csv
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from milepost.client.connections import address
from milepost.client.shape import Shape
from milepost.endpoints import Endpoint
from milepost.endpoints.adapting import TYPICAL, adapted
from milepost.endpoints.presets import preset, preset_at
from milepost.errors import ConfigError, run_step
from milepost.evaluation.shown import number_shown, worst_shown
from milepost.evaluation.standalone import PATHS, Target, evaluate_task, make_task
from milepost.records import write_records
from milepost.schemas import defaults
from milepost.tasks.sheets import is_sheet, read_sheet

WHOLE = re.compile(r"/(chat/)?completions/?($|[?])")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="the server's base address (.../v1), or the whole one (.../v1/chat/completions)")
    where.add_argument(
        "--preset", help="a provider whose address is known: openai, mistral, ollama, ... (docs/endpoints.md)"
    )
    parser.add_argument("--type", default="chat", choices=sorted(PATHS), help="what the server takes")
    parser.add_argument("--model", required=True, help="name of the model to ask for")
    parser.add_argument(
        "--key-variable",
        metavar="NAME",
        help="environment variable with the key; the provider's usual one if not given",
    )
    parser.add_argument("--task", default="endpoint", help="name of the task in the results")
    parser.add_argument("--data", required=True, help="the items: a table (.csv, .tsv, .xlsx) or JSON Lines (.jsonl)")
    parser.add_argument("--question", metavar="COLUMN", help="a table's column that is asked; found by its name")
    parser.add_argument("--answer", metavar="COLUMN", help="a table's column of right answers; found by its name")
    parser.add_argument(
        "--scorer",
        default="{name: exact_match, ignore_case: true, ignore_punctuation: true}",
        help="its name, or a mapping: '{name: exact_match, ignore_case: true}'",
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
    parser.add_argument("--worst", type=int, default=5, help="how many of the items with the lowest scores to show")
    parser.add_argument(
        "--out", type=Path, default=Path("first-number"), help="folder to write prompts, answers, scores and summary to"
    )
    args = parser.parse_args(argv)
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "max_tokens": args.max_tokens, "seed": args.seed}
    content = {
        "data": read_data(args),
        "scorer": read_scorer(args.scorer),
        "system": args.system,
        "samples": args.samples,
        "sampling": sampling,
    }
    task = make_task(args.task, content, args.limit)
    target = find_target(args)
    summary = evaluate_task(task, target, args.out)
    print(number_shown(target.model, summary))
    print(worst_shown(args.out, args.worst), end="")
    print(
        f"All of it is in {args.out}: summary.json, and each answer with its score in answers.jsonl and scores.jsonl."
    )


def read_data(args: argparse.Namespace) -> str:
    """The file of items; a table is written as one into the folder of results, and said what was taken for what."""
    if not is_sheet(args.data):
        return str(args.data)
    sheet = read_sheet(args.data, args.question, args.answer)
    print(sheet.said, file=sys.stderr)
    items = args.out / "items.jsonl"
    write_records(items, sheet.items)
    return str(items)


def find_target(args: argparse.Namespace) -> Target:
    """The server that is asked: its address, its key, and how it takes requests, which a question tells."""
    known = preset(args.preset, "--preset") if args.preset else preset_at(args.url)
    url = args.url or known["url"]
    if "{" in url:
        raise ConfigError(
            f"The address of {args.preset} is {url}. Give it as --url, with your own in place of the braces."
        )
    shape = Shape(**{key: known[key] for key in ("parameters", "extra_body", "headers", "key_header") if key in known})
    key = read_key(args.key_variable, known)
    if not WHOLE.search(url):
        endpoint = Endpoint(url.rstrip("/"), key, args.model, args.model, shape=shape)
        if args.type == "chat":
            asked = {"temperature": args.temperature, "top_p": args.top_p}
            parameters = {**TYPICAL, **{name: value for name, value in asked.items() if value is not None}}
            endpoint, refused = asyncio.run(adapted(endpoint, parameters))
            for words in refused:
                print(f"The server says: {words}. It is asked without that, or by the other name.", file=sys.stderr)
        url, shape = address(endpoint.url, PATHS[args.type]), endpoint.shape
    target = Target(url=url, kind=args.type, model=args.model, key=key, shape=shape)
    return replace(target, concurrency=args.concurrency, timeout_s=args.timeout, retries=args.retries)


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


def read_key(variable: str | None, known: Mapping[str, Any] | None = None) -> str:
    """Read the key from an environment variable: the one that is named, or else the provider's usual one.

    Without any, a placeholder that servers without keys accept.
    """
    variable = variable or (known or {}).get("key_env")
    if not variable:
        return "EMPTY"
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(
            f"The environment variable {variable}, which should hold the endpoint's key, is not set. Set it"
            f" (`export {variable}=...`), or name another by --key-variable."
        )
    return key


if __name__ == "__main__":
    run_step(main)
