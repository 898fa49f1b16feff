"""Puts answers beside the prompts that they answer, which is where every scorer begins.

Items that are not independent of each other (questions on one text, say) name what they share in `meta.cluster`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from milepost.errors import RecordError
from milepost.reasoning import split_answer
from milepost.records import Answer, Prompt, Score


@dataclass(frozen=True)
class Response:
    """One answer with its prompt, and the text that is scored.

    Attributes:
        prompt: The item that was asked.
        answer: The record of the answer.
        text: The answer without reasoning traces and white space around it; None if there is no answer.
        note: What a reader of the score should know about the answer.
        whole: The answer without reasoning traces, but with the white space around it.
    """

    prompt: Prompt
    answer: Answer
    text: str | None
    note: str | None = None
    whole: str | None = None

    def scored(self, score: float, metrics: dict[str, float | None], note: str | None = None) -> Score:
        """Make the score of this answer, with the answer's note and the scorer's own."""
        return self._score(score, metrics, "; ".join(part for part in (self.note, note) if part))

    def unscored(self, metrics: Sequence[str], reason: str | None = None) -> Score:
        """Make the null score of an answer that is missing, or that cannot be scored for the given reason: never 0."""
        return self._score(None, dict.fromkeys(metrics), reason or self.note or "no answer")

    def _score(self, score: float | None, metrics: dict[str, float | None], note: str) -> Score:
        record = Score(id=self.answer["id"], sample=self.answer["sample"], score=score, metrics=metrics)
        cluster = self.prompt.get("meta", {}).get("cluster")
        if cluster is not None:
            record["cluster"] = str(cluster)
        if note:
            record["note"] = note
        return record


def read_responses(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Response]:
    """Put each answer beside its prompt, in the order of the answers.

    Raises:
        RecordError: Two prompts share an id, or an answer belongs to no prompt.
    """
    by_id = {prompt["id"]: prompt for prompt in prompts}
    if len(by_id) < len(prompts):
        raise RecordError("Two prompts of the task have the same id. Give each item in its data an id of its own.")
    for answer in answers:
        prompt = by_id.get(answer["id"])
        if prompt is None:
            raise RecordError(
                f"There is an answer to item {answer['id']!r}, but no prompt of that id: the answers belong to other "
                "prompts. Remove the answers file; the next run collects it anew."
            )
        error = answer.get("error")
        if error is not None:
            yield Response(prompt, answer, None, f"failed: {error['type']}: {error['message']}")
            continue
        split = split_answer(answer)
        text = split.get("content") or ""
        note = "truncated: its reasoning does not end" if split.get("reasoning_cut") else None
        yield Response(prompt, split, text.strip(), note, text)


def targets_of(prompt: Prompt) -> list[str]:
    """The right answers of an item, as a list also if there is only one.

    Raises:
        RecordError: The item has none.
    """
    target = prompt.get("target")
    targets = [target] if isinstance(target, str) else list(target or [])
    if not targets or not all(isinstance(one, str) and one.strip() for one in targets):
        raise RecordError(
            f"Item {prompt['id']!r} has no `target` to compare answers with. Add one to the task's data: a text, or a "
            "list of texts that are all right."
        )
    return targets
