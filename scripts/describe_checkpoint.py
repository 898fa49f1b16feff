"""Say who a checkpoint is: the identity of its files and options, and the identity's digest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.campaign.identity import identify
from milepost.errors import run_step
from milepost.preflight.campaign import load_campaign
from milepost.records import write_record
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--out", required=True, help="results/models/{ckpt}.json")
    args = parser.parse_args(argv)
    end_with_snakemake()
    write_record(args.out, identify(load_campaign().checkpoints[args.ckpt]))


if __name__ == "__main__":
    run_step(main)
