"""Serve an endpoint of this campaign for many jobs, until nobody asks it any more or it is told to end."""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Sequence

from milepost.campaign.config import load_config
from milepost.endpoints.shared_place import SharedEndpointFolder, place_of, write_private
from milepost.endpoints.shared_server import DiedError, Service, serve
from milepost.endpoints.shared_spec import SharedSpec
from milepost.endpoints.specs import find_endpoint
from milepost.errors import ConfigError, MilepostError, StoreError, run_step
from milepost.runtime.containers import read_containers
from milepost.runtime.processes import end_with_snakemake


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
    place = place_of(args.endpoint)
    try:
        why = run(args.endpoint, place, args.attempt, kept=args.kept)
    except (DiedError, StoreError):
        # The next one may live, or another one serves already: nobody who waits has to give up.
        raise
    except MilepostError as error:
        # The jobs that wait for it are told.
        write_private(place.failed, {"attempt": args.attempt, "error": str(error)})
        raise
    logging.info("the server of endpoint %r has ended: %s", args.endpoint, why)


def run(name: str, place: SharedEndpointFolder, attempt: str, *, kept: bool) -> str:
    """Serve the endpoint until it ends; returns the reason."""
    spec = find_endpoint(name, "serve_shared")
    if not isinstance(spec, SharedSpec):
        raise ConfigError(
            f"Endpoint {name!r} is {spec.provider}: somebody else serves it. Only {SharedSpec.provider} ones are served here."
        )
    config = load_config()
    margin_s = config["walltime_margin_s"]
    return serve(Service(spec, place, attempt, kept=kept, containers=read_containers(config), margin_s=margin_s))


if __name__ == "__main__":
    run_step(main)
