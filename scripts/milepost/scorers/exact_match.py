"""Exact match: the answer, or what an expression extracts from it, is one of the targets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from milepost.errors import ConfigError
from milepost.records import Answer, Prompt, Score
from milepost.scorers import BaseScorer
from milepost.scorers.responses import read_responses, targets_of
from milepost.statistics.metrics import Metric
from milepost.text import canonical, readings


class Scorer(BaseScorer):
    """Compares texts as wholes.

    Args:
        ignore_case: Whether `Paris` and `paris` are the same.
        ignore_punctuation: Whether `Paris.` and `Paris` are the same. What belongs to a word or a number stays (text.py).
        strip: Whether white space around answer and target counts for nothing.
        extract: A regular expression; its last match in the answer is compared, or the first group of it if it has
            groups. An answer without a match is wrong, with a note: left out, it would make the others look better.

    Raises:
        ConfigError: `extract` is no regular expression.
    """

    name = "exact_match"
    metrics = (Metric("exact_match"),)

    def __init__(
        self,
        *,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        strip: bool = True,
        extract: str | None = None,
    ) -> None:
        self._ignore_case = ignore_case
        self._ignore_punctuation = ignore_punctuation
        self._strip = strip
        try:
            self._extract = None if extract is None else re.compile(extract)
        except re.error as error:
            raise ConfigError(
                f"The scorer exact_match cannot use `extract: {extract}`: {error}. Write a Python regular expression, "
                "in single quotes."
            ) from None

    def check(self, items: Sequence[Prompt]) -> None:
        """See that every item has a target."""
        for item in items:
            targets_of(item)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield 1 for an answer that is a target, 0 for any other."""
        targets = {prompt["id"]: frozenset().union(*map(self._readings, targets_of(prompt))) for prompt in prompts}
        for response in read_responses(prompts, answers):
            if response.text is None:
                yield response.unscored(self.metric_names)
                continue
            text = self._extracted(response.text)
            match = float(text is not None and not self._readings(text).isdisjoint(targets[response.prompt["id"]]))
            note = "`extract` matches nothing in the answer" if text is None else None
            yield response.scored(match, {"exact_match": match}, note)

    def _extracted(self, text: str) -> str | None:
        if self._extract is None:
            return text
        # In the form in which texts are compared, or `-?\d+` would find the 5 of a minus sign and 5. Then as it was written,
        # for an expression that looks for a sign that this form does not have.
        found = list(self._extract.finditer(canonical(text))) or list(self._extract.finditer(text))
        # The last one: a model that corrects itself, or reasons aloud, states its answer at the end.
        return found[-1].group(1 if self._extract.groups else 0) if found else None

    def _readings(self, text: str) -> frozenset[str]:
        return readings(
            text,
            ignore_case=self._ignore_case,
            ignore_punctuation=self._ignore_punctuation,
            strip_whitespace=self._strip,
        )
