"""Bring the data sets, tokenizers and hub models of this campaign into the Hugging Face caches, for nodes without the hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.errors import run_step
from milepost.nemo.prefetch import PrefetchError, explain, fetch, hub_home, make_plan
from milepost.preflight.campaign import load_campaign
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    end_with_snakemake()
    plan = make_plan(load_campaign())
    print(f"Caches in {hub_home()} (HF_HOME).", flush=True)
    failed = [one for loading in plan.loadings for one in fetch(loading, lambda said: print(said, flush=True))]
    for one in plan.left:
        print(f"not here  {one}.")
    if failed:
        raise PrefetchError(explain(failed))
    if plan.loadings:
        print("All of it was loaded with HF_HUB_OFFLINE=1, as on a node without a way to the hub.")
    elif not plan.left:
        print("This campaign needs nothing from the hub.")


if __name__ == "__main__":
    run_step(main)
