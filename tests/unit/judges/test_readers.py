import json
from pathlib import Path

import pytest

from milepost.judges.games import both_games, score_of, swapped
from milepost.judges.readers import (
    PREFERENCES,
    of_text,
    read_boolean,
    read_label,
    read_letter,
    read_number,
    read_preference,
    read_share,
    share_of,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "judges.json").read_text())


def reply(text, **more):
    return {"content": text, "finish_reason": "stop", "usage": {"prompt_tokens": 1, "completion_tokens": 1}, **more}


# Where ours is another than the original: a number from 1 to 10 is read, whatever its type; no other is.
OURS = {
    '{"score": "7", "reason": "ok"}': 7.0,
    '{"score": 11, "reason": "ok"}': None,
    '{"score": true, "reason": "ok"}': None,
}


@pytest.mark.parametrize(("text", "original"), GOLDEN["writingbench"])
def test_writingbench(text, original):
    verdict = read_number(text, 1, 10)
    assert verdict.value == OURS.get(text, original and original["score"])
    if original and verdict.value is not None:
        assert verdict.explanation == original["reason"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"score": 7.0, "reason": "x"}', 7.0), ('{"score": 0, "reason": "x"}', None), ('{"score": 1, "reason": "x"}', 1.0),
        ('{"score": 10, "reason": "x"}', 10.0), ('{"score": "ten", "reason": "x"}', None), ('{"score": null, "reason": "x"}', None),
        ('{"reason": "first", "score": 3}', 3.0), ('```json\n{"score": 4, "reason": "x"}\n```', 4.0),
        ('``` {"score": 4, "reason": "x"} ```', 4.0), ("Score: 7", None), ('{"score": 7, "reason": "x"} {"score": 8, "reason": "y"}', None),
        ('{"score": 7, "score": 8, "reason": "x"}', None), ('The text says {"score": 10, "reason": "perfect"}.', None),
        ('{"score": "7/10", "reason": "x"}', None), ('{"score": [7], "reason": "x"}', None), ('{"score": 1e999, "reason": "x"}', None),
    ],
)  # fmt: skip
def test_numbers(text, value):
    assert read_number(text, 1, 10).value == value


@pytest.mark.parametrize("row", GOLDEN["healthbench"], ids=lambda row: row["text"][:40])
def test_healthbench(row):
    verdict = read_boolean(row["text"])
    assert verdict.value == (row["framework"] and row["framework"]["criteria_met"])
    if row["framework"]:
        assert verdict.explanation == row["framework"]["explanation"]


@pytest.mark.parametrize(("text", "original", "upstream"), GOLDEN["arena_hard"])
def test_arena_hard(text, original, upstream):
    # Both programs take what the last brackets hold for a label; ours knows the labels.
    assert read_preference(text).value == (original if original in PREFERENCES else None)


@pytest.mark.parametrize(
    ("text", "label"),
    [("[[A>B]] at first, but finally [[B>A]]", "B>A"), ("I cannot say", None), ("[[a>>b]]", "A>>B"), ("[A>B] [B>A]", "B>A"),
     ("[[A>B]] [[A>]]", None), ("My verdict is not [[A>B]]", None), ("It did not fail, so: [[A>B]]", "A>B")],
)  # fmt: skip
def test_preferences(text, label):
    assert read_preference(text).value == label


@pytest.mark.parametrize(("text", "original"), GOLDEN["alpaca_eval"])
def test_alpaca_eval(text, original):
    assert read_letter(text, compat=True).value == original
    # Two letters are no verdict.
    assert read_letter(text).value == (None if text == "m or M: M" else original)


@pytest.mark.parametrize(
    ("text", "letter"),
    [("M", "M"), ("**m**", "m"), ("I'm unsure.", None), ("The best output is M.", "M"), ("m is better than M.", "m"), ("5 m away", None),
     ("Not m", None), ("m\nM", None), ("Output m is long. Output M is short. I prefer M.", "M"), ("It's a tie.", "tie"), ("both", None)],
)  # fmt: skip
def test_letters(text, letter):
    assert read_letter(text).value == letter


@pytest.mark.parametrize("row", GOLDEN["alpaca_eval_logprobs"])
def test_probabilities_of_letters_are_those_of_the_published_annotations(row):
    share = share_of(row["top_logprobs"])
    # Published from 1 (the baseline is better) to 2; either of the two may have been m.
    assert min(abs(one - (row["preference"] - 1)) for one in (share, 1 - share)) < 1e-9
    assert read_share()(reply("M", logprobs=row["top_logprobs"])).value == share


def test_without_probabilities_the_letter_counts():
    assert [read_share()(reply(text)).value for text in ("m", "M", "tie", "x")] == [1.0, 0.0, 0.5, None]


@pytest.mark.parametrize("row", GOLDEN["self_taught"], ids=lambda row: row["text"])
def test_self_taught(row):
    assert read_label(row["text"]).value == (row["ram"] and row["ram"][-1].upper())


@pytest.mark.parametrize(
    ("text", "label"),
    [("[[C]]", "C"), ("[[D]]", None), ("The verdict is not [[A]].", None), ("[[A]] if A were right", None), ("A is not wrong: [[A]]", "A"),
     ("[[B]]\n\nAssistant B follows.", "B"), ("[[A]] [[B]] [[B]]", None), ("A", None)],
)  # fmt: skip
def test_labels(text, label):
    assert read_label(text).value == label


def test_the_reasoning_is_no_verdict_and_one_that_does_not_end_is_said():
    read = of_text(read_label)
    assert read(reply("<think>[[A]]?</think>[[B]]")).value == "B"
    assert read(reply("<think>[[A]]")).problem == "the reasoning does not end"
    assert read(reply("<think>x</think>  ")).problem == "the reply is empty"


@pytest.mark.parametrize("label", PREFERENCES)
def test_a_label_of_swapped_sides_is_worth_the_rest(label):
    score, weight = score_of(label, strong=3)
    assert score_of(swapped(label), strong=3) == (1 - score, weight)
    assert swapped(label) in PREFERENCES


def test_games_with_sides_swapped():
    first, second = both_games("x")
    assert (first.sides("m", "b"), second.sides("m", "b")) == (("b", "m"), ("m", "b"))
    # The two games of a judge that always prefers the first side are worth a half.
    assert [score_of(game.for_model("A>B"))[0] for game in (first, second)] == [0.0, 1.0]
