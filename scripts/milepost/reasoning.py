"""Removes reasoning traces, which a model writes for itself before it answers, before an answer is scored.

Models mark a trace in several ways. Its opening mark may stand in the chat template, so that an answer begins within the trace;
and an answer that was cut there has no mark at all: that the template opens it must be known from elsewhere (`opened`). An
answer may also speak of these marks, in quotation marks, in code or in a sentence: there they are words like any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from milepost.records import Answer, Prompt

Marks = Sequence[tuple[str, str]]
"""Opening and closing marks, in any case."""

MARKS: Marks = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<mm:think>", "</mm:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<ifm|think>", "</ifm|think>"),
    ("<ifm|think_fast>", "</ifm|think_fast>"),
    ("<ifm|think_faster>", "</ifm|think_faster>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
)
# The channels of the harmony format, with its special tokens, and as they read where a server leaves these out.
_HARMONY_OPEN = r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<]{0,80}<\|message\|>"
_HARMONY_FINAL = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final[^<]{0,80}<\|message\|>"
_HARMONY_END = r"<\|(?:end|return|call)\|>"
_BARE_HARMONY = re.compile(r"analysis(?=[A-Z\"'“(])")
_BARE_FINAL = "assistantfinal"
_QUOTES_BEFORE, _QUOTES_BEHIND = "`\"'“\u2018«", "`\"'”\u2019»"
_IN_A_SENTENCE = re.compile(r"[\w,;(]\s$")


@dataclass(frozen=True)
class Trace:
    """An answer in two parts.

    Attributes:
        text: What stands outside all traces.
        reasoning: What stands within them.
        cut: Whether a trace was left unclosed: nothing after its beginning is an answer.
        unopened: Whether a trace was closed that nothing in the answer had opened.
    """

    text: str
    reasoning: str
    cut: bool
    unopened: bool = False


def strip_reasoning(content: str, *, opened: bool = False, marks: Marks = ()) -> tuple[str, bool]:
    """Remove reasoning traces from an answer.

    A closing mark without an opening one ends a trace whose opening mark stood in the chat template. An opening mark
    without a closing one begins a trace that was cut off: nothing after it is an answer.

    Args:
        content: The answer as the model wrote it.
        opened: Whether the chat template, or the prompt, opens the trace.
        marks: Further marks than the known ones.

    Returns:
        The text outside all traces, and whether a trace was left unclosed: such an answer is truncated.

    >>> strip_reasoning("<think>2 and 2</think>It is 4."), strip_reasoning("2 and 2</think>It is 4.")
    (('It is 4.', False), ('It is 4.', False))
    >>> strip_reasoning("<think>2 and"), strip_reasoning("Maybe 3", opened=True)
    (('', True), ('', True))
    >>> strip_reasoning("A trace ends with `</think>`.")
    ('A trace ends with `</think>`.', False)
    """
    trace = split_reasoning(content, opened=opened, marks=marks)
    return trace.text, trace.cut


def split_reasoning(content: str, *, opened: bool = False, marks: Marks = ()) -> Trace:
    """As `strip_reasoning`, with what was removed. The time that it takes grows with the length of the answer only."""
    if not opened and _BARE_HARMONY.match(content):
        before, final, after = content.partition(_BARE_FINAL)
        return Trace(after, before.removeprefix("analysis"), not final)
    text: list[str] = []
    reasoning: list[str] = []
    inside, unopened, fenced = opened, False, False
    family = ""  # of the trace that is open; none is any
    quoted: set[str] = set()  # families whose opening mark was only spoken of
    at = 0
    for match in _pattern(tuple(marks)).finditer(content):
        begin, end = match.span()
        name = match.lastgroup or ""
        if name == "fence":
            # Code in an answer; a trace may hold half of it.
            fenced = not fenced and not inside
            continue
        opens, own = name[0] == "o", name[1:]
        if not opens and own in quoted:
            quoted.discard(own)
            continue
        if (fenced and not inside) or _is_spoken_of(content, begin, end, opens):
            quoted |= {own} if opens else set()
            continue
        if inside and (opens or family not in ("", own)):
            continue
        if opens:
            text.append(content[at:begin])
            inside, family = True, own
        elif inside:
            reasoning.append(content[at:begin])
            inside = False
        else:  # the template opened it
            reasoning += [*text, content[at:begin]]
            text = []
            unopened = True
        at = end if opens else _after_blanks(content, end)
    (reasoning if inside else text).append(content[at:])
    plain = "".join(text)
    if "<|" in plain and "<|channel|>" in content:
        plain = re.sub(_HARMONY_END, "", re.sub(_HARMONY_FINAL, "", plain))
    return Trace(plain, "".join(reasoning), inside, unopened)


def split_answer(answer: Answer, *, opened: bool = False, marks: Marks = ()) -> Answer:
    """An answer with its reasoning apart: `content` without it, `reasoning`, and `reasoning_cut`. Once split, it stays.

    >>> split_answer({"id": "a", "sample": 0, "content": "<think>so</think>4"})["content"]
    '4'
    """
    if "error" in answer or "reasoning_cut" in answer:
        return answer
    content = answer.get("content") or ""
    # A server that parses reasoning hands it over apart, and leaves the content empty while the model still reasons.
    parsed = bool(answer.get("reasoning"))
    trace = split_reasoning(content, opened=opened and not parsed, marks=marks)
    cut = trace.cut or (parsed and not content.strip() and answer.get("finish_reason") == "length")
    split: Answer = {**answer, "content": trace.text, "reasoning_cut": cut}
    if trace.reasoning:
        split["reasoning"] = (answer.get("reasoning") or "") + trace.reasoning
    return split


def split_answers(answers: Sequence[Answer], prompts: Sequence[Prompt], model: Mapping[str, object]) -> list[Answer]:
    """All answers of one checkpoint to one task, each with its reasoning apart.

    Args:
        answers: As the model wrote them.
        prompts: What they answer.
        model: What is known of the model's traces: `opened`, whether its chat template opens them (None: not known), and
            `marks`, further marks.
    """
    marks = tuple((str(one), str(other)) for one, other in model.get("marks") or ())  # type: ignore[attr-defined]
    known = model.get("opened")
    texts = {prompt["id"]: prompt["prompt"] for prompt in prompts if "prompt" in prompt}
    by_text = {item: split_reasoning(text, marks=marks).cut for item, text in texts.items()}
    chats = [answer for answer in answers if "error" not in answer and answer["id"] not in texts]
    # Not known of a model that others serve: then its other answers tell, those that close what they did not open.
    seen = known is None and any(
        split_reasoning(answer.get("content") or "", marks=marks).unopened
        for answer in chats
        if not answer.get("reasoning")
    )

    def is_opened(answer: Answer) -> bool:
        if answer["id"] in texts:
            return by_text[answer["id"]]
        return bool(known) or (seen and answer.get("finish_reason") == "length")

    return [split_answer(answer, opened=is_opened(answer), marks=marks) for answer in answers]


def opens_trace(text: str, marks: Marks = ()) -> bool:
    r"""Whether a text, such as a prompt, ends within a trace.

    >>> opens_trace("<|im_start|>assistant\n<think>\n"), opens_trace("assistant\n<think>\n\n</think>\n\n")
    (True, False)
    """
    return split_reasoning(text, marks=marks).cut


def reasoning_tokens(answer: Answer) -> float | None:
    """The tokens that an answer's reasoning took, by its share of the characters; None where no server counted any."""
    answer = split_answer(answer)
    if not answer.get("usage"):
        return None
    reasoning, text = len(answer.get("reasoning") or ""), len(answer.get("content") or "")
    return answer["usage"]["completion_tokens"] * (reasoning / (reasoning + text) if reasoning else 0.0)


