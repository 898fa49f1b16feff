import time

import pytest
from replies import SAID

from milepost.scorers.equator.verdict import read_verdict


@pytest.mark.parametrize(("reply", "score"), SAID, ids=lambda value: str(value)[:60])
def test_a_verdict_is_read_only_where_one_is_plainly_given(reply, score):
    verdict = read_verdict(reply)
    assert verdict.score == score
    assert (verdict.problem is None) == (score is not None)


@pytest.mark.parametrize(
    "unit", ["score ", "the ", "{", '{"', '"', "'", "`", "```", "**", "- \n", "score is ", "I give it the answer ", "<", "\\boxed{", "> ", "x: ",
             "the student said, so ", "that is ", "0 ", "score 0-", "\u201c", "~~", "<del>", "<!--", "a. ", "score (0-", ", so "]
)  # fmt: skip
def test_long_replies_are_read_in_time(unit):
    begun = time.process_time()
    read_verdict((unit * 40000)[:40000])
    assert time.process_time() - begun < 2
