"""Hold a checkpoint against a gate, a file of conditions over tasks. Exit code: 0 passed, 1 failed, 2 not decided, 3 an error."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Read when numpy is first imported: threads of its small products would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.shown import Point, Shown, ShownTask
from milepost.comparisons.gates import EXIT_CODES, ConditionVerdict, gate_verdict, read_gate, try_gate
from milepost.errors import MilepostError
from milepost.preflight.campaign import load_campaign
from milepost.preflight.decides import current_digests
from milepost.report.tables import number, write_table
from milepost.report.tables_to_read import probability, signed
from milepost.schemas import read_yaml
from milepost.terminal import columns

ERROR = 3


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gate", type=Path, help="the gate's file, such as config/gates/release.yaml")
    parser.add_argument("--configfile", type=Path, help="the campaign's, if it is not config/config.yaml")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of scores/ and summaries/")
    parser.add_argument("--out", type=Path, help="to write: the verdicts as CSV; results/gates/{gate}.csv by default")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    campaign = load_campaign(read_yaml(args.configfile) if args.configfile else None)
    shown = Shown(
        checkpoints={name: Point(name, ckpt.run, ckpt.step) for name, ckpt in campaign.checkpoints.items()},
        tasks={name: ShownTask(task.title) for name, task in campaign.tasks.items()},
        current=current_digests(campaign, DigestCache(CACHE)),
    )
    margins = {name: task.delta for name, task in campaign.tasks.items() if task.delta is not None}
    gate = read_gate(args.gate, shown, margins)
    verdicts = try_gate(gate, shown, args.results / "scores", args.results / "summaries")
    write_table(args.out or args.results / "gates" / f"{args.gate.stem}.csv", ConditionVerdict, verdicts)
    whole = gate_verdict(verdicts)
    against = f" against {gate.reference}" if gate.reference else ""
    print("\n".join([*table(verdicts), "", f"{gate.candidate}{against}: {whole}."]))
    return EXIT_CODES[whole]


def table(verdicts: Sequence[ConditionVerdict]) -> list[str]:
    """The verdicts, as a terminal shows them."""
    header = ("task", "condition", "found", "95 % interval", "p", "items", "verdict")
    return columns([header, *map(_line, verdicts)])


def _line(verdict: ConditionVerdict) -> tuple[str, ...]:
    shown = number if "above" in verdict.condition or "below" in verdict.condition else signed
    ends = "-" if verdict.ci_low is None else f"[{shown(verdict.ci_low)}, {shown(verdict.ci_high)}]"
    more = f"about {verdict.n_needed} items would decide it" if verdict.n_needed else None
    said = "; ".join(filter(None, [verdict.verdict, more, verdict.note]))
    n = "-" if verdict.n is None else str(verdict.n)
    return verdict.title, verdict.condition, shown(verdict.value), ends, probability(verdict.p), n, said


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MilepostError as error:
        # 1 would say that the checkpoint has failed.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(ERROR)
