"""Print what NeMo Evaluator can run here: benchmarks by environment and harness, with their endpoint types."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.errors import MilepostError, run_step
from milepost.nemo.catalogue import Catalogue, read_catalogue
from milepost.nemo.listing import installations, not_found, render


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--find", default="", help="only names with this in them, tasks of the harnesses' own among them"
    )
    parser.add_argument("--harness", help="only this harness")
    parser.add_argument("--environment", help="only this folder of envs/")
    parser.add_argument("--container", help="only this Apptainer image: a file, or named as in the config")
    parser.add_argument("--all", action="store_true", help="list all tasks of the harnesses' own that fit: thousands")
    args = parser.parse_args(argv)
    wanted = installations(args.environment, args.container)
    printed: list[str] = []
    harnesses: set[str] = set()
    for installation in wanted:
        catalogue: Catalogue | str
        try:
            catalogue = read_catalogue(installation)
            harnesses |= catalogue.benchmarks.keys()
        except MilepostError as error:
            # One that is missing or broken does not stop the others from being listed.
            catalogue = str(error)
        printed += render(installation, catalogue, find=args.find, harness=args.harness, complete=args.all)
    if printed:
        printed.append("A name goes into a task's file as its eval_type: docs/nemo.md shows how.")
    print("\n".join(printed or not_found(wanted, harnesses, args.find, args.harness)))


if __name__ == "__main__":
    run_step(main)
