"""Turn NeMo Evaluator's results for one checkpoint and task into Milepost's scores and summary."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from milepost.campaign.config import load_task
from milepost.campaign.types import NemoTask
from milepost.errors import run_step
from milepost.nemo.scores import summarize_harness
from milepost.records import read_prompts, read_record, write_record, write_records
from milepost.runtime.processes import end_with_snakemake
from milepost.statistics.outcomes import server_facts
from milepost.store.provenance import provenance_of


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--task", required=True, help="name of a file in config/tasks")
    parser.add_argument("--model", required=True, help="results/models/{ckpt}.json")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--harness", required=True, type=Path, help="results/harness/{ckpt}/{task}")
    parser.add_argument(
        "--scored", help="digest of all that decides how the answers are scored; stands with the numbers"
    )
    parser.add_argument("--scores", required=True, help="to write: results/scores/{ckpt}/{task}.jsonl")
    parser.add_argument("--summary", required=True, help="to write: results/summaries/{ckpt}/{task}.json")
    args = parser.parse_args(argv)
    end_with_snakemake()
    provenance = provenance_of(args.ckpt, args.model, args.prompts, args.scored)
    header = read_prompts(args.prompts).header
    task = load_task(args.task)
    assert isinstance(task, NemoTask)
    server = server_facts(read_record(args.model))
    scores, summary = summarize_harness(args.ckpt, header, task, args.harness, provenance, server)
    write_records(args.scores, scores)
    write_record(args.summary, summary)


if __name__ == "__main__":
    run_step(main)
