"""Forget what one attempt at a checkpoint stored, so that the next run asks for it again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.errors import run_step
from milepost.store.forget import forget_attempt


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--of",
        required=True,
        metavar="CKPT/ATTEMPT",
        help="a checkpoint, and a name in its results/store/CKPT/.ledger.jsonl",
    )
    args = parser.parse_args(argv)
    ckpt, _, attempt = args.of.partition("/")
    for task, count in forget_attempt(ckpt, attempt).items():
        print(f"{task}: {count} gone")


if __name__ == "__main__":
    run_step(main)
