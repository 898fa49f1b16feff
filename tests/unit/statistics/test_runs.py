"""Mean@N: numbers over runs, against the program that published them first."""

import json
from pathlib import Path

import pytest

from milepost.scorers.pairwise import games_interval
from milepost.statistics.summary import over_runs

GOLDEN = Path(__file__).parents[2] / "golden"
AVERAGED = json.loads((GOLDEN / "average_summaries.json").read_text())


def numbers(summary, at=()):
    """The numbers of a nested summary by their place; true and false are numbers, a text or nothing is none."""
    for key, value in summary.items():
        if isinstance(value, dict):
            yield from numbers(value, (*at, key))
        elif isinstance(value, int | float):
            yield (*at, key), float(value)


def test_a_mean_over_runs_is_that_of_the_runs_that_have_the_number():
    runs = [dict(numbers(summary)) for summary in AVERAGED["inp"]]
    expected = dict(numbers(AVERAGED["out"]))
    assert len(expected) == 4
    for place, mean in expected.items():
        found = over_runs([run.get(place) for run in runs])
        assert found["mean"] == pytest.approx(mean, abs=1e-9)
        assert found["n"] == sum(place in run for run in runs)
        # A run without the number is named; the original leaves it out without a word.
        assert found["missing"] == [number for number, run in enumerate(runs) if place not in run]


# Where there is no game, the original says 0, and ours nothing.
PLAYED = [case for case in json.loads((GOLDEN / "bootstrap_mean_ci.json").read_text()) if case["values"]]


@pytest.mark.parametrize("case", PLAYED, ids=lambda case: len(case["values"]))
def test_the_original_interval_over_games(case):
    assert games_interval(case["values"]) == pytest.approx(case["out"], abs=1e-9)
