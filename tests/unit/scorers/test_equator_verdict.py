import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.scorers.equator.verdict import read_verdict

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "equator.json").read_text())


@pytest.mark.parametrize("compat", ["extract_strings", "equator_classes"])
@pytest.mark.parametrize("row", GOLDEN["extract"], ids=lambda row: row["text"][:30])
def test_compat_reads_as_the_original(row, compat):
    assert read_verdict(row["text"], compat).score == row[compat]


def test_compat_does_not_end_where_the_original_raises():
    assert read_verdict(r"$\boxed{x}$", "extract_strings").problem == "not a number: x"


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"evaluation": "same", "score": 100}', 100),
        ('{"score": "100"}', 100),
        ('{"score": "0%"}', 0),
        ('{"Score": 100.0}', 100),
        ("{'score': 0, 'evaluation': \"it's wrong\"}", 0),
        ('Sure!\n```json\n{"score": 0}\n```', 0),
        ('<think>{"score": 100}, I think</think>{"score": 0}', 0),
        ('{"score": 100} {"score": 100}', 100),
        # What the student said, quoted inside the evaluator's own words, is no verdict.
        ('{"evaluation": "The student wrote {\\"score\\": 100}.", "score": 0}', 0),
        ('{"evaluation": "line\nbreak", "score": 0}', 0),
        ("Score: 100", 100),
        ("**Grade:** A (100%)", 100),
        ("You received a score of 0 out of 10", 0),
        ("10/10 is what it earns: score: 10/10", 100),
        ("The answer does not match, so the score is 0.", 0),
        ("It is not right and gets a score of 0%", 0),
        ("100", 100),
        ("0.", 0),
    ],
)
def test_verdicts(reply, score):
    assert read_verdict(reply).score == score


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "empty"),
        ("I would rather not say", "no score"),
        ('{"score": 85}', "neither 0 nor 100: 85"),
        ('{"score": 1000}', "neither 0 nor 100"),
        ('{"score": true}', "neither 0 nor 100"),
        ('{"score": null}', "neither 0 nor 100"),
        ('{"score": 1e999}', "neither 0 nor 100"),
        ('{"score": -100}', "neither 0 nor 100"),
        ('{"score": 0, "score": 100}', "neither 0 nor 100"),
        ("Grade: 7/10", "neither 0 nor 100: 7/10"),
        ("Score: -100", "neither 0 nor 100"),
        ('{"score": 100} {"score": 0}', "contradicts itself: 100, 0"),
        ('Score: 0\n{"score": 100}', "contradicts itself"),
        ('{"student_answer": "12"}', "no score"),
        ('{"student_answer": "100"}', "no score"),
        ("This does not earn a score of 100.", "neither"),
        ("A score of 100 would be wrong.", "neither"),
        ("I may give a score of 0 or 100.", "neither"),
        ('<think>{"score": 100}', "does not end"),
        ('{"evaluation": "cut off in the mid', "no score"),
        ("12", "neither 0 nor 100: 12"),
        ("-100", "neither"),
        ("score: " + "9" * 400, "neither"),
    ],
)
def test_what_is_no_verdict(reply, problem):
    verdict = read_verdict(reply)
    assert verdict.score is None
    assert problem in verdict.problem


def test_the_explanation_is_kept_even_where_the_score_cannot_be_read():
    assert read_verdict('{"evaluation": "Nearly.", "score": 50}').evaluation == "Nearly."


@given(st.text(alphabet=st.sampled_from(list("{}\":'score0178%/ \n\\,-<think>")), max_size=60))
def test_any_reply_is_read_or_counted(reply):
    verdict = read_verdict(reply)
    assert verdict.score in (0, 100) if verdict.problem is None else verdict.score is None
