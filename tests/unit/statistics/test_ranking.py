import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.statistics.ranking import letter_groups, rank_letters


def table(n, *pairs):
    differ = np.zeros((n, n), dtype=bool)
    for i, j in pairs:
        differ[i, j] = differ[j, i] = True
    return differ


@pytest.mark.parametrize(
    ("n", "pairs", "letters"),
    [
        (0, [], []),
        (1, [], ["a"]),
        (3, [], ["a", "a", "a"]),
        (2, [(0, 1)], ["a", "b"]),
        (3, [(0, 1), (0, 2), (1, 2)], ["a", "b", "c"]),
        (3, [(0, 2)], ["a", "ab", "b"]),
        # Not a chain: the second differs from nobody, though it lies between two that differ from each other.
        (4, [(0, 2), (0, 3), (2, 3)], ["a", "abc", "b", "c"]),
        # The middle ones were measured better than the outer ones: a group is not always an interval.
        (4, [(0, 1), (0, 2)], ["a", "b", "b", "ab"]),
    ],
)
def test_letters(n, pairs, letters):
    assert letter_groups(table(n, *pairs)) == letters


def test_the_warp_breaks_of_multcomp():
    """R's ?TukeyHSD, the example of ?cld too: L differs from M (p = .034) and H (p = .001), M from H (p = .447) not."""
    assert letter_groups(table(3, (0, 1), (0, 2))) == ["a", "b", "b"]


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.booleans(), min_size=n * n, max_size=n * n)))
)
def test_two_share_a_letter_exactly_if_they_do_not_differ(case):
    n, flat = case
    differ = np.triu(np.array(flat).reshape(n, n), 1)
    differ = differ | differ.T
    letters = letter_groups(differ)
    assert letters[0].startswith("a")
    for i in range(n):
        assert letters[i]
        for j in range(i):
            assert bool(set(letters[i]) & set(letters[j])) == (not differ[i, j])


def test_more_groups_than_the_alphabet_has_letters():
    letters = letter_groups(~np.eye(60, dtype=bool))
    assert len(set(letters)) == 60
    assert letters[25:28] == ["z", "A", "B"]
    assert letters[52:54] == [".a", ".b"]


@pytest.fixture
def models():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(scale=0.3, size=150)
    means = np.array([[0.1], [0.9], [0.5], [0.12], [0.52]])
    return means + difficulty + rng.normal(scale=0.2, size=(5, 150))


def test_the_best_has_a_and_the_order_given_is_kept(models):
    assert rank_letters(models) == ["c", "a", "b", "c", "b"]


def test_models_that_cannot_be_compared(models):
    models[2] = np.nan  # no score at all
    models[3, :100] = np.nan  # too few items: told apart from nobody
    assert rank_letters(models) == ["c", "a", "", "abc", "b"]


@pytest.mark.parametrize(
    ("scores", "letters"),
    [
        (np.empty((0, 5)), []),
        (np.ones((1, 5)), ["a"]),
        (np.ones((3, 20)), ["a", "a", "a"]),  # all equal
        (np.array([[0.0], [1.0]]), ["a", "a"]),  # a single item tells nothing
        (np.full((2, 4), np.nan), ["", ""]),
    ],
)
def test_few_models_and_equal_scores(scores, letters):
    assert rank_letters(scores) == letters


def test_clusters_are_flipped_whole(models):
    # Five clusters: 32 flips at most, so no p below 2/32, and nobody is told apart.
    assert rank_letters(models, clusters=[i % 5 for i in range(150)]) == ["a"] * 5
