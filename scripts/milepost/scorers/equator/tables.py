"""EQUATOR's files and statistics: every verdict in a file per pair and round, and tables by category and model.

Scores are in per cent here, as the method has them. The rounds of a question are averaged first: they are no independent
questions. `pooled` takes them for such, as the original does.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from milepost.records import Answer, Prompt, Score
from milepost.scorers.equator.keys import Key, key_id
from milepost.statistics.means import mean_estimate
from milepost.style import places

ALL = "all"
NO_KEY = "(no answer key)"
ROUNDS = 10_000  # of the bootstrap, as in the original
Z = 1.96


@dataclass(frozen=True)
class Student:
    """What one checkpoint answered, and what it scored."""

    name: str
    answers: Sequence[Answer]
    scores: Sequence[Score]


@dataclass(frozen=True)
class Stats:
    """The original's numbers: mean, standard deviation (n - 1), 1.96 standard errors, a bootstrap interval, n."""

    mean_score: float | None
    std_dev_score: float | None
    z_interval_error: float | None
    ci_lower: float | None
    ci_upper: float | None
    output_count: int


@dataclass(frozen=True)
class CategoryRow:
    """One student, one evaluator (or all), one category (or all), in per cent.

    `n_answers` verdicts on `output_count` questions could be read, `n_unscored` could not. `ci95_low` and `ci95_high` are
    the interval that all other tables have (docs/statistics.md).
    """

    student: str
    evaluator: str
    category: str
    n_answers: int
    n_unscored: int
    ci95_low: float | None
    ci95_high: float | None
    mean_score: float | None
    std_dev_score: float | None
    z_interval_error: float | None
    ci_lower: float | None
    ci_upper: float | None
    output_count: int


@dataclass(frozen=True)
class TokenRow:
    """Tokens of one pair, as the servers counted them: of the student's answers, and of the evaluator's calls."""

    model: str
    student_prompt_tokens: int
    student_completion_tokens: int
    evaluator_calls: int
    evaluator_prompt_tokens: int
    evaluator_completion_tokens: int


def pair_name(evaluator: str, student: str) -> str:
    """The name of a pair, as the original writes it."""
    return f"equator-{evaluator}-stu-{student}"


