"""Finds the limit behind refusals: what was sent, answered and refused is held against every limit of three kinds.

A limit of a kind fits if whatever was refused would have gone beyond it, and nothing that was answered did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

PERIODS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)  # in which limits are counted
NEVER = 1_000_000  # requests at once: none is refused for them
FINE = 1.04  # from one period, or rate, that is looked at to the next
SLACK = 0.04  # of a limit, and 2: requests overtake each other on their way, and counts differ by as many


@dataclass(eq=False)
class Slot:
    """A request's place.

    Attributes:
        at: When it was given, by the loop's clock.
        cost: The tokens that the request may take.
        beside: The requests under way then, this one included.
        refused: Whether it was refused for haste; None while it is under way.
        alone: Whether it was sent to try a limit, with no other before it is answered.
    """

    at: float
    cost: float
    beside: int
    refused: bool | None = None
    alone: bool = False


@dataclass(frozen=True)
class Limit:
    """A limit of one kind.

    Attributes:
        kind: So many at once; in a window of time; or as a supply that fills up again.
        most: How many, or how many tokens.
        period: The window's seconds.
        rate: How many a second fill the supply up again.
        longest: Whether it is known that the window is no longer.
        shorter: A period, or what is to a rate as that, up to which no window fits.
    """

    kind: Literal["at once", "window", "supply"]
    most: float
    period: float = 0.0
    rate: float = 0.0
    longest: bool = False
    shorter: float = 0.0


def fits(places: Sequence[Slot], of_tokens: bool) -> tuple[Limit | None, list[Limit], Limit | None]:
    """The limits that fit: one of so many at once, the windows by their periods, and a supply.

    Args:
        places: What was sent, in order, some of it refused.
        of_tokens: Whether tokens are counted, not requests.
    """
    import numpy as np  # here: steps that ask nobody import this module by the thousand

    at = np.array([place.at for place in places])
    refused = np.array([place.refused is True for place in places])
    known = np.array([place.refused is False for place in places])
    own = np.array([place.cost if of_tokens else 1.0 for place in places])
    alone = np.array([place.alone for place in places])
    taken = np.where(refused, 0.0, own)
    before = np.concatenate([[0.0], np.cumsum(taken)])
    smallest = float(own.min())

    def judge(use: Any) -> tuple[bool, float]:
        """Whether a limit fits by what each request used of it, and how large it is."""

        def extreme(which: Any, least: bool) -> float:
            chosen = use[which]
            return (float(chosen.min() if least else chosen.max())) if chosen.size else (math.inf if least else 0.0)

        beyond, within = extreme(refused & ~alone, True), extreme(known & ~alone, False)
        most = max(within, beyond - smallest if beyond < math.inf else 0.0)
        # None overtakes one that is sent alone: what comes of it is exact.
        exact = extreme(known & alone, False) <= most + 1e-6 and extreme(refused & alone, True) > most + 1e-6
        return exact and within < beyond + max(2 * smallest, SLACK * most), most

    beside = np.array([float(place.beside) for place in places])
    fit, _ = judge(beside * smallest)
    # Those that are on their way back are under way here, and not there: what was refused tells, not what was answered.
    most = float(beside[refused].min()) - 1
    at_once = Limit("at once", most) if fit and 1 <= most < NEVER - 1 else None

    span = float(at[-1] - at[0]) + 1e-6
    periods = sorted({*PERIODS, *(0.9 * FINE**k for k in range(212))})
    windows = []
    for period in periods:
        first = np.searchsorted(at, at - period, side="right")
        fit, most = judge(before[:-1] - before[first] + own)
        if fit:
            windows.append(Limit("window", most, period, longest=period < span))
        if period > 2 * span:
            break
    mean = float(taken.sum()) / span
    supplies = []
    for k in range(-60, 61):
        rate = mean * FINE**k
        # What is used up of the supply: what was taken, less what has filled up since it was last full.
        through = before[:-1] - rate * at
        use = through - np.minimum.accumulate(through) + own
        fit, most = judge(use)
        if fit:
            supplies.append(Limit("supply", most, rate=rate))
        elif supplies:
            break  # the slowest that fit; a faster supply that lets one through at a time fits much
    return at_once, windows, supplies[len(supplies) // 2] if supplies else None
