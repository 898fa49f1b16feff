"""Make tables, figures and a report of what is scored so far, and say what is missing and why.

Run it from a campaign's folder, also while the campaign runs: it asks nothing, scores nothing and waits for nothing, and
writes to results/partial/ only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import compare
import plot
import report
import tabulate
from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.shown import read_shown
from milepost.errors import run_step
from milepost.preflight.campaign import load_campaign
from milepost.preflight.decides import current_digests, shown_record
from milepost.report.partial import MissingRow, by_state, take_snapshot
from milepost.report.tables import write_table
from milepost.runtime.processes import end_with_snakemake
from milepost.schemas import read_yaml

RESULTS = Path("results")
LOGS = Path("logs")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--configfile", type=Path, help="the campaign's, if it is not config/config.yaml")
    parser.add_argument("--out", type=Path, default=RESULTS / "partial", help="a folder, made anew")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    end_with_snakemake()
    campaign = load_campaign(read_yaml(args.configfile) if args.configfile else None)
    digests = DigestCache(CACHE)
    settings = shown_record(campaign, campaign.config.keys() | {"title"}, current_digests(campaign, digests))
    total = len(campaign.checkpoints) * len(campaign.tasks)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}.") as folder:
        there, made = Path(folder) / "there", Path(folder) / "made"
        (there / "summaries").mkdir(parents=True)
        (there / "scores").mkdir()
        (made / "tables").mkdir(parents=True)
        (Path(folder) / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        shown = read_shown(Path(folder) / "settings.json")
        missing = take_snapshot(campaign, shown, there, RESULTS, LOGS)
        write_table(made / "missing.csv", MissingRow, missing)
        if len(missing) < total:
            make_all(Path(folder) / "settings.json", there, made)
            mark_partial(made / "tables", missing, total)
        shutil.rmtree(args.out, ignore_errors=True)
        made.rename(args.out)
    if len(missing) == total:
        sys.exit(f"Nothing is scored yet: {states(missing)}. {args.out / 'missing.csv'} says why. Try again later.")
    print(f"{sentence(missing, total)} {args.out / 'report.html'} shows what there is.", file=sys.stderr)


def make_all(settings: Path, there: Path, made: Path) -> None:
    """Run the steps that make tables, figures and the report, on the scores that there are."""
    made_tables, figures = made / "tables", made / "figures"
    told = ["--settings", f"{settings}"]
    folders = [*told, "--scores", f"{there}/scores", "--summaries", f"{there}/summaries"]
    compare.main([*folders, "--out", f"{made_tables}"])
    tables = ["--csv", f"{made_tables}/scores.csv", "--metrics", f"{made_tables}/metrics.csv"]
    tables += ["--markdown", f"{made_tables}/scores.md", "--text", f"{made_tables}/scores.txt"]
    tabulate.main([*told, "--summaries", f"{there}/summaries", "--compared", f"{made_tables}", *tables])
    drawn = [*told, "--scores", f"{made_tables}/scores.csv", "--metrics", f"{made_tables}/metrics.csv"]
    plot.main([*drawn, "--steps", f"{made_tables}/steps.csv", "--out", f"{figures}"])
    page = [*told, "--tables", f"{made_tables}", "--figures", f"{figures}", "--summaries", f"{there}/summaries"]
    page += ["--store", f"{RESULTS}/store", "--bills", f"{RESULTS}/bills.json"]
    report.main(
        [*page, "--prompts", f"{RESULTS}/prompts", "--missing", f"{made}/missing.csv", "--out", f"{made}/report.html"]
    )


def mark_partial(tables: Path, missing: Sequence[MissingRow], total: int) -> None:
    """Write PARTIAL at the head of the tables that people read."""
    if not missing:
        return
    for name in ("scores.md", "scores.txt"):
        path = tables / name
        path.write_text(f"{sentence(missing, total)}\n\n{path.read_text(encoding='utf-8')}", encoding="utf-8")


def sentence(missing: Sequence[MissingRow], total: int) -> str:
    """A sentence that says how many scores there are, and what the missing ones wait for.

    >>> sentence([], 8)
    'Complete: 8 of 8 scores are there.'
    """
    if not missing:
        return f"Complete: {total} of {total} scores are there."
    return f"PARTIAL: {total - len(missing)} of {total} scores are there; {states(missing)}."


def states(missing: Sequence[MissingRow]) -> str:
    """The number of missing scores in each state, in words."""
    return ", ".join(f"{count} {state}" for state, count in by_state(missing).items())


if __name__ == "__main__":
    run_step(main)
