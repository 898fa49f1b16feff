"""Ask an endpoint of config/endpoints.yaml one small question, and say what is wrong if it is not answered."""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Sequence

from milepost.endpoints.adapting import adapted, line_of
from milepost.endpoints.open import open_endpoint, probe
from milepost.endpoints.specs import ENDPOINTS, EndpointSpec, find_endpoint, load_endpoints
from milepost.errors import EndpointError, MilepostError, run_step
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--endpoint", nargs="*", default=[], help="names in config/endpoints.yaml; all that others serve if none"
    )
    args = parser.parse_args(argv)
    end_with_snakemake()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = [find_endpoint(name, "check_endpoint") for name in args.endpoint]
    # A look at one of ours may start its server: that has to be asked for by name.
    specs = chosen or [spec for spec in load_endpoints().values() if not spec.ours]
    if not specs:
        raise EndpointError(
            f"{ENDPOINTS} names no endpoint that others serve, so there is nothing to check. config/README.md says how."
        )
    problems = [problem for spec in specs if (problem := check(spec))]
    if problems:
        raise EndpointError(" ".join(problems) if len(problems) == 1 else "\n".join(["", *problems]))


def check(spec: EndpointSpec) -> str | None:
    """Ask an endpoint one question; returns what is wrong, or None."""

    async def ask() -> tuple[float, float, str]:
        begun = time.monotonic()
        async with open_endpoint(spec) as endpoint:
            opened_s = time.monotonic() - begun
            found, refused = await adapted(endpoint) if not spec.ours and spec.kind == "chat" else (endpoint, [])
            answered_s = await probe(found, spec)
            if found.shape == endpoint.shape:
                return opened_s, answered_s, ""
            said = "; ".join(f"'{words}'" for words in refused)
            return (
                opened_s,
                answered_s,
                f" It refuses parameters ({said}): write `{line_of(found.shape)}` into its entry.",
            )

    try:
        opened_s, answered_s, learnt = asyncio.run(ask())
    except MilepostError as error:
        return str(error)
    print(
        f"endpoint {spec.name}: ok. It is {spec.model}, of kind {spec.kind}; opened within {opened_s:.1f} s, and one question"
        f" was answered within {answered_s:.2f} s.{learnt}"
    )
    return None


if __name__ == "__main__":
    run_step(main)