def describe(values: Sequence[float]) -> Stats:
    """The original's statistics of scores in per cent; null where they are not defined.

    >>> found = describe([100.0] * 16 + [0.0] * 44)
    >>> round(found.mean_score, 4), round(found.std_dev_score, 4), round(found.z_interval_error, 4)
    (26.6667, 44.5948, 11.2841)
    """
    import numpy as np

    n = len(values)
    if not n:
        return Stats(None, None, None, None, None, 0)
    std = statistics.stdev(values) if n > 1 else None
    draws = np.random.default_rng(0)
    scores = np.asarray(values, float)
    # In parts: all draws at once would take much memory where there are many questions.
    means = np.concatenate([scores[draws.integers(0, n, (100, n))].mean(axis=1) for _ in range(ROUNDS // 100)])
    low, high = np.percentile(means, [2.5, 97.5]).tolist()
    error = None if std is None else Z * std / math.sqrt(n)
    return Stats(math.fsum(values) / n, std, error, low, high, n)


def category_rows(
    students: Sequence[Student],
    evaluators: Sequence[str],
    prompts: Sequence[Prompt],
    keys: Mapping[str, Key],
    *,
    pooled: bool = False,
) -> list[CategoryRow]:
    """The table by category and model: for each student and evaluator all categories, and each.

    Args:
        students: In the order of the table.
        evaluators: In the order of the table; a row for all of them together comes first where there are several.
        prompts: The task's items.
        keys: The answer key, by id.
        pooled: Take rounds for independent questions.
    """
    category_of = {prompt["id"]: _category(prompt, keys) for prompt in prompts}
    rows = []
    for student in students:
        for evaluator in [ALL, *evaluators] if len(evaluators) > 1 else evaluators:
            values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
            unscored: dict[str, int] = defaultdict(int)
            for score in student.scores:
                asked, value = _value(score, evaluator, single=len(evaluators) == 1)
                if not asked:
                    continue
                for category in (ALL, category_of[score["id"]]):
                    if value is None:
                        unscored[category] += 1
                    else:
                        values[category][score["id"]].append(value)
            there = {*values, *unscored}
            for category in [ALL, *sorted(there - {ALL})]:
                rows.append(_row(student.name, evaluator, category, values[category], unscored[category], pooled))
    return rows


def token_rows(students: Sequence[Student], evaluators: Sequence[str]) -> list[TokenRow]:
    """The tokens that each pair of student and evaluator took."""
    rows = []
    for student in students:
        own = [answer["usage"] for answer in student.answers if answer.get("usage")]
        for evaluator in evaluators:
            verdicts = [
                score["verdicts"][evaluator] for score in student.scores if evaluator in score.get("verdicts", {})
            ]
            used = [verdict["usage"] for verdict in verdicts if "usage" in verdict]
            rows.append(
                TokenRow(
                    pair_name(evaluator, student.name),
                    sum(usage["prompt_tokens"] for usage in own),
                    sum(usage["completion_tokens"] for usage in own),
                    len(used),
                    sum(usage["prompt_tokens"] for usage in used),
                    sum(usage["completion_tokens"] for usage in used),
                )
            )
    return rows


def write_verdicts(
    out: Path,
    students: Sequence[Student],
    evaluators: Sequence[str],
    prompts: Sequence[Prompt],
    keys: Mapping[str, Key],
) -> None:
    """Write round_{n}/equator-{evaluator}-stu-{student}.json: all that led to each score, by item."""
    by_id = {prompt["id"]: prompt for prompt in prompts}
    for student in students:
        contents = {(answer["id"], answer["sample"]): answer.get("content") for answer in student.answers}
        for evaluator in evaluators:
            rounds: dict[int, dict[str, Any]] = defaultdict(dict)
            for score in student.scores:
                asked, value = _value(score, evaluator, single=len(evaluators) == 1)
                if not asked:
                    continue
                key = keys.get(key_id(by_id[score["id"]]))
                verdict = score.get("verdicts", {}).get(evaluator)
                rounds[score["sample"]][score["id"]] = {
                    "category": key.category if key else None,
                    "question": key.question if key else None,
                    "human_answer": key.answer if key else None,
                    "model_answer": contents.get((score["id"], score["sample"])),
                    "eval_response": verdict.get("reply") if verdict else None,
                    "evaluation": verdict.get("evaluation") if verdict else None,
                    "score": value,
                    "note": verdict.get("problem") if verdict else score.get("note"),
                }
            for number, entries in sorted(rounds.items()):
                path = out / f"round_{number + 1}" / f"{pair_name(evaluator, student.name)}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(entries, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Any], kind: type[Any], partial: str | None = None) -> None:
    """Write rows of one kind as CSV, their columns in the order of its fields, and the mark of a part of the items."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        names = [*(field.name for field in fields(kind)), "partial"]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "partial": partial} for row in rows)


def write_final_stats(path: Path, rows: Iterable[CategoryRow], partial: str | None = None) -> None:
    """Write the original's table: a line per pair, the best first; its last column is ours."""
    names = [field.name for field in fields(Stats)]
    pairs = [row for row in rows if row.category == ALL and row.evaluator != ALL]
    pairs.sort(key=lambda row: -math.inf if row.mean_score is None else row.mean_score, reverse=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", *names, "partial"])
        writer.writerows(
            [pair_name(row.evaluator, row.student), *(getattr(row, name) for name in names), partial] for row in pairs
        )


def write_tables(
    folder: Path,
    title: str,
    students: Sequence[Student],
    evaluators: Sequence[str],
    prompts: Sequence[Prompt],
    keys: Mapping[str, Key],
    retrieval: Mapping[str, Any],
    partial: str | None,
    *,
    pooled: bool,
) -> tuple[Path, list[CategoryRow]]:
    """Write every verdict and all tables.

    Args:
        folder: Where to.
        title: The task's.
        students: In the order of the tables.
        evaluators: In the order of the tables.
        prompts: The task's items.
        keys: The answer key, by id.
        retrieval: How well a search finds the items' keys, as `keys.Retrieval` writes it.
        partial: The mark of numbers that rest on a part of the items.
        pooled: Take rounds for independent questions.

    Returns:
        The folder of the tables, and the rows by category.
    """
    rows = category_rows(students, evaluators, prompts, keys, pooled=pooled)
    write_verdicts(folder / "auto_eval_outputs", students, evaluators, prompts, keys)
    tables = folder / "tables_and_charts"
    write_csv(tables / "by_category.csv", rows, CategoryRow, partial)
    write_csv(tables / "token_usage.csv", token_rows(students, evaluators), TokenRow, partial)
    write_final_stats(tables / "final_stats.csv", rows, partial)
    nearest, keyless = retrieval["n_found"], retrieval["without_key"]
    notes = [f"A search for the nearest question finds the item's own for {nearest} of {retrieval['n']} items."]
    notes += [f"{len(keyless)} items have no answer key."] if keyless else []
    notes += [f"PARTIAL: {partial} items."] if partial else []
    (tables / "by_category.md").write_text(
        markdown(rows, f"{title} (PARTIAL)" if partial else title, notes), encoding="utf-8"
    )
    return tables, rows


def markdown(rows: Sequence[CategoryRow], title: str, notes: Sequence[str]) -> str:
    """The table to read: a line per student and evaluator, a column per category, means with 95 % intervals."""
    categories = list(dict.fromkeys(row.category for row in rows))
    categories = [ALL, *sorted(set(categories) - {ALL})]
    lines = [
        f"# {title}",
        "",
        "Per cent of answers marked right [95 % interval over questions]; number of questions; what could not be scored.",
        "",
        f"| model | evaluator | {' | '.join(map(_cell, categories))} |",
        "|" + " --- |" * (len(categories) + 2),
    ]
    by_pair: dict[tuple[str, str], dict[str, CategoryRow]] = defaultdict(dict)
    for row in rows:
        by_pair[row.student, row.evaluator][row.category] = row
    for (student, evaluator), by_category in by_pair.items():
        cells = [_shown(by_category.get(category)) for category in categories]
        lines.append(f"| {_cell(student)} | {_cell(evaluator)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def _shown(row: CategoryRow | None) -> str:
    if row is None:
        return "-"
    missing = f"; {row.n_unscored} unscored" if row.n_unscored else ""
    if row.mean_score is None:
        return f"-{missing}"
    between = row.ci95_low is not None and row.ci95_high is not None
    interval = f" [{_per_cent(row.ci95_low, 0)}, {_per_cent(row.ci95_high, 0)}]" if between else ""
    return f"{_per_cent(row.mean_score, 1)}{interval}; {row.output_count}{missing}"


def _per_cent(value: float | None, decimals: int) -> str:
    """A percentage, with more decimals where it would read as 0 or 100 and is neither."""
    return "-" if value is None else f"{value:.{places(value, decimals, (0, 100))}f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _category(prompt: Prompt, keys: Mapping[str, Key]) -> str:
    key = keys.get(key_id(prompt))
    return key.category if key else NO_KEY


def _value(score: Score, evaluator: str, *, single: bool) -> tuple[bool, float | None]:
    """Whether an evaluator was to mark this answer, and its score in per cent.

    An answer that nobody could mark (failed, without a key) counts as one that each was to mark.
    """
    # Not the score: `metric` in the task's file may have put another number there.
    whole = score["metrics"].get("equator")
    value = whole if single or evaluator == ALL else score["metrics"].get(f"equator_{evaluator}")
    if "verdicts" in score:
        return evaluator == ALL or evaluator in score["verdicts"], None if value is None else 100 * value
    return value is not None or whole is None, None if value is None else 100 * value


def _row(
    student: str, evaluator: str, category: str, values: Mapping[str, Sequence[float]], unscored: int, pooled: bool
) -> CategoryRow:
    means = list(_flat(values) if pooled else (math.fsum(item) / len(item) for item in values.values()))
    estimate = mean_estimate([mean / 100 for mean in means])
    low, high = estimate["ci95"] or (None, None)
    return CategoryRow(
        student=student,
        evaluator=evaluator,
        category=category,
        n_answers=sum(map(len, values.values())),
        n_unscored=unscored,
        ci95_low=None if low is None else 100 * low,
        ci95_high=None if high is None else 100 * high,
        **asdict(describe(means)),
    )


def _flat(values: Mapping[str, Sequence[float]]) -> Iterator[float]:
    for item in values.values():
        yield from item
