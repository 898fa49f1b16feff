import json
from pathlib import Path

import pytest

from milepost.text import normalized, strip_reasoning

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/text_utils.json").read_text())["think"]

# The original leaves these as they are; ours also knows traces that the chat template opens, or that were cut off.
DIFFERENT = {"a</think>b": ("b", False), "<think>unclosed": ("", True)}


@pytest.mark.parametrize(("content", "text"), [(c, t) for c, t in GOLDEN if c not in DIFFERENT])
def test_strip_reasoning_as_the_original(content, text):
    assert strip_reasoning(content) == (text, False)


def test_the_original_differs_only_where_it_is_known_to():
    assert {c for c, t in GOLDEN if strip_reasoning(c)[0] != t} == DIFFERENT.keys()


@pytest.mark.parametrize(
    ("content", "stripped"),
    [
        *DIFFERENT.items(),
        ("It is 4.<think>or is it", ("It is 4.", True)),
        ("<think>a</think>b<think>c", ("b", True)),
        ("<think>a<think>b</think>c", ("c", False)),
        ("a</think>\n\nb</think> c", ("c", False)),
        ("a</think>", ("", False)),
        ("a</think>b<think>c", ("b", True)),
        (" plain < think > ", (" plain < think > ", False)),
    ],
)
def test_strip_reasoning(content, stripped):
    assert strip_reasoning(content) == stripped


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  The  Kitchen!\n", "the  kitchen"),
        ("don't", "dont"),
        ("-5", "-5"),
        ("-.5", "-.5"),
        ("1.5.", "1.5"),
        ("1,200", "1200"),
        ("7-8", "78"),
        ("«Straße»", "strasse"),
        ("$5", "$5"),
        ("", ""),
    ],
)
def test_normalized(text, same):
    assert normalized(text) == same


def test_normalized_does_only_what_it_is_asked():
    nothing = {"ignore_case": False, "ignore_punctuation": False, "strip_whitespace": False}
    assert normalized(" A. ", **nothing) == " A. "
    assert normalized(" A. ", **nothing | {"ignore_case": True}) == " a. "
    assert normalized(" A. ", **nothing | {"ignore_punctuation": True}) == " A "
    assert normalized(" A. ", **nothing | {"strip_whitespace": True}) == "A."
