"""Write the verdicts on one task as EQUATOR does: a file per pair and round, statistics, tokens, a table and a figure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import run_step
from milepost.preflight.campaign import load_campaign
from milepost.records import read_answers, read_prompts, read_record, read_scores, read_summary
from milepost.runtime.processes import end_with_snakemake
from milepost.scorers.equator.figure import draw_categories
from milepost.scorers.equator.keys import read_answer_key
from milepost.scorers.equator.tables import (
    CategoryRow,
    Student,
    TokenRow,
    category_rows,
    markdown,
    token_rows,
    write_csv,
    write_final_stats,
    write_verdicts,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, help="name of a file in config/tasks")
    parser.add_argument("--results", required=True, type=Path, help="folder of scores/, answers/ and summaries/")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--key", required=True, help="the answer key")
    parser.add_argument("--retrieval", required=True, help="results/answer_keys/{task}/retrieval.json")
    parser.add_argument("--label", required=True, help="name of the folder to make in OUT")
    parser.add_argument("--out", required=True, type=Path, help="to write: results/equator/{task}")
    args = parser.parse_args(argv)
    end_with_snakemake()
    campaign = load_campaign()
    task = campaign.tasks[args.task]
    options = task.spec["scorer"]
    evaluators = options["evaluators"]
    prompts = read_prompts(args.prompts).prompts
    keys = {key.id: key for key in read_answer_key(args.key)}
    students, marks = [], set()
    for name in campaign.checkpoints:
        scores = read_scores(args.results / "scores" / name / f"{args.task}.jsonl")
        students.append(Student(name, read_answers(args.results / "answers" / name / f"{args.task}.jsonl"), scores))
        partial = read_summary(args.results / "summaries" / name / f"{args.task}.json").get("partial")
        marks |= {f"{partial['limit']}/{partial['of']}"} if partial else set()
    mark = ", ".join(sorted(marks)) or None
    rows = category_rows(students, evaluators, prompts, keys, pooled=bool(options.get("compat")))
    folder = args.out / args.label
    write_verdicts(folder / "auto_eval_outputs", students, evaluators, prompts, keys)
    tables = folder / "tables_and_charts"
    write_csv(tables / "by_category.csv", rows, CategoryRow)
    write_csv(tables / "token_usage.csv", token_rows(students, evaluators), TokenRow)
    write_final_stats(tables / "final_stats.csv", rows)
    found = read_record(args.retrieval)
    notes = [f"A search for the nearest question finds the item's own for {found['n_found']} of {found['n']} items."]
    notes += [f"{len(found['without_key'])} items have no answer key."] if found["without_key"] else []
    notes += [f"PARTIAL: {mark} items."] if mark else []
    (tables / "by_category.md").write_text(markdown(rows, task.title, notes), encoding="utf-8")
    draw_categories(tables / "by_category", rows, task.title, mark)


if __name__ == "__main__":
    run_step(main)
