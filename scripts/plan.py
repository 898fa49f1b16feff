"""Show what a run would take: jobs, missing answers, and the GPU hours to expect from earlier jobs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.errors import run_step
from milepost.preflight.campaign import load_campaign
from milepost.preflight.plan import make_plan, render
from milepost.preflight.submission import read_submission
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", help="what would be submitted, as JSON; without it, a run on this machine")
    args = parser.parse_args(argv)
    end_with_snakemake()
    print(render(make_plan(load_campaign(), read_submission(args.submission))))


if __name__ == "__main__":
    run_step(main)
