"""Do the intervals cover, and do the tests keep their level? Simulations of what docs/statistics.md says.

    nice envs/workflow/.venv/bin/python benchmarks/simulations.py            # about 20 minutes
    envs/workflow/.venv/bin/python benchmarks/simulations.py pairs power     # some of the tables
    envs/workflow/.venv/bin/python benchmarks/simulations.py --rounds 500    # rougher

Prints Markdown tables; progress goes to standard error. Items get probabilities of success from Beta(m, 1 - m), as
they spread among real benchmarks: most items are nearly always right, or nearly never.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import interval_coverage as intervals
import judged_coverage as judged

from milepost.statistics.paired import benjamini_hochberg, compare, first_better, rank_letters, regressed_since
from milepost.statistics.sign_flips import max_t
from milepost.statistics.student import t_quantile

Array = npt.NDArray[np.float64]
Row = dict[str, str | float]


def false_first(rounds: int, *, designs: Sequence[tuple[int, int, float, int]] | None = None) -> Iterator[Row]:
    """How often a step is called better than the first though none is: max-T, Holm, and without correction."""
    rng = np.random.default_rng(6)
    designs = designs or [
        *itertools.product((5, 20), (30, 100), (0.5, 0.9), (1, 4)),
        (5, 300, 0.5, 4),
        (50, 100, 0.5, 4),
    ]
    for steps, n, mean, samples in designs:
        hits = np.zeros(3)
        for _ in range(rounds):
            chances = rng.beta(mean, 1 - mean, size=n)
            run = rng.binomial(samples, chances, size=(steps, n)) / samples
            found, _ = first_better(run, seed=int(rng.integers(2**31)))
            alone = one_sided_t(run[1:] - run[0])
            # Holm finds anything exactly if the smallest p passes Bonferroni's level.
            hits += [found is not None, min(alone) * len(alone) <= 0.05, min(alone) <= 0.05]
        row: Row = {"steps": steps, "items": n, "mean": mean, "samples": samples}
        row |= dict(zip(("max-T", "Holm", "uncorrected"), (hits / rounds).tolist(), strict=True))
        yield row


def false_falls(rounds: int) -> Iterator[Row]:
    """How often a fall, or a difference between equals, is named where there is none."""
    rng = np.random.default_rng(7)
    for steps, n, mean, samples in [(5, 100, 0.5, 4), (10, 100, 0.5, 4), (10, 100, 0.9, 1), (10, 30, 0.5, 4)]:
        hits = np.zeros(3)
        for _ in range(rounds):
            chances = rng.beta(mean, 1 - mean, size=n)
            run = rng.binomial(samples, chances, size=(steps, n)) / samples
            family = max_t(run, [(i, j) for j in range(steps) for i in range(j)], alternative="less")
            hits += [
                regressed_since(run).since is not None,
                float(family.p_adjusted.min()) <= 0.05,
                len(set(rank_letters(run))) > 1,
            ]
        row: Row = {"steps": steps, "items": n, "mean": mean, "samples": samples}
        names = ("a lasting fall", "any fall", "two that differ")
        row |= dict(zip(names, (hits / rounds).tolist(), strict=True))
        yield row


def false_sentences(rounds: int, *, tasks: int = 10, steps: int = 5, items: int = 100) -> Iterator[Row]:
    """How often a report says of a run that never changes: better on one of ten tasks, or shows a task with an arrow.

    Sentences: with p corrected over steps only, and over tasks as well. Arrows up and down: each at 5 %, each at 2.5 %.
    """
    rng = np.random.default_rng(15)
    hits = np.zeros(4)
    for _ in range(rounds):
        up, down = np.ones(tasks), np.ones(tasks)
        for task in range(tasks):
            chances = rng.beta(0.5, 0.5, size=items)
            run = rng.binomial(4, chances, size=(steps, items)) / 4
            pairs = [(0, step) for step in range(1, steps)]
            up[task] = max_t(run, pairs, alternative="greater").p_adjusted.min()
            down[task] = max_t(run, pairs, alternative="less").p_adjusted.min()
        corrected = benjamini_hochberg(up.tolist())
        either = np.minimum(up, down)
        hits += [
            up.min() <= 0.05,
            any(p is not None and p <= 0.05 for p in corrected),
            (either <= 0.05).mean(),
            (either <= 0.025).mean(),
        ]
    names = ("sentence, uncorrected", "sentence", "arrow, 5 % each", "arrow, 2.5 % each")
    yield {"tasks": tasks, "steps": steps, "items": items} | dict(zip(names, (hits / rounds).tolist(), strict=True))


def mcnemar_levels(rounds: int) -> Iterator[Row]:
    """Two checkpoints with single samples: exact McNemar against sign flips, level and power, and how far p differs."""
    rng = np.random.default_rng(8)
    for n, differing, gained in itertools.product((30, 100, 541), (0.05, 0.3), (0.5, 0.7)):
        hits, furthest = np.zeros(2), 0.0
        for _ in range(rounds):
            d = np.where(rng.uniform(size=n) < differing, np.where(rng.uniform(size=n) < gained, 1.0, -1.0), 0.0)
            a, b = np.maximum(-d, 0.0), np.maximum(d, 0.0)
            exact, flips = compare(a, b, single=True).p, compare(a, b).p
            if exact is None or flips is None:
                continue
            hits += [exact <= 0.05, flips <= 0.05]
            furthest = max(furthest, abs(exact - flips))
        row: Row = {"items": n, "differing": differing, "gained of these": gained}
        row |= dict(zip(("McNemar p ≤ .05", "sign flips p ≤ .05"), (hits / rounds).tolist(), strict=True))
        row["largest difference in p"] = furthest
        yield row


def power(
    rounds: int, *, sizes: Sequence[int] = (10, 30, 100, 541), means: Sequence[float] = (0.2, 0.5)
) -> Iterator[Row]:
    """How often a true difference as large as the smallest detectable one is found; 80 % is promised."""
    rng = np.random.default_rng(9)
    for n, mean, samples in itertools.product(sizes, means, (1, 4)):
        many = rng.beta(mean, 1 - mean, size=400_000)
        before, solved = rng.binomial(samples, many) / samples, rng.uniform(size=len(many))
        again = rng.binomial(samples, many) / samples
        wanted = t_quantile(n - 1) + t_quantile(n - 1, 0.8)
        low, high = 0.0, 1.0
        # The share of items that the second checkpoint has learnt for good: just as many as can be detected.
        for _ in range(40):
            share = (low + high) / 2
            d = np.where(solved < share, 1.0, again) - before
            low, high = (share, high) if d.mean() < wanted * d.std() / np.sqrt(n) else (low, share)
        found = 0
        estimates = []
        for _ in range(rounds):
            chances = rng.beta(mean, 1 - mean, size=n)
            a = rng.binomial(samples, chances) / samples
            b = rng.binomial(samples, np.where(rng.uniform(size=n) < share, 1.0, chances)) / samples
            result = compare(a, b, single=samples == 1)
            found += result.p is not None and result.p <= 0.05
            estimates.append(result.detectable or 0.0)
        yield {
            "items": n,
            "mean": mean,
            "samples": samples,
            "true difference": float(d.mean()),
            "detectable, mean of estimates": float(np.mean(estimates)),
            "found": found / rounds,
        }


def one_sided_t(differences: Array) -> list[float]:
    """P of the plain one-sided t test of each row; 1 where nothing differs."""
    from scipy.special import stdtr

    n = differences.shape[1]
    stderr = differences.std(axis=1, ddof=1) / np.sqrt(n)
    t = np.divide(differences.mean(axis=1), stderr, out=np.full(len(stderr), -np.inf), where=stderr > 0)
    return [1 - float(stdtr(n - 1, each)) for each in t]


# Each table, and how many campaigns it simulates per line: 2,000 tell a share near .95 or .05 to ±.005 (one standard error).
TABLES: dict[str, tuple[Callable[[int], Iterator[Row]], int]] = {
    "means": (intervals.mean_coverage, 10_000),
    "graded": (intervals.graded_coverage, 10_000),
    "ratings": (intervals.rating_coverage, 10_000),
    "clusters": (intervals.cluster_coverage, 2_000),
    "graded-clusters": (intervals.graded_cluster_coverage, 2_000),
    "ratios": (intervals.ratio_coverage, 2_000),
    "pairs": (intervals.pair_coverage, 10_000),
    "graded-pairs": (intervals.graded_pair_coverage, 10_000),
    "rare": (intervals.rare_gains, 10_000),
    "first": (false_first, 2_000),
    "falls": (false_falls, 1_000),
    "sentences": (false_sentences, 1_000),
    "judged": (judged.verdict_coverage, 1_000),
    "judged-grades": (judged.grade_coverage, 1_000),
    "judged-run": (judged.run_coverage, 1_000),
    "mcnemar": (mcnemar_levels, 1_000),
    "power": (power, 1_000),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="table", help=f"of: {', '.join(TABLES)}; all by default")
    parser.add_argument("--rounds", type=int, help="campaigns simulated per line; by default 1,000 to 10,000")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.tables if name not in TABLES]:
        parser.error(f"no table {unknown[0]!r}; tables: {', '.join(TABLES)}")
    for name in args.tables or TABLES:
        table, rounds = TABLES[name]
        rounds = args.rounds or rounds
        print(f"### {name}\n\n{' '.join((table.__doc__ or '').split())} {rounds:,} rounds per line.\n")
        start = time.monotonic()
        for number, row in enumerate(table(rounds)):
            if number == 0:
                print(f"| {' | '.join(row)} |\n|{'---:|' * len(row)}")
            print(f"| {' | '.join(map(shown, row.values()))} |", flush=True)
            print(f"{name}: line {number + 1} after {time.monotonic() - start:.0f} s", file=sys.stderr)
        print()


def shown(value: str | float) -> str:
    """A cell: counts as they are, shares with three digits."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
