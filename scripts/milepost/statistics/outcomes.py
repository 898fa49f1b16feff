"""What came of the questions: how many answers are none, or not what they seem, kind by kind."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from milepost.reasoning import split_answer
from milepost.records import Answer, Outcomes, Prompt, Rates, Score
from milepost.text import canonical

Kind = Literal["answered", "truncated", "empty", "refused", "filtered", "reasoning_only", "tool_calls", "failed"]
FILTERED = ("content_filter", "safety", "prohibited_content")  # finish reasons, in lower case
EXPLAINED: tuple[Kind, ...] = ("failed", "refused", "filtered")
# A text is said everywhere if so many items have it, and no fewer.
FEWEST = 3
# Of the answers to a task that has few right ones: so many alike are no matter of chance.
CONSTANT = 0.9
SHOWN = 60
_REPEATED = re.compile(r"(.{1,8}?)\1{3,}", re.DOTALL)


def kind_of(answer: Answer) -> Kind:
    """What kind of answer one is; each is of one kind.

    An answer that has text is one, whatever stands beside the text, unless it was cut off or stopped by a filter.

    >>> kind_of({"id": "a", "sample": 0, "content": "<think>so</think> ", "finish_reason": "stop"})
    'reasoning_only'
    >>> kind_of({"id": "a", "sample": 0, "content": "", "refusal": "I cannot", "finish_reason": "stop"})
    'refused'
    """
    if "error" in answer:
        kind = answer["error"]["type"]
        return "filtered" if kind == "filtered" else "refused" if kind == "refused" else "failed"
    if is_truncated(answer):
        return "truncated"
    if (answer.get("finish_reason") or "").lower() in FILTERED:
        return "filtered"
    split = split_answer(answer)
    if (split.get("content") or "").strip():
        return "answered"
    if answer.get("refusal"):
        return "refused"
    if answer.get("tool_calls"):
        return "tool_calls"
    if (split.get("reasoning") or "").strip():
        return "reasoning_only"
    # A log-probability has no content, and is an answer.
    return "empty" if "content" in answer else "answered"


def is_truncated(answer: Answer) -> bool:
    """Whether an answer was cut off: by its length, or inside its reasoning.

    >>> is_truncated({"id": "a", "sample": 0, "content": "<think>but then", "finish_reason": "stop"})
    True
    """
    return answer.get("finish_reason") == "length" or split_answer(answer).get("reasoning_cut", False)


def is_empty(answer: Answer) -> bool:
    """Whether a whole answer is blank, its reasoning aside. What was cut off in its reasoning is truncated, not empty.

    >>> is_empty({"id": "a", "sample": 0, "content": "<think>so</think> "})
    True
    """
    answer = split_answer(answer)
    return not (answer.get("content") or "").strip() and not answer.get("reasoning_cut")


def outcomes_of(
    answers: Sequence[Answer],
    scores: Sequence[Score],
    prompts: Sequence[Prompt],
    expected: int,
    server: Mapping[str, Any] | None = None,
) -> tuple[Rates, Outcomes]:
    """What a reader must know to judge a number: how many answers of each kind, by whom, and why some are none.

    Args:
        answers: The answers.
        scores: One for each of them.
        prompts: The items that were asked.
        expected: How many answers were asked for.
        server: What is known of a server of our own that bears on the form of its answers.

    Returns:
        Shares of all answers, of which one can count in several; and counts in which each answer stands once.
    """
    kinds = [kind_of(answer) for answer in answers]
    identical, text = said_everywhere(answers, prompts, kinds)
    counted: Counter[str] = Counter(kinds)
    unread = [score for kind, score in zip(kinds, scores, strict=True) if kind == "answered" and score["score"] is None]
    reasons = {"unreadable": _most(score.get("note", "") for score in unread), "identical": text}
    for kind in EXPLAINED:
        words = (words_of(answer) for answer, own in zip(answers, kinds, strict=True) if own == kind)
        reasons[kind] = _most(words)
    there = [(answer, score) for answer, score in zip(answers, scores, strict=True) if "error" not in answer]
    total = len(answers) or 1
    rates = Rates(
        truncated=counted["truncated"] / total,
        empty=sum(is_empty(answer) for answer, _ in there) / total,
        unreadable=sum(score["score"] is None for _, score in there) / total,
        failed=(len(answers) - len(there)) / total,
        refused=counted["refused"] / total,
        filtered=counted["filtered"] / total,
        reasoning_only=counted["reasoning_only"] / total,
        tool_calls=counted["tool_calls"] / total,
        identical=identical,
    )
    counted["answered"] -= len(unread)
    counted["unreadable"] += len(unread)
    outcomes = Outcomes(
        asked=expected,
        answered=len(there),
        kinds={kind: count for kind, count in counted.items() if count},
        reasons={name: words for name, words in reasons.items() if words},
    )
    outcomes |= who_answered(answers)
    if server:
        outcomes["server"] = dict(server)
    return rates, outcomes


def who_answered(answers: Iterable[Mapping[str, Any]]) -> Any:
    """How many answers are by which model, with which fingerprint, by which provider of a router; those that say it.

    >>> who_answered([{"id": "a", "sample": 0, "model": "m-2024"}])
    {'models': {'m-2024': 1}}
    """
    who_by_kind = {}
    for name, key in (("models", "model"), ("fingerprints", "fingerprint"), ("providers", "provider")):
        who = Counter(str(answer[key]) for answer in answers if key in answer)
        if who:
            who_by_kind[name] = dict(who.most_common())
    return who_by_kind


def server_facts(model: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a server of our own that decides the form of its answers: its reasoning parser, its template.

    Args:
        model: What results/models/{ckpt}.json holds.

    >>> server_facts({"identity": {"serving": {"vllm_args": {"reasoning-parser": "deepseek_r1"}}}})
    {'ours': True, 'reasoning_parser': 'deepseek_r1'}
    >>> server_facts({"identity": {"endpoint": {"url": "https://api.example.org/v1"}}})
    {}
    """
    serving = model.get("identity", {}).get("serving")
    if serving is None:
        return {}
    options = serving.get("vllm_args", {})
    names = {"reasoning-parser": "reasoning_parser", "chat-template": "chat_template"}
    named = {name: str(options[option])[:SHOWN] for option, name in names.items() if options.get(option)}
    return {"ours": True, **named}


