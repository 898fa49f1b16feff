"""What IFEval and IFBench have in common: answers are checked against instructions by programs of others.

The checks run in a process of their own, with the interpreter of their environment (following_worker.py).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from milepost.errors import EnvironmentMissingError, RecordError
from milepost.records import Answer, Followed, Prompt, Score
from milepost.runtime.environments import environment_python
from milepost.scorers import BaseScorer, Needs
from milepost.scorers.responses import Response, read_responses
from milepost.statistics.metrics import Metric, ratio_of
from milepost.tasks.instructions import INSTRUCTIONS

_WORKER = Path(__file__).with_name("following_worker.py")
# A process of its own is worth its start for so many answers.
_ANSWERS_EACH = 300
_MOST_PROCESSES = 4

STRICT = (Metric("prompt_strict"), Metric("instruction_strict", reduce=ratio_of))
LOOSE = (Metric("prompt_loose"), Metric("instruction_loose", reduce=ratio_of))
# How often a check itself failed: such an instruction counts as not followed.
CRASHED = Metric("crashed", "lower", reduce=ratio_of)


class FollowingScorer(BaseScorer):
    """Checks an answer against the instructions of its item.

    Strict: the answer as it is. Loose: the answer, or the same without its first line, its last, or both, or without stars.
    `prompt_*` is 1 where all instructions are followed; `instruction_*` is the share of instructions that are, over all
    instructions of the task, so that a prompt weighs as many as it has.

    Attributes:
        environment: The folder in envs/ whose interpreter runs the checks.
        library: Which checks, as the worker calls them.
    """

    environment: str
    library: str

    def __init__(self) -> None:
        self._versions: dict[str, str] = {}

    def needs(self) -> Needs:
        """An interpreter with what the checks import."""
        return Needs(environments=(self.environment,))

    def check(self, items: Sequence[Prompt]) -> None:
        """See that every item has instructions."""
        for item in items:
            self.check_instructions(item, instructions_of(item))

    def check_instructions(self, item: Prompt, instructions: Sequence[Mapping[str, Any]]) -> None:
        """See that the instructions of an item can be checked, as far as that is known without their checks.

        Raises:
            RecordError: One cannot.
        """

    def folder(self) -> str:
        """The folder of the checks, where they are not in the environment itself."""
        return ""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield the score of each answer, with what became of each instruction.

        Raises:
            RecordError: An item whose instructions cannot be checked.
            EnvironmentMissingError: The checks do not run here.
        """
        responses = list(read_responses(prompts, answers))
        readable = [response for response in responses if response.whole is not None]
        found = iter(self._verdicts(readable))
        for response in responses:
            if response.whole is None:
                yield response.unscored(self.metric_names)
            else:
                yield self._scored(response, next(found))

    def provenance(self) -> dict[str, Any]:
        """Versions of what has checked the answers."""
        return {"checks": self._versions}

    def count(self, verdicts: Sequence[Followed]) -> Sequence[Followed]:
        """The verdicts on an answer that its numbers are made of; a scorer may change some."""
        return verdicts

    def _scored(self, response: Response, verdicts: Sequence[Followed]) -> Score:
        counted = self.count(verdicts)
        n = len(counted)
        metrics: dict[str, float | None] = {"crashed": sum("crashed" in one for one in counted) / n}
        for level in ("strict", "loose"):
            held = [one["strict"] if level == "strict" else one["loose"] for one in counted]
            metrics |= {f"prompt_{level}": float(all(held)), f"instruction_{level}": sum(held) / n}
        crashed = [f"the check of {one['id']} crashed: {one['crashed']}" for one in counted if "crashed" in one]
        values = {name: metrics[name] for name in self.metric_names}
        score = response.scored(values[self.metric_names[0]] or 0.0, values, "; ".join(crashed))
        score["weights"] = {metric.name: float(n) for metric in self.metrics if metric.reduce is ratio_of}
        score["instructions"] = list(counted)
        return score

    def _verdicts(self, responses: Sequence[Response]) -> Iterator[list[Followed]]:
        """What became of each instruction of each answer."""
        processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), -(-len(responses) // _ANSWERS_EACH)) or 1
        size = -(-len(responses) // processes) or 1
        parts = [responses[start : start + size] for start in range(0, len(responses), size)]
        with ThreadPoolExecutor(processes) as pool:
            for part in pool.map(partial(_checked, self.environment, [self.library, self.folder()]), parts):
                self._versions, verdicts = part
                yield from verdicts


def instructions_of(item: Prompt) -> list[Mapping[str, Any]]:
    """The instructions of an item.

    Raises:
        RecordError: It has none, or they are not as they should be.
    """
    found = item.get("meta", {}).get(INSTRUCTIONS)
    form = "a list of objects with `id`, a text, and `kwargs`, an object"
    if not isinstance(found, list) or not found:
        raise RecordError(
            f"Item {item['id']!r} has no instructions to check. Add `meta.{INSTRUCTIONS}` to the task's data, {form}; or set "
            "`format` in the task's file, if the data is the benchmark's own."
        )
    for one in found:
        if not isinstance(one, Mapping) or set(one) != {"id", "kwargs"} or not isinstance(one["kwargs"], Mapping):
            raise RecordError(f"Item {item['id']!r} has the instruction {one!r}. `meta.{INSTRUCTIONS}` is {form}.")
    return found


def _asked(item: Prompt) -> str:
    """The text of an item that its instructions speak of: what the user says last."""
    messages = [message["content"] for message in item.get("messages", []) if message["role"] == "user"]
    return str(messages[-1] if messages else item.get("prompt", ""))


def _checked(
    environment: str, arguments: Sequence[str], responses: Sequence[Response]
) -> tuple[dict[str, str], list[list[Followed]]]:
    """Check answers in one process: the versions of what checked them, and the verdicts."""
    requests: list[dict[str, Any]] = [
        {
            "item": response.prompt["id"],
            "prompt": _asked(response.prompt),
            "instructions": instructions_of(response.prompt),
            "responses": [response.whole],
        }
        for response in responses
    ]
    done = subprocess.run(
        [str(environment_python(environment)), str(_WORKER), *arguments],
        input="".join(json.dumps(request) + "\n" for request in requests).encode(),
        capture_output=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1] if lines else None
    if isinstance(last, dict) and "error" in last:
        raise RecordError(last["error"])
    if len(lines) != 1 + len(requests):
        said = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:]) or "nothing"
        raise EnvironmentMissingError(
            f"The checks of {arguments[0]} ended after {max(len(lines) - 1, 0)} of {len(requests)} answers (exit code "
            f"{done.returncode}), and said last: {said}. Run `envs/setup.sh {environment}`."
        )
    versions, *verdicts = lines
    return versions, [
        [
            _followed(instruction["id"], verdict)
            for instruction, verdict in zip(request["instructions"], one[0], strict=True)
        ]
        for request, one in zip(requests, verdicts, strict=True)
    ]


def _followed(ident: str, verdict: Sequence[Any]) -> Followed:
    strict, loose, crashed = verdict
    found = Followed(id=ident, strict=strict, loose=loose)
    if crashed is not None:
        found["crashed"] = crashed
    return found
