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

from milepost.statistics.means import PSEUDO_ITEMS, mean_estimate, ratio_estimate, t_quantile
from milepost.statistics.paired import compare, difference_interval, first_better, rank_letters, regressed_since
from milepost.statistics.sign_flips import max_t

Array = npt.NDArray[np.float64]
Row = dict[str, str | float]

MEANS = (0.02, 0.5, 0.9, 0.98)


def mean_coverage(rounds: int, *, sizes: Sequence[int] = (10, 30, 100, 300)) -> Iterator[Row]:
    """Coverage of the interval of a mean: ours, the plain t interval, and ours where all items are alike."""
    rng = np.random.default_rng(1)
    for n, mean, samples in itertools.product(sizes, MEANS, (1, 4)):
        spread = rng.binomial(samples, rng.beta(mean, 1 - mean, size=(rounds, n))) / samples
        alike = rng.binomial(samples, mean, size=(rounds, n)) / samples
        ours = padded(spread, PSEUDO_ITEMS)
        check_same(ours, [mean_estimate(row, unit=True)["ci95"] for row in spread[:20].tolist()])
        yield {
            "items": n,
            "mean": mean,
            "samples": samples,
            "coverage": share_covering(mean, ours),
            "plain t": share_covering(mean, plain_t(spread)),
            "width": mean_width(ours),
            "width, plain": mean_width(plain_t(spread)),
            "coverage, items alike": share_covering(mean, padded(alike, PSEUDO_ITEMS)),
        }


def cluster_coverage(
    rounds: int, *, designs: Sequence[tuple[int, int]] = ((5, 10), (10, 10), (30, 5), (100, 4))
) -> Iterator[Row]:
    """Coverage with clusters of unequal size: ours, the plain cluster t interval, and with four pseudo-clusters.

    A share of each cluster's items has the cluster's own probability, the others have one of their own.
    """
    rng = np.random.default_rng(2)
    for (groups, size), mean, alike in itertools.product(designs, (0.5, 0.9, 0.98), (0.0, 0.5, 1.0)):
        intervals: dict[str, list[tuple[float, float] | None]] = {"ours": [], "plain": [], "clusters": []}
        for _ in range(rounds):
            sizes = rng.integers(1, 2 * size, size=groups)
            codes = np.repeat(np.arange(groups), sizes)
            own, shared = rng.beta(mean, 1 - mean, size=len(codes)), rng.beta(mean, 1 - mean, size=groups)[codes]
            values = rng.binomial(1, np.where(rng.uniform(size=len(codes)) < alike, shared, own)).astype(float).tolist()
            labels = codes.tolist()
            intervals["ours"].append(mean_estimate(values, clusters=labels, unit=True)["ci95"])
            intervals["plain"].append(mean_estimate(values, clusters=labels, unit=False)["ci95"])
            intervals["clusters"].append(four_clusters(values, codes))
        row: Row = {"clusters": groups, "items": groups * size, "mean": mean, "alike": alike}
        names = {"ours": "coverage", "plain": "plain t", "clusters": "four clusters"}
        row |= {names[kind]: share_covering(mean, found) for kind, found in intervals.items()}
        row |= {f"width, {kind}": mean_width(found) for kind, found in intervals.items()}
        yield row


def ratio_coverage(rounds: int) -> Iterator[Row]:
    """Coverage of a ratio: instructions followed of one to three instructions per prompt."""
    rng = np.random.default_rng(3)
    for n, mean in itertools.product((30, 100, 300), MEANS):
        weights = rng.integers(1, 4, size=(rounds, n))
        tops = rng.binomial(weights, rng.beta(mean, 1 - mean, size=(rounds, n)))
        pairs = list(zip(tops.tolist(), weights.tolist(), strict=True))
        found = [ratio_estimate(top, weight, unit=True)["ci95"] for top, weight in pairs]
        plain = [ratio_estimate(top, weight, unit=False)["ci95"] for top, weight in pairs]
        yield {
            "prompts": n,
            "ratio": mean,
            "coverage": share_covering(mean, found),
            "plain t": share_covering(mean, plain),
            "width": mean_width(found),
            "width, plain": mean_width(plain),
        }


def pair_coverage(
    rounds: int, *, sizes: Sequence[int] = (30, 100, 541), means: Sequence[float] = (0.5, 0.9, 0.98)
) -> Iterator[Row]:
    """Coverage of the interval of a difference, where a share of the items has changed for the better."""
    rng = np.random.default_rng(4)
    gains = {mean: gain_of_the_better(rng, mean) for mean in means}
    for n, mean, samples, changed in itertools.product(sizes, means, (1, 8), (0.05, 0.5)):
        before = rng.beta(mean, 1 - mean, size=(rounds, n))
        other = rng.beta(mean, 1 - mean, size=(rounds, n))
        after = np.where(rng.uniform(size=(rounds, n)) < changed, np.maximum(before, other), before)
        truth = changed * gains[mean]
        d = (rng.binomial(samples, after) - rng.binomial(samples, before)) / samples
        size = 1.0 if samples == 1 else 0.5
        ours = padded(d, (size, -size))
        check_same(
            ours,
            [difference_interval(row, clusters=None, single=samples == 1, unit=True) for row in d[:20].tolist()],
        )
        yield {
            "items": n,
            "mean": mean,
            "samples": samples,
            "changed": changed,
            "difference": truth,
            "coverage": share_covering(truth, ours),
            "plain t": share_covering(truth, plain_t(d)),
            "width": mean_width(ours),
            "width, plain": mean_width(plain_t(d)),
        }


