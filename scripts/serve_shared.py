"""Serve an endpoint of this campaign for many jobs, until nobody asks it any more or it is told to end."""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Sequence

from milepost.campaign import load_config
from milepost.containers import read_containers
from milepost.endpoints.shared import place_of
from milepost.endpoints.shared_server import Service, serve
from milepost.endpoints.specs import find_endpoint
from milepost.errors import ConfigError, run_step
from milepost.processes import end_with_snakemake
from milepost.walltime import MARGIN_S


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="its name in config/endpoints.yaml")
    parser.add_argument("--attempt", default=secrets.token_hex(6), help="names this server in its record")
    parser.add_argument("--kept", action="store_true", help="stay when nobody asks, and when the campaign ends")
    args = parser.parse_args(argv)
    end_with_snakemake()
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s [{args.endpoint}] %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    spec = find_endpoint(args.endpoint, "serve_shared")
    if spec.provider != "shared":
        raise ConfigError(
            f"Endpoint {spec.name!r} is {spec.provider}: somebody else serves it. Only shared ones are served here."
        )
    config = load_config()
    service = Service(
        spec,
        place_of(spec.name),
        args.attempt,
        kept=args.kept,
        containers=read_containers(config),
        margin_s=config.get("walltime_margin_s", MARGIN_S),
    )
    logging.info("the server of endpoint %r has ended: %s", spec.name, serve(service))


if __name__ == "__main__":
    run_step(main)
