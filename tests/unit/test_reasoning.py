import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.reasoning import MARKS, reasoning_tokens, split_answer, split_answers, split_reasoning, strip_reasoning

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
    ("content", "text"),
    [
        ("<THINK>a</Think>b", "b"),
        ("<thinking>a</thinking>\n\nb", "b"),
        ("<thought>a</thought>b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        ("a</seed:think>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("<|START_THINKING|>a<|END_THINKING|>b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<think>a </thinking> b</think>c", "c"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "b"),
        ("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b", "b"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>c<|end|>"
            "<|start|>assistant<|channel|>final<|message|>b",
            "b",
        ),
        ("analysisWe need 4.assistantfinalIt is 4.", "It is 4."),
    ],
)
def test_marks_of_other_families(content, text):
    assert strip_reasoning(content) == (text, False)


@pytest.mark.parametrize(
    "content",
    [
        "<thinking>a",
        "[think]a",
        "<seed:think>a",
        "<|channel|>analysis<|message|>a",
        "analysisWe need 4",
        "<think>a `</think>` b",
        '<think>it ends with "</think>", I know',
        "<think>a [/THINK] b",
    ],
)
def test_a_trace_that_does_not_end(content):
    assert strip_reasoning(content) == ("", True)


@pytest.mark.parametrize(
    "content",
    [
        "A trace ends with `</think>`.",
        "The tag </think> ends a trace.",
        "The <think> tag opens a trace.",
        "Use <think> and </think> around it.",
        "Write `<think>so</think>` first, then 4.",
        'text.split("</think>") gives 4.',
        're.sub(r"<think>.*?</think>", "", text)',
        "So:\n```python\na = x.partition(END)  # </think>\n```\nThat is all.",
        "```\n<think>\nso\n</think>\n```",
        "It ends in \u201c</think>\u201d.",
        "analysis of variance",
        "analysis: 4",
        "He thinks [thinking] of <thinkers>.",
        "<|end|> is a token.",
    ],
)
def test_an_answer_that_speaks_of_marks_keeps_its_text(content):
    assert strip_reasoning(content) == (content, False)
    assert strip_reasoning(f"<think>so</think>{content}") == (content, False)
    assert strip_reasoning(f"so it is\n</think>\n\n{content}") == (content, False)
    assert strip_reasoning(f"so it is\n</think>\n\n{content}", opened=True) == (content, False)


@pytest.mark.parametrize(
    ("content", "stripped"),
    [
        ("Maybe 17 or 42", ("", True)),
        ("Maybe 17 or 42</think>17", ("17", False)),
        ("<think>Maybe 17</think>17", ("17", False)),
        ("Maybe [/THINK] 17", ("17", False)),
        ("", ("", True)),
        ("`</think>` is a tag, so", ("", True)),
    ],
)
def test_a_trace_that_the_template_opens(content, stripped):
    assert strip_reasoning(content, opened=True) == stripped


def test_marks_of_ones_own():
    marks = [("<denk>", "</denk>")]
    assert strip_reasoning("<Denk>a</denk>b", marks=marks) == ("b", False)
    assert strip_reasoning("a</denk>b", marks=marks) == ("b", False)
    assert strip_reasoning("<denk>a", marks=marks) == ("", True)


@pytest.mark.parametrize(
    "unit",
    [
        "<think>",
        "</think>",
        "<think>a</think>",
        "`<think>",
        "<|channel|>analysis",
        "<|channel|>final",
        "```",
        " <think> a",
        "<|start|>assistant",
        "a </think>, ",
    ],
)
def test_long_traces_take_milliseconds(unit):
    content = unit * (128 * 1024 // len(unit))
    start = time.process_time()
    strip_reasoning(content)
    strip_reasoning(content, opened=True)
    assert time.process_time() - start < 1.0


outside = st.text(st.characters(codec="utf-8", exclude_characters="<>[]|`◁▷"), max_size=20).filter(
    lambda text: not text.startswith("analysis")
)


@given(outside, outside, outside, st.sampled_from(MARKS), st.booleans())
def test_what_stands_between_marks_is_reasoning(before, within, after, marks, upper):
    opening, closing = (mark.upper() if upper else mark for mark in marks)
    found = split_reasoning(f"{before}\n{opening}{within}\n{closing}{after}")
    assert found.text == f"{before}\n{after.lstrip()}"
    assert found.reasoning == f"{within}\n"
    assert not found.cut


def answers(*contents, **fields):
    return [
        {"id": "a", "sample": n, "content": content, "finish_reason": "stop", **fields}
        for n, content in enumerate(contents)
    ]


CHAT = [{"id": "a", "messages": [{"role": "user", "content": "?"}]}]


def test_answers_are_split_once():
    (answer,) = split_answers(answers("<think>so</think> 4"), CHAT, {})
    assert (answer["content"], answer["reasoning"], answer["reasoning_cut"]) == ("4", "so", False)
    # What is left of it is not looked through again.
    (spoken,) = split_answers(answers("so</think>The tag</think>"), CHAT, {"opened": True})
    assert split_answer(spoken) is spoken


def test_a_cut_answer_tells_by_the_template_or_by_its_neighbours():
    cut = {"finish_reason": "length"}
    known = split_answers(answers("Maybe 17 or 42", **cut), CHAT, {"opened": True})
    assert (known[0]["content"], known[0]["reasoning_cut"]) == ("", True)
    # The template does not open a trace: the answer is long, and that is all.
    plain = split_answers(answers("Maybe 17 or 42", **cut), CHAT, {"opened": False})
    assert (plain[0]["content"], plain[0]["reasoning_cut"]) == ("Maybe 17 or 42", False)
    seen = split_answers([*answers("so</think>4"), *answers("Maybe 17 or 42", **cut), *answers("It is 4")], CHAT, {})
    assert [(one["content"], one["reasoning_cut"]) for one in seen] == [("4", False), ("", True), ("It is 4", False)]
    unseen = split_answers([*answers("4"), *answers("Maybe 17 or 42", **cut)], CHAT, {})
    assert [one["content"] for one in unseen] == ["4", "Maybe 17 or 42"]


def test_a_prompt_may_open_a_trace_itself():
    prompts = [{"id": "a", "prompt": "Q: 2+2\n<think>"}]
    assert split_answers(answers("Maybe 4"), prompts, {})[0]["reasoning_cut"]
    assert split_answers(answers("so</think>4"), prompts, {})[0]["content"] == "4"
    assert not split_answers(answers("4"), [{"id": "a", "prompt": "Q: 2+2"}], {"opened": True})[0]["reasoning_cut"]


def test_a_server_that_parses_reasoning():
    (parsed,) = split_answers(answers("4", reasoning="so"), CHAT, {"opened": True})
    assert (parsed["content"], parsed["reasoning_cut"]) == ("4", False)
    (cut,) = split_answers(answers(None, reasoning="so", finish_reason="length"), CHAT, {"opened": True})
    assert (cut["content"], cut["reasoning_cut"]) == ("", True)
    (failed,) = split_answers(
        [{"id": "a", "sample": 0, "error": {"type": "context", "message": "x"}}], CHAT, {"opened": True}
    )
    assert "reasoning_cut" not in failed


def test_tokens_of_reasoning():
    usage = {"prompt_tokens": 3, "completion_tokens": 40}
    assert reasoning_tokens(answers("<think>123</think>4", usage=usage)[0]) == 30
    assert reasoning_tokens(answers("4", usage=usage)[0]) == 0
    assert reasoning_tokens(answers("4")[0]) is None