def _is_spoken_of(content: str, begin: int, end: int, opens: bool) -> bool:
    """Whether a mark is a word of the answer: in quotation marks, or in the middle of a sentence."""
    before, behind = content[max(begin - 2, 0) : begin], content[end : end + 2]
    if before[-1:] and before[-1:] in _QUOTES_BEFORE and (opens or (behind[:1] and behind[:1] in _QUOTES_BEHIND)):
        return True
    if not _IN_A_SENTENCE.search(before) or before.endswith("\n"):
        return False
    return behind[:1] in tuple(".,;:)?!") or (behind[:1] == " " and behind[1:].islower())


def _after_blanks(content: str, at: int) -> int:
    while at < len(content) and content[at].isspace():
        at += 1
    return at


@lru_cache(maxsize=16)
def _pattern(marks: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    families = [(re.escape(one), re.escape(other)) for one, other in (*MARKS, *marks)]
    families.append((_HARMONY_OPEN, f"{_HARMONY_FINAL}|{_HARMONY_END}(?=<\\|start\\|>)"))
    parts = [part for at, (one, other) in enumerate(families) for part in (f"(?P<o{at}>{one})", f"(?P<c{at}>{other})")]
    return re.compile("|".join(["(?P<fence>```)", *parts]), re.IGNORECASE)
