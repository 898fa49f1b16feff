"""Quantiles of Student's t distribution without scipy, whose import was most of what a scoring step took.

The tests hold them against scipy's.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

# From here on, the first terms of the expansion in 1/df are exact to the last digits; the sum below would have df / 2 terms.
MANY = 1000


@cache
def t_quantile(df: int, probability: float = 0.975) -> float:
    """The quantile of Student's t distribution with `df` degrees of freedom, to 12 digits.

    Args:
        df: Degrees of freedom, a whole number from 1 on.
        probability: Of a smaller value; above 0.5.

    Source: Abramowitz and Stegun (1964), 26.7.3 to 26.7.5.

    >>> round(t_quantile(9), 4)
    2.2622
    """
    if df < 1 or not 0.5 < probability < 1:
        raise ValueError(
            f"no quantile of t with {df} degrees of freedom at {probability}: df from 1, above 0.5, below 1"
        )
    z = NormalDist().inv_cdf(probability)
    if df >= MANY:
        return z + sum(term / float(df) ** power for power, term in enumerate(_expansion(z), 1))
    t = z
    # The distribution is concave here, so Newton's steps come up from below and never pass the root.
    for _ in range(100):
        step = (probability - _below(t, df)) / _density(t, df)
        t += step
        if step < 1e-15 * t:
            break
    return t


def t_above(t: float, df: int) -> float:
    """Probability of a value above t.

    Args:
        t: Any number, infinite ones included.
        df: Degrees of freedom, a whole number from 1 on.

    >>> round(t_above(2.2622, 9), 4)
    0.025
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    below = _below(abs(t), df)
    return max(0.0, 1 - below) if t >= 0 else min(1.0, below)


def _expansion(z: float) -> tuple[float, float, float, float]:
    """What is added to the normal quantile, by powers of 1/df."""
    return (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )


def _below(t: float, df: int) -> float:
    """Probability of a value below t > 0: for a whole df, a finite sum."""
    angle = math.atan2(t, math.sqrt(df))
    square = math.cos(angle) ** 2
    odd = df % 2
    term, terms = math.cos(angle) if odd else 1.0, []
    for k in range(2 + odd, df + 1, 2):
        terms.append(term)
        term *= (k - 1) / k * square
    within = math.sin(angle) * math.fsum(terms)
    if odd:
        within = 2 / math.pi * (angle + within)
    return (1 + within) / 2


def _density(t: float, df: int) -> float:
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    return math.exp(log - (df + 1) / 2 * math.log1p(t * t / df))
