"""Look at what a run needs before a GPU is asked for; exit code 1 if something is missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from milepost.errors import run_step
from milepost.preflight.campaign import load_campaign
from milepost.preflight.checks import render, sentence
from milepost.preflight.local import check_local
from milepost.preflight.slurm import check_slurm
from milepost.preflight.submission import read_submission
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", help="what would be submitted, as JSON; without it, a run on this machine")
    args = parser.parse_args(argv)
    end_with_snakemake()
    campaign = load_campaign()
    submission = read_submission(args.submission)
    checks = check_local(campaign, submission) + check_slurm(submission)
    print(f"{render(checks)}\n\n{sentence(checks)}", flush=True)
    if any(check.state == "failed" for check in checks):
        sys.exit(1)


if __name__ == "__main__":
    run_step(main)
