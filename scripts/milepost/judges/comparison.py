"""How judges compare who judged the same answers: what they say on average, how their verdicts agree, whom they rank first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from milepost.style import GREY, LABEL, MARKERS, TITLE, colours, lay_out, save, theme, wrap

SIDE = 3.0  # of a panel, in inches
Said = float | bool | str


@dataclass(frozen=True)
class JudgePair:
    """Two judges of the same answers.

    Attributes:
        judge_a, judge_b: Their names.
        n: Answers that both have scored.
        mean_a, mean_b: Mean score of these answers.
        pearson, spearman: Correlations of the scores; None where one of them says the same of all.
        mean_difference: Mean absolute difference of the scores.
        n_verdicts: Single verdicts that both have given: on a statement, a criterion, a game.
        agreement: Share of them that are the same.
        kappa: Cohen's κ of them: agreement beyond what would come by chance; None where no chance is left.
        change_places: Pairs of checkpoints that the one ranks the other way round than the other.
    """

    judge_a: str
    judge_b: str
    n: int
    mean_a: float | None
    mean_b: float | None
    pearson: float | None
    spearman: float | None
    mean_difference: float | None
    n_verdicts: int
    agreement: float | None
    kappa: float | None
    change_places: str


@dataclass(frozen=True)
class JudgedAnswers:
    """What one judge said of all checkpoints' answers.

    Attributes:
        scores: By checkpoint, item and sample, the score.
        verdicts: By checkpoint, item, sample and what was asked, the verdict; only those that could be read.
    """

    scores: Mapping[tuple[Hashable, ...], float]
    verdicts: Mapping[tuple[Hashable, ...], Said]


def compare_judges(judged: Mapping[str, JudgedAnswers], ckpts: Sequence[str]) -> list[JudgePair]:
    """Compare each judge with each other.

    Args:
        judged: By judge.
        ckpts: All checkpoints, in their order.
    """
    return [_pair(a, b, judged[a], judged[b], ckpts) for a, b in combinations(judged, 2)]


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Agreement beyond chance; None without pairs, or where both always say the same one thing.

    Source: Cohen (1960), Educational and Psychological Measurement 20.

    >>> cohen_kappa([(1, 1), (1, 1), (0, 0), (0, 1)])
    0.5
    >>> cohen_kappa([(1, 1), (1, 1)]) is None
    True
    """
    if not pairs:
        return None
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(first[value] * second[value] for value in first) / n**2
    if chance == 1:
        return None
    return (sum(a == b for a, b in pairs) / n - chance) / (1 - chance)


def draw_pairs(stem: Path, title: str, pairs: Sequence[JudgePair], judged: Mapping[str, JudgedAnswers]) -> None:
    """Draw the scores of both judges of each pair against each other, as SVG and PNG.

    Args:
        stem: Path without the suffix.
        title: The task's.
        pairs: A panel each: a mist of all answers, and the mean of each checkpoint.
        judged: By judge.
    """
    from matplotlib.figure import Figure

    ckpts = list(dict.fromkeys(str(key[0]) for one in judged.values() for key in one.scores))
    with theme():
        figure = Figure()
        grid = [figure.add_axes((0, 0, 1, 1), label=f"{pair.judge_a} {pair.judge_b}") for pair in pairs]
        legend: dict[str, tuple[Any, str]] = {}
        for axes, pair in zip(grid, pairs, strict=True):
            one, other = judged[pair.judge_a].scores, judged[pair.judge_b].scores
            both = [key for key in one if key in other]
            axes.scatter(
                [one[key] for key in both], [other[key] for key in both], s=5, color=GREY, alpha=0.3, linewidths=0
            )
            for number, (ckpt, colour) in enumerate(zip(ckpts, colours(len(ckpts)), strict=True)):
                own = [key for key in both if key[0] == ckpt]
                if own:
                    place = [_mean([scores[key] for key in own]) for scores in (one, other)]
                    look = {"marker": MARKERS[number % len(MARKERS)], "markersize": 6, "color": colour, "linestyle": ""}
                    (drawn,) = axes.plot([place[0]], [place[1]], **look)
                    legend[ckpt] = (drawn, ckpt)
            values = [value for key in both for value in (one[key], other[key])]
            if values:
                ends = [min(values), max(values)]
                axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
            axes.set_xlabel(wrap(f"score by {pair.judge_a}", SIDE, LABEL))
            axes.set_ylabel(wrap(f"score by {pair.judge_b}", SIDE, LABEL))
            kappa = "" if pair.kappa is None else f", κ of verdicts {pair.kappa:.2f}"
            axes.set_title(wrap(f"{pair.n} answers{kappa}", SIDE, TITLE, "bold"))
        head = (
            f"{title}: what two judges say of the same answers",
            "marks: means of checkpoints; line: both say the same",
        )
        lay_out(grid, min(3, len(grid)), [(SIDE, SIDE)] * len(grid), legend, head)
        save(figure, stem)


def _pair(a: str, b: str, first: JudgedAnswers, second: JudgedAnswers, ckpts: Sequence[str]) -> JudgePair:
    both = [key for key in first.scores if key in second.scores]
    x, y = [first.scores[key] for key in both], [second.scores[key] for key in both]
    said = [(first.verdicts[key], second.verdicts[key]) for key in first.verdicts if key in second.verdicts]
    pearson, spearman = _correlations(x, y)
    means = {
        ckpt: (_mean([first.scores[key] for key in own]), _mean([second.scores[key] for key in own]))
        for ckpt in ckpts
        if (own := [key for key in both if key[0] == ckpt])
    }
    changed = [
        f"{one} / {other}"
        for one, other in combinations(means, 2)
        if (means[one][0] - means[other][0]) * (means[one][1] - means[other][1]) < 0
    ]
    return JudgePair(
        judge_a=a,
        judge_b=b,
        n=len(both),
        mean_a=_mean(x) if both else None,
        mean_b=_mean(y) if both else None,
        pearson=pearson,
        spearman=spearman,
        mean_difference=_mean([abs(p - q) for p, q in zip(x, y, strict=True)]) if both else None,
        n_verdicts=len(said),
        agreement=_mean([float(p == q) for p, q in said]) if said else None,
        kappa=cohen_kappa(said),
        change_places="; ".join(changed),
    )


def _correlations(x: Sequence[float], y: Sequence[float]) -> tuple[float | None, float | None]:
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None, None
    from scipy import stats

    found: list[Any] = [stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic]
    return float(found[0]), float(found[1])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
