"""Pull or build the container images that the configuration names, and write down their digests."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.campaign import load_campaign
from milepost.errors import run_step
from milepost.images import NOTE, prepare_images
from milepost.records import write_record


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=NOTE, help="results/images.json")
    args = parser.parse_args(argv)
    write_record(args.out, prepare_images(load_campaign().config))


if __name__ == "__main__":
    run_step(main)
