"""Have questions asked again that an endpoint refused for good, or failed to answer in three jobs."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import ConfigError, did_you_mean, run_step
from milepost.store.answers import STORE, forget
from milepost.store.lease import acquire

# Of one request, as the endpoint said; what does not fit the context will not fit it tomorrow.
REFUSALS = ("refused", "filtered")
FAILURES = ("server", "timeout", "connection")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--of", default="", metavar="CKPT[/TASK]", help="a checkpoint, or one task of it; all if not given"
    )
    parser.add_argument("--failures", action="store_true", help="also what failed in three jobs")
    args = parser.parse_args(argv)
    kinds = REFUSALS + FAILURES if args.failures else REFUSALS
    ckpt, _, task = args.of.partition("/")
    told = [line for folder in folders(ckpt) for line in forget_in(folder, task, kinds)]
    print("\n".join(told) if told else "nothing was refused: all that is stored stays as it is")


def folders(name: str) -> list[Path]:
    """The store of a checkpoint, or of all if there is no name."""
    known = sorted(path.name for path in STORE.glob("*") if path.is_dir())
    if name and name not in known:
        raise ConfigError(
            f"Nothing is stored of checkpoint {name!r}. Stored in {STORE}: {', '.join(known) or 'nothing'}."
            f"{did_you_mean(name, known)}"
        )
    return [STORE / one for one in ([name] if name else known)]


def forget_in(folder: Path, task: str, kinds: Sequence[str]) -> list[str]:
    """Forget what one checkpoint was refused, and have its job run again; a line for each task."""
    ckpt, told = folder.name, []
    lease, _ = acquire(folder / ".lease", lambda line: print(line, file=sys.stderr))
    try:
        for path in sorted(folder.glob("*.jsonl")):
            if path.name.startswith(".") or (task and path.stem != task):
                continue
            count = forget(path, kinds, uuid.uuid4().hex[:12])
            if count:
                # Without them, the next run looks at the store, asks for what is missing, and collects it.
                for stale in (Path("results/evaluated") / f"{ckpt}.json", Path("results/answers") / ckpt / path.name):
                    stale.unlink(missing_ok=True)
                told.append(f"{ckpt}: {count} answers to {path.stem} are asked for again by the next run")
    finally:
        lease.release()
    return told


if __name__ == "__main__":
    run_step(main)
