import json
from pathlib import Path

import pytest

from milepost.reasoning import strip_reasoning

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
