"""The numbers that a campaign of judged benchmarks must have, worked out apart from the package.

From the rows of the data, and the chats that the stand-in for a judge was sent: what it replied to each follows from its
hash (judge_stub.py). Every item's text holds its id, every statement and criterion has words of its own.
"""

from collections import defaultdict
from typing import Any

from judge_stub import Chat, verdict_of

Rows = list[dict[str, Any]]


def mean(values: list[float]) -> float:
    """The plain mean."""
    return sum(values) / len(values)


def verdicts(chats: list[Chat], *words: str) -> list[tuple[str, Any]]:
    """The last message and the verdict of every chat that holds all these words."""
    texts = [(chat[-1]["content"], verdict_of(chat)) for chat in chats]
    return [(text, verdict) for text, verdict in texts if all(word in text for word in words)]


def healthbench(rows: Rows, chats: list[Chat]) -> dict[str, float]:
    """Points over positive points."""
    found = defaultdict(list)
    for row in rows:
        parts = defaultdict(list)
        for rubric in row["rubrics"]:
            ((_, met),) = verdicts(chats, row["prompt_id"], rubric["criterion"])
            axes = [tag.replace("axis:", "axis_") for tag in rubric["tags"] if tag.startswith("axis:")]
            for name in ["healthbench", *axes]:
                parts[name].append((rubric["points"], met))
        for name, rubric in parts.items():
            positive = sum(points for points, _ in rubric if points > 0)
            if positive:
                found[name].append(sum(points for points, met in rubric if met) / positive)
        for tag in row["example_tags"]:
            if tag.startswith("theme:"):
                found[tag.replace("theme:", "theme_")].append(found["healthbench"][-1])
    return {name: min(max(mean(values), 0.0), 1.0) for name, values in found.items()}


def writingbench(
    rows: Rows, chats: list[Chat], texts: dict[str, list[int]], criteria: dict[str, list[str]]
) -> dict[str, float]:
    """Means over criteria, and over texts."""
    found = defaultdict(list)
    for row in rows:
        marks = {}
        for criterion in row["checklist"]:
            ((_, marks[criterion["name"]]),) = verdicts(chats, row["query"], criterion["name"])
        found["writingbench"] += marks.values()
        found[f"domain_{row['domain1'].lower()}"].append(mean(list(marks.values())))
        found[f"subdomain_{row['domain2'].lower()}"].append(mean(list(marks.values())))
        for name, indices in texts.items():
            if row["index"] in indices:
                found[f"{name}_r"].append(mean(list(marks.values())))
                found[f"{name}_c"] += [mark for criterion, mark in marks.items() if criterion in criteria[name]]
    return {name: mean(values) for name, values in found.items()}


def arena_hard(rows: Rows, chats: list[Chat], baseline: str) -> dict[str, float]:
    """Weighted wins over weights, of each category; of the headline, their mean."""
    wins, sides, same = defaultdict(list), [], []
    for row in rows:
        winners = []
        for text, label in verdicts(chats, row["prompt"]):
            model_is_a = text.index("answer_b") < text.index(baseline)
            value = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}[label]
            sides.append(value)
            winners.append(value if model_is_a else 1 - value)
            wins[row["category"]] += [winners[-1]] * (3 if ">>" in label else 1)
        same.append(float(winners[0] == winners[1]))
    rates = {f"win_rate_{category}": mean(values) for category, values in wins.items()}
    return {**rates, "win_rate": mean(list(rates.values())), "consistent": mean(same), "first_side": mean(sides)}


def alpaca_eval(rows: Rows, chats: list[Chat]) -> dict[str, float]:
    """Wins of one game each."""
    found = defaultdict(list)
    for row in rows:
        ((text, letter),) = verdicts(chats, row["instruction"])
        model_is_m = text.index("output_of_M") < text.index(row["output"])
        won = float((letter == "m") == model_is_m)
        for name in ("win_rate", "discrete_win_rate", f"win_rate_{row['dataset']}"):
            found[name].append(won)
        found["first_side"].append(float(letter == "m"))
    return {name: mean(values) for name, values in found.items()}