def said_everywhere(
    answers: Sequence[Answer], prompts: Sequence[Prompt] = (), kinds: Sequence[Kind] | None = None
) -> tuple[float, str]:
    """The share of answers that are one and the same text, to whatever item; and that text.

    A broken model says the same everywhere. Where a task has few right answers (choices, yes or no), a sound model says the
    same often as well: there it counts only if hardly anything else is said.

    >>> said = [{"id": f"{n}", "sample": 0, "content": "!" * (9 + n)} for n in range(4)]
    >>> said_everywhere(said)
    (1.0, '!!!!')
    """
    items: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for answer, kind in zip(answers, kinds or map(kind_of, answers), strict=True):
        text = (split_answer(answer).get("content") or "").strip() if kind in ("answered", "truncated") else ""
        if text:
            text = _unit(text)
            items[text].add(answer["id"])
            counts[text] += 1
    everywhere = Counter({text: count for text, count in counts.items() if len(items[text]) >= FEWEST})
    if not everywhere:
        return 0.0, ""
    ((text, count),) = everywhere.most_common(1)
    share = count / len(answers)
    answered = {answer["id"] for answer in answers}
    if _has_few_answers([prompt for prompt in prompts if prompt["id"] in answered]) and share < CONSTANT:
        return 0.0, ""
    if _is_right_everywhere(text, items[text], prompts):
        return 0.0, ""
    return share, text if len(text) <= SHOWN else f"{text[:SHOWN]} […]"


def _unit(text: str) -> str:
    """A text, or four times the part that it repeats over and over: how often does not tell such texts apart.

    >>> _unit("!!!!!!!!"), _unit("abababababab"), _unit("Paris")
    ('!!!!', 'abababab', 'Paris')
    """
    repeated = _REPEATED.fullmatch(text)
    return repeated[1] * 4 if repeated else text


def _has_few_answers(prompts: Sequence[Prompt]) -> bool:
    """Whether a task's items share their right answers, as those with choices do."""
    # Of a harness's items, nothing is known.
    if not any("messages" in prompt or "prompt" in prompt for prompt in prompts):
        return True
    if any(len(prompt.get("choices") or ()) > 1 for prompt in prompts):
        return True
    targets = [target for prompt in prompts if (target := _target(prompt))]
    return bool(targets) and len(set(targets)) <= len(targets) / 2


def _is_right_everywhere(text: str, items: set[str], prompts: Iterable[Prompt]) -> bool:
    """Whether a text is the right answer to every item that it was said to: such items say nothing about the model."""
    targets = {prompt["id"]: _target(prompt) for prompt in prompts}
    return all(targets.get(item) == canonical(text).casefold() for item in items)


def _target(prompt: Prompt) -> str:
    target = prompt.get("target")
    first = target[0] if isinstance(target, list) and target else target
    return canonical(str(first)).strip().casefold() if first is not None else ""


def words_of(answer: Answer) -> str:
    """What stands in place of an answer, in words: its error, or the refusal."""
    error = answer.get("error")
    return f"{error['type']}: {error['message']}" if error is not None else answer.get("refusal", "")


def _most(words: Iterable[str]) -> str:
    """The text that occurs most often, cut to a readable length."""
    counted = Counter(" ".join(one.split())[:200] for one in words if one)
    return counted.most_common(1)[0][0] if counted else ""
