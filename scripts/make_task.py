"""Make a task of a campaign from a table or a file of items: config/data/NAME.jsonl and config/tasks/NAME.yaml.

python scripts/make_task.py --data questions.csv --name questions
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from evaluate_endpoint import read_scorer
from milepost.campaign.types import NAME
from milepost.errors import ConfigError, run_step
from milepost.evaluation.standalone import make_task
from milepost.records import write_records
from milepost.schemas import defaults
from milepost.tasks import load_items
from milepost.tasks.sheets import is_sheet, read_sheet


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the items: a table (.csv, .tsv, .xlsx) or JSON Lines (.jsonl)")
    parser.add_argument("--name", required=True, help="the task's name")
    parser.add_argument("--question", metavar="COLUMN", help="a table's column that is asked; found by its name")
    parser.add_argument("--answer", metavar="COLUMN", help="a table's column of right answers; found by its name")
    parser.add_argument("--scorer", default="{name: exact_match, ignore_case: true, ignore_punctuation: true}")
    parser.add_argument("--system", help="a system message before every item")
    parser.add_argument("--samples", type=int, default=defaults("task_native")["samples"], help="answers per item")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest answer")
    args = parser.parse_args(argv)
    if not re.fullmatch(NAME, args.name):
        raise ConfigError(
            f"The name {args.name!r} cannot be a task's: it has letters, digits, '.', '_' and '-' only, and begins with a letter"
            " or digit."
        )
    task, data = Path("config/tasks") / f"{args.name}.yaml", Path("config/data") / f"{args.name}.jsonl"
    there = next((path for path in (task, data) if path.exists()), None)
    if there:
        raise ConfigError(f"{there} exists already, and is not overwritten. Take another --name, or remove it.")
    content = {
        "data": str(data),
        "system": args.system,
        "samples": args.samples,
        "sampling": {"temperature": 0, "max_tokens": args.max_tokens},
        "scorer": read_scorer(args.scorer),
    }
    sheet = read_sheet(args.data, args.question, args.answer) if is_sheet(args.data) else None
    if sheet is not None:
        print(sheet.said, file=sys.stderr)
        write_records(data, sheet.items)
    else:
        load_items(make_task(args.name, {**content, "data": args.data}))
        data.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(args.data, data)
    task.parent.mkdir(parents=True, exist_ok=True)
    written = {"version": 1, **{key: value for key, value in content.items() if value is not None}}
    task.write_text(yaml.safe_dump(written, sort_keys=False, allow_unicode=True), encoding="utf-8")
    print(f"{task} and {data} are written. Name {args.name} under `tasks` in config/config.yaml.")


if __name__ == "__main__":
    run_step(main)
