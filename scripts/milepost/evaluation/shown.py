"""One task's number and its worst items, for a terminal."""

from __future__ import annotations

from pathlib import Path

from milepost.reasoning import split_answers
from milepost.records import Prompt, Summary, read_answers, read_prompts, read_scores
from milepost.statistics.marks import marks_of
from milepost.style import places
from milepost.terminal import columns

WIDEST = 60  # characters of a cell


def number_shown(model: str, summary: Summary) -> str:
    """A table of the number: each metric with its interval, and what does not look as it should."""
    rows = [("model", "metric", "score", "95 % interval", "items")]
    for name, metric in summary["metrics"].items():
        value, interval = metric["value"], metric["ci95"]
        n = 3 if value is None else places(value, 3)
        shown = "not scored" if value is None else f"{value:.{n}f}"
        ends = "" if interval is None else f"{interval[0]:.{n}f} to {interval[1]:.{n}f}"
        rows.append((model, name, shown, ends, str(summary["n_items"])))
    lines = columns(rows, right=(2, 4))
    lines += [f"! {mark.reason}" for mark in marks_of(summary)]
    return "\n".join(["", *lines, ""])


def worst_shown(folder: Path, most: int) -> str:
    """The items with the lowest scores: what was asked, what is right, and what was answered."""
    prompts = read_prompts(folder / "prompts.jsonl")
    scores = [score for score in read_scores(folder / "scores.jsonl") if score["score"] is None or score["score"] < 1]
    answers = split_answers(read_answers(folder / "answers.jsonl"), prompts.prompts, {})
    given = {(answer["id"], answer["sample"]): answer for answer in answers}
    items = {item["id"]: item for item in prompts.prompts}
    scores.sort(key=lambda score: -1.0 if score["score"] is None else score["score"])
    rows = [("item", "score", "asked", "right", "answered")]
    for score in scores[:most]:
        answer = given[score["id"], score["sample"]]
        said = answer["content"] if "content" in answer else f"({answer['error']['message']})"
        shown = "none" if score["score"] is None else f"{score['score']:.2g}"
        item = items[score["id"]]
        rows.append((score["id"], shown, _short(_question(item)), _short(_right(item)), _short(said)))
    if len(rows) == 1:
        return ""
    head = (
        "The worst of them:" if len(scores) <= most else f"The worst {most} of {len(scores)} that are not wholly right:"
    )
    return "\n".join([head, *columns(rows), "", ""])


def _question(item: Prompt) -> str:
    return item["messages"][-1]["content"] if "messages" in item else item["prompt"]


def _right(item: Prompt) -> str:
    target = item.get("target", "")
    return " | ".join(target) if isinstance(target, list) else str(target)


def _short(text: str) -> str:
    """A text on one line, cut where it is long.

    >>> _short("two   words"), len(_short("x" * 99))
    ('two words', 60)
    """
    line = " ".join(text.split())
    return line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"