def rare_gains(rounds: int) -> Iterator[Row]:
    """Coverage of a difference, where two checkpoints answer alike but for a few items that the second gained."""
    rng = np.random.default_rng(5)
    n = 541
    for gains in (0.5, 1, 2, 3, 5, 10):
        d = rng.binomial(1, gains / n, size=(rounds, n)).astype(float)
        yield {
            "items": n,
            "expected gains": gains,
            "coverage, ±1": share_covering(gains / n, padded(d, (1.0, -1.0))),
            "coverage, ±1/2": share_covering(gains / n, padded(d, (0.5, -0.5))),
            "plain t": share_covering(gains / n, plain_t(d)),
        }


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


def share_covering(truth: float, intervals: Sequence[tuple[float, float] | None] | Array) -> float:
    """Share of the intervals that hold the truth; one that is not defined does not."""
    ends = as_array(intervals)
    # Sums in another order may miss an end by the last digit.
    return float(((ends[:, 0] - 1e-9 <= truth) & (truth <= ends[:, 1] + 1e-9)).mean())


def mean_width(intervals: Sequence[tuple[float, float] | None] | Array) -> float:
    """Mean width of the intervals that are defined."""
    ends = as_array(intervals)
    return float(np.nanmean(ends[:, 1] - ends[:, 0]))


def as_array(intervals: Sequence[tuple[float, float] | None] | Array) -> Array:
    """Shape (n, 2); NaN for an interval that is not defined."""
    return np.array([(np.nan, np.nan) if found is None else found for found in intervals], dtype=float)


def padded(values: Array, pseudo: Sequence[float]) -> Array:
    """The interval of each row's mean with pseudo-items, for many rows at a time, shape (n_rows, 2)."""
    n = values.shape[1]
    joined = np.concatenate([values, np.tile(pseudo, (len(values), 1))], axis=1)
    half = t_quantile(n - 1) * joined.std(axis=1, ddof=1) / np.sqrt(joined.shape[1])
    ends = np.stack([joined.mean(axis=1) - half, joined.mean(axis=1) + half], axis=1)
    return np.asarray(np.clip(ends, -1.0 if min(pseudo) < 0 else 0.0, 1.0))


def check_same(many: Array, ours: Sequence[tuple[float, float] | None]) -> None:
    """What is simulated must be what is reported: the fast intervals are compared with those of the package."""
    np.testing.assert_allclose(many[: len(ours)], np.array(ours, dtype=float), atol=1e-9)


def gain_of_the_better(rng: np.random.Generator, mean: float) -> float:
    """Mean of max(x, y) - x over Beta(mean, 1 - mean)."""
    first, second = rng.beta(mean, 1 - mean, size=(2, 4_000_000))
    return float((np.maximum(first, second) - first).mean())


def plain_t(values: Array) -> Array:
    """The plain t interval of each row's mean, shape (n_rows, 2)."""
    n = values.shape[1]
    half = t_quantile(n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    return np.stack([values.mean(axis=1) - half, values.mean(axis=1) + half], axis=1)


def four_clusters(values: Sequence[float], codes: npt.NDArray[np.intp]) -> tuple[float, float]:
    """The cluster t interval with four pseudo-clusters of mean size, as a contrast to ours."""
    groups = int(codes.max()) + 1
    size = len(values) / groups
    sums = np.append(np.bincount(codes, weights=values), [0, 0, size, size])
    sizes = np.append(np.bincount(codes), [size] * 4)
    mean = sums.sum() / sizes.sum()
    half = (
        t_quantile(groups - 1) * np.sqrt(len(sums) / (len(sums) - 1) * ((sums - mean * sizes) ** 2).sum()) / sizes.sum()
    )
    return max(0.0, mean - half), min(1.0, mean + half)


def one_sided_t(differences: Array) -> list[float]:
    """P of the plain one-sided t test of each row; 1 where nothing differs."""
    from scipy.special import stdtr

    n = differences.shape[1]
    stderr = differences.std(axis=1, ddof=1) / np.sqrt(n)
    t = np.divide(differences.mean(axis=1), stderr, out=np.full(len(stderr), -np.inf), where=stderr > 0)
    return [1 - float(stdtr(n - 1, each)) for each in t]


# Each table, and how many campaigns it simulates per line: 2,000 tell a share near .95 or .05 to ±.005 (one standard error).
TABLES: dict[str, tuple[Callable[[int], Iterator[Row]], int]] = {
    "means": (mean_coverage, 10_000),
    "clusters": (cluster_coverage, 2_000),
    "ratios": (ratio_coverage, 2_000),
    "pairs": (pair_coverage, 10_000),
    "rare": (rare_gains, 10_000),
    "first": (false_first, 2_000),
    "falls": (false_falls, 1_000),
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
