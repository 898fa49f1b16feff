"""Marks of numbers that are not what they seem, each with its reason in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from milepost.records import Outcomes, Summary
from milepost.schemas import defaults

SCHEMA = "config"  # of config/config.yaml, which says from which shares of answers on a number is marked
NOTHING = "nothing scored"
UNKNOWN = Outcomes(asked=0, answered=0, kinds={})
COUNTED = ("empty", "truncated", "refused", "filtered", "reasoning_only", "tool_calls", "unreadable", "failed")
# What a share of answers is, after "100 % of the answers".
WORDS = {
    "empty": "are empty",
    "truncated": "were cut off",
    "refused": "were refused",
    "filtered": "were stopped by a content filter",
    "reasoning_only": "have all their text in the reasoning, and nothing behind it",
    "tool_calls": "are calls of tools, and no text",
    "unreadable": "could not be scored",
    "failed": "failed",
    "identical": "are one and the same text, to whatever item",
    "missing": "that were asked for are not there",
}
ADVICE = {
    "truncated": "Raise `max_tokens` if they should have ended.",
    "filtered": "Their text, where there is any, stands in the answers.",
    "reasoning_only": "If its server parses reasoning, the parser does not fit the model; if the model did not come to its"
    " answer, raise `max_tokens` or ask for less reasoning (`extra_body`).",
    "tool_calls": "The model believes that it has tools: see its chat template, or what a gateway adds.",
    "identical": "A broken model, template or gateway says the same everywhere.",
}


@dataclass(frozen=True)
class Mark:
    """One reason why a number is not what it seems.

    Attributes:
        name: What it is: a name of `WORDS`, `models`, or `nothing`.
        short: A few words for a table's cell.
        reason: A sentence or two.
    """

    name: str
    short: str
    reason: str


def marks_of(summary: Summary, shares: Mapping[str, float] | None = None) -> list[Mark]:
    """The marks of a number, the most telling first.

    Args:
        summary: The number, with what came of its questions.
        shares: From which share of the answers on; the defaults hold for those that are not named.

    >>> summary = {"value": 0.0, "n_samples": 8, "rates": {"truncated": 0.0, "empty": 1.0, "unreadable": 0.0, "failed": 0.0}}
    >>> [(mark.short, mark.reason) for mark in marks_of(summary)]
    [('empty 100 %', '100 % of the answers are empty.')]
    """
    bounds: dict[str, float] = {**defaults(SCHEMA, "marks"), **(shares or {})}
    measured = shares_of(summary)
    outcomes = summary.get("outcomes") or UNKNOWN
    marks = [
        Mark(name, f"{label(name)} {percent(measured[name])}", _reason(name, measured[name], outcomes))
        for name in sorted(WORDS, key=lambda name: -measured.get(name, 0.0))
        if name in measured and measured[name] > bounds[name]
    ]
    # Answers that failed are not there: once is enough.
    if any(mark.name == "failed" for mark in marks):
        marks = [mark for mark in marks if mark.name != "missing"]
    models = list(outcomes.get("models", {}))
    if len(models) > 1:
        reason = f"The replies are by {len(models)} models: {', '.join(models[:4])}{' and others' * (len(models) > 4)}."
        marks.insert(0, Mark("models", f"{len(models)} models", reason))
    if summary["value"] is None:
        marks.insert(0, Mark("nothing", NOTHING, "Nothing of it could be scored: there is no number."))
    return marks


def shares_of(summary: Summary) -> dict[str, float]:
    """The shares by which a number is judged: each answer counts in one kind, and may be unreadable or identical as well."""
    measured: dict[str, float] = {
        name: rate for name, rate in summary["rates"].items() if isinstance(rate, float | int)
    }
    outcomes = summary.get("outcomes")
    if outcomes is None:
        return measured
    total = sum(outcomes["kinds"].values())
    if total:
        counted = {name: outcomes["kinds"].get(name, 0) / total for name in COUNTED}
        # A harness may tell more of its answers than its replies do.
        cut = max(measured.get("truncated", 0.0), counted["truncated"])
        measured = {**counted, "identical": measured.get("identical", 0.0), "truncated": cut}
    if outcomes["asked"]:
        measured["missing"] = 1 - outcomes["answered"] / outcomes["asked"]
    return measured


def label(name: str) -> str:
    """A mark's name in words.

    >>> label("reasoning_only"), label("truncated")
    ('only reasoning', 'cut off')
    """
    return {"reasoning_only": "only reasoning", "truncated": "cut off", "tool_calls": "only tool calls"}.get(name, name)


def percent(share: float) -> str:
    """A share in whole percent, never rounded to nothing or to all.

    >>> percent(1.0), percent(0.999), percent(0.001)
    ('100 %', '>99 %', '<1 %')
    """
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def _reason(name: str, share: float, outcomes: Outcomes) -> str:
    cause = outcomes.get("reasons", {}).get(name)
    caused = f": {cause!r}" if cause and name == "identical" else f", most often: {cause.rstrip('.')}" if cause else ""
    if name == "missing":
        lacking = outcomes["asked"] - outcomes["answered"]
        return f"{lacking} of {outcomes['asked']} answers that were asked for are not there; the number is one of the rest."
    sentences = [f"{percent(share)} of the answers {WORDS[name]}{caused}."]
    advice = _known_cause(name, outcomes) or ADVICE.get(name)
    return " ".join([*sentences, *filter(None, [advice])])


def _known_cause(name: str, outcomes: Outcomes) -> str | None:
    """The cause, where the server is ours and it can be known."""
    server = outcomes.get("server", {})
    if not server.get("ours"):
        return None
    parser, template = server.get("reasoning_parser"), server.get("chat_template")
    if name == "reasoning_only" and parser:
        return (
            f"Its server's reasoning parser {parser!r} takes all that this model writes for reasoning: it does not fit the"
            " model or its chat template. Take `reasoning-parser` out of its vllm_args (marks of reasoning are read without"
            " it), or name the one that fits."
        )
    if name in ("empty", "identical", "truncated"):
        which = "the one that `chat-template` of its vllm_args names" if template else "the one of its tokenizer"
        advice = f"{ADVICE[name]} " if name in ADVICE else ""
        return f"{advice}It was asked by the chat template: {which}. See by `snakemake preview_prompts` that it fits."
    return None
