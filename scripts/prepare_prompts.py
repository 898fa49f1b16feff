"""Write down all that a task asks: its items, sampling and number of samples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.campaign.config import load_config, load_task
from milepost.errors import run_step
from milepost.records import write_records
from milepost.runtime.processes import end_with_snakemake
from milepost.tasks import build_prompts


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, help="name of a file in config/tasks")
    parser.add_argument("--asked", help="digest of all that decides what is asked; stands in the header")
    parser.add_argument("--out", required=True, help="results/prompts/{task}.jsonl")
    args = parser.parse_args(argv)
    end_with_snakemake()
    prompts = build_prompts(load_task(args.task), load_config().get("limit"))
    if args.asked:
        prompts.header["asked"] = args.asked
    write_records(args.out, [prompts.header, *prompts.prompts])


if __name__ == "__main__":
    run_step(main)
