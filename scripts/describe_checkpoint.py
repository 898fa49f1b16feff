"""Write down who a checkpoint is: the identity that the run's plan found in its files and options, with its digest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.errors import run_step
from milepost.records import read_record, write_record
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="the identity as the run's plan found it, a file")
    parser.add_argument("--out", required=True, help="results/models/{ckpt}.json")
    args = parser.parse_args(argv)
    end_with_snakemake()
    write_record(args.out, read_record(args.settings))


if __name__ == "__main__":
    run_step(main)
