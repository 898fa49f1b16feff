"""Starts `nel` so that its adapter listens at the port that our own process holds; run by the Python that has it.

Arguments: `nel` and its own. Up to 0.2 a variable says which port the adapter takes. From 0.3 on it looks for a free one and
lets go of it until its server is up, so that anybody on the host may take it in between, and answer in the model's place.
This file imports nothing of Milepost but what lies beside it.
"""

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run nel with the port that MILEPOST_PORT names."""
    # Shares the held port, and takes no connection there but this user's.
    launch = runpy.run_path(str(Path(__file__).parents[1] / "runtime" / "launch.py"))
    from nemo_evaluator.adapters import proxy
    from nemo_evaluator.cli.main import cli

    port = int(os.environ[launch["HELD"]])
    if not callable(getattr(proxy, "_find_free_port", None)):
        sys.exit(
            "nel: this version chooses the port of its adapter in a way that is not known, so nobody can hold it for it."
        )
    proxy._find_free_port = lambda preferred: port
    sys.argv = sys.argv[1:]
    cli()


if __name__ == "__main__":
    main()
