"""The JSON Lines records that the steps hand to each other, as types, and how they are read and written.

A prompts file begins with its task's header; native tasks follow with one line per item. All other files hold one
record per line. Files are written whole: beside the target first, then renamed.
"""

from __future__ import annotations

import codecs
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NotRequired, TypedDict, cast

import orjson

from milepost.errors import RecordError, why_unreadable


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Partial(TypedDict):
    """The mark of a task that was asked in part only: `limit` of its `of` items; `?` where a harness keeps the items."""

    limit: int
    of: int | Literal["?"]


class TaskHeader(TypedDict):
    """The first line of a prompts file: how every item of the task is asked."""

    task: str
    kind: Literal["native", "nemo"]
    version: int
    generation: int
    samples: int
    sampling: dict[str, Any]
    partial: NotRequired[Partial]
    harness: NotRequired[dict[str, Any]]
    asked: NotRequired[str]
    """Digest of all that decides what is asked."""


class Prompt(TypedDict):
    """One item of a native task: chat messages or a plain prompt, and what its scorer needs."""

    id: str
    messages: NotRequired[list[Message]]
    prompt: NotRequired[str]
    target: NotRequired[str | list[str]]
    choices: NotRequired[list[str]]
    meta: NotRequired[dict[str, Any]]


class AnswerError(TypedDict):
    """Why there is no answer: `type` is context, filtered, refused, server, timeout or connection."""

    type: str
    message: str


class Usage(TypedDict):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int


class Answer(TypedDict):
    """One sample of one item: `content`, or `error` after all retries. `sample` counts from 0.

    What stands in place of content (`refusal`, `tool_calls`) and who answered (`model`, `fingerprint`, `provider`) is kept
    where the server says it.
    `reasoning_cut` says that reasoning was taken out of the content, and whether it did not end.
    """

    id: str
    sample: int
    content: NotRequired[str]
    reasoning: NotRequired[str]
    reasoning_cut: NotRequired[bool]
    finish_reason: NotRequired[str | None]
    usage: NotRequired[Usage]
    seed: NotRequired[int]
    latency_s: NotRequired[float]
    refusal: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    model: NotRequired[str]
    fingerprint: NotRequired[str]
    provider: NotRequired[str]
    error: NotRequired[AnswerError]


class EvaluatorVerdict(TypedDict):
    """One evaluator's verdict on one answer: `score` 0 or 100, or null with the `problem`, beside its own words."""

    score: int | None
    evaluation: NotRequired[str]
    problem: NotRequired[str]
    reply: NotRequired[str]
    usage: NotRequired[Usage]
    asked: NotRequired[int]  # where one reply could not be read


class JudgedVerdict(TypedDict):
    """One judge's verdict on one point of an answer: its value, or null with the `problem` and what the judge said last."""

    about: str
    value: float | bool | str | None
    explanation: NotRequired[str]
    problem: NotRequired[str]
    reply: NotRequired[str]
    asked: NotRequired[int]  # where one reply could not be read


class Winner(TypedDict):
    """The candidate that an answer was nearest to, of all that it was compared with."""

    group: str
    candidate: str


class Followed(TypedDict):
    """Whether an answer follows one instruction; `crashed` says how its check failed, if it did, which counts as not followed."""

    id: str
    strict: bool
    loose: bool
    crashed: NotRequired[str]


class Score(TypedDict):
    """The verdict on one answer. `score` null means that it could not be scored; `note` then says why.

    `extracted` is what the scorer took for the answer, in a form in which equal answers are equal; `weights` what a metric weighs in this answer, where it is a ratio of sums; 1 where nothing is said.
    """

    id: str
    sample: int
    score: float | None
    metrics: dict[str, float | None]
    weights: NotRequired[dict[str, float]]
    extracted: NotRequired[str]
    cluster: NotRequired[str]
    note: NotRequired[str]
    verdicts: NotRequired[dict[str, EvaluatorVerdict]]
    judged: NotRequired[dict[str, list[JudgedVerdict]]]
    winner: NotRequired[Winner]
    instructions: NotRequired[list[Followed]]


Better = Literal["higher", "lower"]


class Scale(TypedDict):
    """Which values of a number are better, and between which it must lie; null where it has no bounds."""

    better: Better
    range: tuple[float, float] | None


class Estimate(TypedDict):
    """A mean over items with its uncertainty; null where it is not defined."""

    value: float | None
    stderr: float | None
    ci95: tuple[float, float] | None


class Rates(TypedDict):
    """Shares of all answers, in [0, 1]; null where a harness does not tell. One answer can count in several.

    `empty` counts all without text; `refused`, `filtered`, `reasoning_only` and `tool_calls` say what stands in its place.
    `identical` are those that say the same to whatever item.
    """

    truncated: float | None
    empty: float | None
    unreadable: float | None
    failed: float | None
    refused: NotRequired[float | None]
    filtered: NotRequired[float | None]
    reasoning_only: NotRequired[float | None]
    tool_calls: NotRequired[float | None]
    identical: NotRequired[float | None]


class Outcomes(TypedDict):
    """What came of the questions of one number.

    `kinds` counts answers by kind, each once, those that were read and could not be scored as `unreadable`; `models`, `fingerprints` and `providers` by who gave them, where replies say
    it; `reasons` has the words that were said most often of a kind; `server` what is known of a server of our own.
    """

    asked: int
    answered: int
    kinds: dict[str, int]
    reasons: NotRequired[dict[str, str]]
    models: NotRequired[dict[str, int]]
    fingerprints: NotRequired[dict[str, int]]
    providers: NotRequired[dict[str, int]]
    server: NotRequired[dict[str, Any]]


