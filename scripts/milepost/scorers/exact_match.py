"""The scorer exact_match: is the answer, or what an expression extracts from it, one of the targets?

Texts are the same where a person would call them so (text.py), numbers where they are near enough (numbers.py), and with
`compat: lm-eval` where lm-evaluation-harness says so, character by character.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal

from milepost.errors import ConfigError, RecordError
from milepost.numbers import read_number
from milepost.records import Answer, Prompt, Score
from milepost.scorers import BaseScorer
from milepost.scorers.expressions import Expression, SlowExpressionError
from milepost.scorers.responses import read_responses, targets_of
from milepost.statistics.metrics import Metric
from milepost.text import canonical, readings

log = logging.getLogger(__name__)

Matches = Callable[[str], bool]
"""Whether an answer is one of an item's targets."""


class Scorer(BaseScorer):
    """Compares texts as wholes.

    Args:
        ignore_case: Whether `Paris` and `paris` are the same.
        ignore_punctuation: Whether `Paris.` and `Paris` are the same. What belongs to a word or a number stays (text.py).
        strip: Whether white space around answer and target counts for nothing.
        extract: A regular expression; its last match in the answer is compared, or the first group of it if it has
            groups. An answer without a match is wrong, with a note: left out, it would make the others look better.
        compare: `text`, or `number`: the answer is a number, and so is every target.
        tolerance: With `number`, how far from the target is still right: a number, or a share of the target as `1%`.
        compat: `lm-eval`: agree with the exact_match of lm-evaluation-harness, which removes the characters of
            `ignore_punctuation` and `ignore_numbers` wherever they stand, and strips nothing.
        ignore_numbers: With `compat`, remove the digits 0 to 9.
        regexes_to_ignore: With `compat`, remove what these expressions match.

    Raises:
        ConfigError: An expression that is none, or options that contradict each other.
    """

    name = "exact_match"
    metrics = (Metric("exact_match"),)

    def __init__(
        self,
        *,
        ignore_case: bool,
        ignore_punctuation: bool,
        strip: bool,
        extract: str | None = None,
        compare: Literal["text", "number"],
        tolerance: float | str,
        compat: Literal["lm-eval"] | None = None,
        ignore_numbers: bool,
        regexes_to_ignore: Sequence[str],
    ) -> None:
        self._ignore_case = ignore_case
        self._ignore_punctuation = ignore_punctuation
        self._strip = strip
        self._compare = compare
        self._tolerance, self._relative = _tolerances(tolerance)
        self._compat = compat
        self._ignore_numbers = ignore_numbers
        if compare == "number" and compat is not None:
            raise ConfigError(
                "The scorer exact_match compares numbers, or as lm-eval does. Leave out `compare` or `compat`."
            )
        if tolerance and compare != "number":
            raise ConfigError(
                "`tolerance` of the scorer exact_match is for numbers. Add `compare: number`, or leave it out."
            )
        if compat is None and (ignore_numbers or regexes_to_ignore):
            raise ConfigError(
                "`ignore_numbers` and `regexes_to_ignore` are options of lm-eval's exact_match. Add `compat: lm-eval` to the "
                "scorer, or leave them out."
            )
        self._ignored = [Expression(one, self.name, "regexes_to_ignore") for one in regexes_to_ignore]
        self._extract = None if extract is None else Expression(extract, self.name, "extract")

    def check(self, items: Sequence[Prompt]) -> None:
        """Check that every item has a target, and a number where numbers are compared."""
        for item in items:
            self._matches(item)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Iterator[Score]:
        """Yield 1 for an answer that is a target, 0 for any other.

        Raises:
            RecordError: An item without a target, or with one that is no number where numbers are compared.
        """
        matches = {prompt["id"]: self._matches(prompt) for prompt in prompts}
        slow = 0
        for response in read_responses(prompts, answers):
            # lm-eval strips nothing.
            text = response.whole if self._compat else response.text
            if text is None:
                yield response.unscored(self.metric_names)
                continue
            try:
                extracted = self._extracted(text)
                match = float(extracted is not None and matches[response.prompt["id"]](extracted))
                # Answers that count as the same have a form in common; the first stands for all.
                form = None if extracted is None else min(self._forms(extracted), default=extracted)
            except SlowExpressionError as error:
                slow += 1
                yield response.unscored(self.metric_names, str(error))
                continue
            note = None
            if extracted is None:
                note = "`extract` matches nothing in the answer"
            elif self._compare == "number" and read_number(extracted) is None:
                note = "the answer is not one number; `extract` can find one in it"
            scored = response.scored(match, {"exact_match": match}, note)
            if form is not None:
                scored["extracted"] = form
            yield scored
        if slow:
            log.warning(
                "A regular expression took too long on %d of %d answers, which count as unreadable. Write it so that a text "
                "can be matched in one way only, without a repetition inside a repetition.",
                slow,
                len(answers),
            )

    def _matches(self, prompt: Prompt) -> Matches:
        """What tells whether an answer to an item is one of its targets."""
        targets = targets_of(prompt)
        if self._compare == "number":
            numbers = [read_number(target) for target in targets]
            if None in numbers:
                raise RecordError(
                    f"The target of item {prompt['id']!r} is not a number: {targets[numbers.index(None)]!r}. The scorer "
                    "exact_match compares numbers with `compare: number`: correct the task's data, or leave that out."
                )

            def near(said: str) -> bool:
                number = read_number(said)
                return number is not None and any(
                    number.is_near(target, self._tolerance, self._relative) for target in numbers if target is not None
                )

            return near
        try:
            forms = frozenset[str]().union(*map(self._forms, targets))
        except SlowExpressionError as error:
            raise ConfigError(f"The scorer exact_match, on the target of item {prompt['id']!r}: {error}.") from None
        return lambda said: not self._forms(said).isdisjoint(forms)

    def _extracted(self, text: str) -> str | None:
        if self._extract is None:
            return text
        # The last match: a model that corrects itself, or reasons aloud, states its answer at the end. In the form in which
        # texts are compared, or `-?\d+` would find the 5 of a minus sign and 5. Then as it was written, for an expression
        # that looks for a sign that this form does not have.
        return self._extract.last(*([] if self._compat else [canonical(text)]), text)

    def _forms(self, text: str) -> frozenset[str]:
        """The forms in which a text is compared: two texts are the same where they share one."""
        if self._compat:
            return frozenset([self._form_of_lm_eval(text)])
        return readings(
            text,
            ignore_case=self._ignore_case,
            ignore_punctuation=self._ignore_punctuation,
            strip_whitespace=self._strip,
        )

    def _form_of_lm_eval(self, text: str) -> str:
        for pattern in self._ignored:
            text = pattern.removed_from(text)
        if self._ignore_case:
            # It compares arrays of numpy, in which a text becomes no longer in lower case.
            text = text.lower()[: len(text)]
        removed = (string.punctuation if self._ignore_punctuation else "") + (
            string.digits if self._ignore_numbers else ""
        )
        # And which know no zero characters at the end.
        return text.translate(str.maketrans("", "", removed)).rstrip("\0")


def _tolerances(tolerance: float | str) -> tuple[Fraction, Fraction]:
    """The absolute and the relative tolerance.

    Raises:
        ConfigError: It is neither a number from 0 on nor a share of the target.

    >>> _tolerances(0.1), _tolerances("1%")
    ((Fraction(1, 10), Fraction(0, 1)), (Fraction(0, 1), Fraction(1, 100)))
    """
    try:
        share = isinstance(tolerance, str) and tolerance.strip().endswith("%")
        # As it is written: 0.1 is a tenth.
        value = Fraction(str(tolerance).strip().removesuffix("%"))
        if value < 0:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"`tolerance: {tolerance}` of the scorer exact_match is neither a number from 0 on nor a share as 1%. Correct it."
        ) from None
    return (Fraction(0), value / 100) if share else (value, Fraction(0))
