"""End the servers that this campaign's jobs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.endpoints.shared_jobs import stop_all
from milepost.errors import run_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--but-kept", action="store_true", help="leave those that serve_shared started")
    args = parser.parse_args(argv)
    stopped = stop_all(also_kept=not args.but_kept)
    if stopped or not args.but_kept:
        print(f"ended: {', '.join(stopped)}" if stopped else "no server of this campaign runs")


if __name__ == "__main__":
    run_step(main)