class ReasoningUse(TypedDict):
    """What reasoning took: the share of answers in which it did not end, and its mean tokens, of all answers and of those.

    Tokens are shared out by characters, as servers count them together; null where they count none.
    """

    cut: float
    mean_tokens: float | None
    mean_tokens_cut: float | None


class Variance(TypedDict):
    """Variance of the mean, split: `decoding` is null with one sample per item."""

    items: float | None
    decoding: float | None


class Runs(TypedDict):
    """The spread over runs, where run k is sample k of every item: the noise of decoding alone.

    `per_run` holds the mean over items of each run, null for one without a readable sample; `missing` names those runs.
    `std` (n - 1 in the denominator) and `sem` are null for a single run.
    """

    mean: float | None
    std: float | None
    sem: float | None
    n: int
    per_run: list[float | None]
    missing: NotRequired[list[int]]


class Summary(TypedDict):
    """The numbers of one checkpoint on one task. `harness` marks a standard error that is the harness's own.

    `scales` says how to read each number of `metrics`, where the scorer describes it.
    """

    ckpt: str
    task: str
    task_version: int
    scorer: str
    metric: str
    value: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    n_items: int
    n_samples: int
    n_errors: int
    n_unscored: int
    metrics: dict[str, Estimate]
    scales: NotRequired[dict[str, Scale]]
    variance: Variance
    rates: Rates
    mean_tokens: float | None
    outcomes: NotRequired[Outcomes]
    reasoning: NotRequired[ReasoningUse]
    provenance: dict[str, Any]
    runs: NotRequired[Runs]
    partial: NotRequired[Partial]
    chance: NotRequired[float | None]
    harness: NotRequired[bool]
    advice: NotRequired[str]


class LedgerLine(TypedDict):
    """What one attempt at evaluating a checkpoint took. Times in seconds of wall clock."""

    attempt: str
    host: str
    job: str | None
    gpus: int
    gpu_type: str | None
    start_s: float
    busy_s: float
    idle_s: float
    requests: int
    tokens_in: int
    tokens_out: int
    versions: dict[str, str]
    sampling: NotRequired[dict[str, dict[str, Any]]]
    end: str


@dataclass(frozen=True)
class PromptSet:
    """The content of one prompts file."""

    header: TaskHeader
    prompts: list[Prompt]


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield one mapping per line.

    Raises:
        RecordError: The file is missing, or a line is not a JSON object; names file and line.
    """
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise RecordError(f"{path} is UTF-16 text. Save it as UTF-8.")
                line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901 (editors put a byte order mark first)
            if not line.strip():
                raise RecordError(f"{path}, line {number} is empty. One JSON object per line is expected.")
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise RecordError(f"{path}, line {number} is not JSON: {_not_json(line, error)}") from None
            if not isinstance(record, dict):
                raise RecordError(f"{path}, line {number} is not a JSON object: {str(record)[:80]}.")
            yield record


def _open(path: str | Path) -> BinaryIO:
    """Open a file of records to read."""
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise RecordError(why_unreadable(path, error, "a file with one JSON object per line")) from None


def _not_json(line: bytes, error: Exception) -> str:
    """What is wrong with a line that is not JSON."""
    try:
        text = line.decode()
    except UnicodeDecodeError as wrong:
        return f"it holds the byte 0x{line[wrong.start]:02x}, which is not UTF-8. Save the file as UTF-8 text."
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return f"{error}."
    # The standard library takes more than JSON has.
    return f"{error}. NaN and Infinity are no JSON, nor is half of a character (a lone surrogate)."


def write_records(path: str | Path, records: Iterable[Any]) -> None:
    """Write one JSON object per line; the file appears whole, or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            for record in records:
                file.write(record_line(record))
        # mkstemp makes files of mode 0600; these are results, for a group to read.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def record_line(record: Any) -> bytes:
    r"""A record as its line in a file.

    >>> record_line({"id": "a"})
    b'{"id":"a"}\n'
    """
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def write_record(path: str | Path, record: Any) -> None:
    """Write a single record, as the only line of its file."""
    write_records(path, [record])


def read_record(path: str | Path) -> dict[str, Any]:
    """Read the only record of a file.

    Raises:
        RecordError: The file is missing, malformed, or does not hold exactly one record.
    """
    records = list(read_records(path))
    if len(records) != 1:
        raise RecordError(f"{path} holds {len(records)} records where one is expected.")
    return records[0]


def read_prompts(path: str | Path) -> PromptSet:
    """Read a prompts file: its task's header, then its items.

    Raises:
        RecordError: The file is empty, or does not begin with a header.
    """
    records = read_records(path)
    header = next(records, None)
    if header is None or "task" not in header or "samples" not in header:
        raise RecordError(f"{path} does not begin with a task's header. Remove it: the next run makes it anew.")
    return PromptSet(cast(TaskHeader, header), [cast(Prompt, record) for record in records])


def read_answers(path: str | Path) -> list[Answer]:
    """Read collected answers, in their canonical order."""
    return [cast(Answer, record) for record in read_records(path)]


def read_scores(path: str | Path) -> list[Score]:
    """Read the scores of one checkpoint on one task."""
    return [cast(Score, record) for record in read_records(path)]


def read_summary(path: str | Path) -> Summary:
    """Read the summary of one checkpoint on one task."""
    return cast(Summary, read_record(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
