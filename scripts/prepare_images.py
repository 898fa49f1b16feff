"""Pull or build the container images that the configuration and its tasks name, and write down their digests."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.errors import run_step
from milepost.nemo.check import check_nemo_tasks
from milepost.nemo.installation import task_images
from milepost.preflight.campaign import load_campaign
from milepost.records import write_record
from milepost.runtime.images import NOTE, prepare_images


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=NOTE, help="results/images.json")
    args = parser.parse_args(argv)
    campaign = load_campaign()
    write_record(args.out, prepare_images(campaign.config, task_images(campaign.nemo.values())))
    # What runs in an image that was not there before could not be checked before.
    check_nemo_tasks(campaign, installed=False)


if __name__ == "__main__":
    run_step(main)
