"""Numbers that are not what they seem are marked, each with its reason."""

import pytest

from milepost.records import PromptSet
from milepost.statistics.marks import marks_of
from milepost.statistics.outcomes import kind_of, said_everywhere, server_facts
from milepost.statistics.summary import summarize

N = 20


def asked(n=N, **more):
    prompts = [{"id": f"i{at}", "messages": [{"role": "user", "content": f"{at}?"}], **more} for at in range(n)]
    header = {"task": "t", "kind": "native", "version": 1, "generation": 1, "samples": 1, "sampling": {}}
    return PromptSet(header, prompts)


def answer(at, **more):
    return {"id": f"i{at}", "sample": 0, "content": f"It is {at}.", "finish_reason": "stop", **more}


def failed(kind, message="no"):
    return {"content": None, "finish_reason": None, "error": {"type": kind, "message": message}}


def of(few, some, prompts=None, server=None, note="no verdict", shares=None):
    """The marks of a number of which so many of 20 answers are of a kind."""
    answers = [answer(at, **(some if at < few else {})) for at in range(N)]
    answers = [{key: value for key, value in one.items() if value is not None} for one in answers]
    scores = []
    for one in answers:
        value = None if "error" in one or one.get("content") == "?" else 0.0
        scores.append({"id": one["id"], "sample": 0, "score": value, "metrics": {"m": value}, "note": note})
    found = summarize("c", prompts or asked(), answers, scores, scorer="s", metric="m", provenance={}, server=server)
    return marks_of(found, shares)


REASONING = {"content": "", "reasoning": "Let me see. It is 4."}
KINDS = [
    ({"content": ""}, "empty", "15 % of the answers are empty"),
    ({"finish_reason": "length"}, "truncated", "were cut off"),
    (REASONING, "reasoning_only", "have all their text in the reasoning"),
    ({"content": "", "refusal": "I cannot help."}, "refused", "most often: I cannot help"),
    (failed("refused", "400: unknown"), "refused", "most often: refused: 400: unknown"),
    ({"content": "It", "finish_reason": "content_filter"}, "filtered", "content filter"),
    (failed("filtered"), "filtered", "content filter"),
    ({"content": "", "tool_calls": [{"function": {"name": "f"}}], "finish_reason": "tool_calls"}, "tool_calls", "calls of tools"),
    ({"content": "?"}, "unreadable", "could not be scored, most often: no verdict"),
    (failed("timeout", "no answer within 9 s"), "failed", "timeout: no answer within 9 s"),
    ({"content": "!!!!!!!!"}, "identical", "'!!!!'"),
]  # fmt: skip


@pytest.mark.parametrize(("some", "name", "words"), KINDS)
def test_more_than_a_tenth_is_marked_and_says_why(some, name, words):
    marks = {mark.name: mark.reason for mark in of(3, some)}
    missing = {"missing"} if "error" in some and name != "failed" else set()
    missing |= {"identical"} if some.get("content") == "?" else set()
    assert marks.keys() - missing == {name}
    assert words in marks[name]
    assert {mark.name for mark in of(2, some)} <= {"missing"}, "two of twenty are a tenth, and not more"
    assert name not in {mark.name for mark in of(3, some, shares={name: 0.2})}, "the share is the user's"


def test_all_in_the_reasoning_is_named_with_the_parser_of_our_server():
    server = server_facts({"identity": {"serving": {"vllm_args": {"reasoning-parser": "deepseek_r1"}}}})
    (mark,) = of(N, REASONING, server=server)
    assert mark.short == "only reasoning 100 %"
    assert "reasoning parser 'deepseek_r1'" in mark.reason
    (mark,) = of(N, REASONING)
    assert "the parser does not fit the model" in mark.reason


@pytest.mark.parametrize(
    ("option", "words"),
    [({}, "the one of its tokenizer"), ({"chat-template": "x"}, "`chat-template` of its vllm_args")],
)
def test_empty_answers_of_our_server_name_its_template(option, words):
    server = server_facts({"identity": {"serving": {"vllm_args": option}}})
    assert words in of(N, {"content": ""}, server=server)[0].reason


@pytest.mark.parametrize(
    ("prompt", "said", "share"),
    [
        ({}, ["!!!!"] * 20, 1.0),
        ({}, ["!!!!"] * 3 + [str(n) for n in range(17)], 0.15),
        ({}, ["yes"] * 2 + [str(n) for n in range(18)], 0.0),
        # A model that leans to one of few answers is a weak one, not a broken one.
        ({"choices": ["A", "B"]}, ["A"] * 14 + ["B"] * 6, 0.0),
        ({"choices": ["A", "B"]}, ["A"] * 20, 1.0),
        # As many questions as there are answers, and all of them right.
        ({"target": "Paris"}, ["Paris"] * 20, 0.0),
        ({"target": "Paris"}, ["London"] * 20, 1.0),
    ],
)
def test_one_text_to_whatever_item(prompt, said, share):
    answers = [answer(at, content=text) for at, text in enumerate(said)]
    assert said_everywhere(answers, asked(**prompt).prompts)[0] == share


def test_one_failed_answer_is_said_even_where_it_is_no_tenth():
    (mark,) = of(1, failed("timeout"))
    assert (mark.name, mark.reason[:39]) == ("missing", "1 of 20 answers that were asked for are")


def test_replies_by_several_models_are_marked():
    answers = [answer(at, model="one" if at % 2 else "other") for at in range(N)]
    scores = [{"id": one["id"], "sample": 0, "score": 1.0, "metrics": {}} for one in answers]
    (mark,) = marks_of(summarize("c", asked(), answers, scores, scorer="s", metric="m", provenance={}))
    assert (mark.short, mark.reason) == ("2 models", "The replies are by 2 models: other, one.")


def test_nothing_scored_comes_first():
    first, second = of(N, failed("refused", "400: Unsupported parameter: 'max_tokens'"))[:2]
    assert (first.name, second.name) == ("nothing", "refused")
    assert "400: Unsupported parameter" in second.reason


def test_a_sound_number_has_no_mark():
    assert of(0, {}) == []
    assert of(N, {"model": "m-2024", "fingerprint": "f"}) == []


def test_an_answer_with_text_is_an_answer():
    assert kind_of(answer(0, tool_calls=[{}], reasoning="so")) == "answered"
    assert kind_of(answer(0, content="It", finish_reason="length", reasoning="so")) == "truncated"
