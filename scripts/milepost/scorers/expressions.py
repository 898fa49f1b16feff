"""A user's regular expression on texts of models: it gets so much time for each text, and no more."""

from __future__ import annotations

import re
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from milepost.errors import ConfigError

# Of computing, for one answer. What is found in one pass takes milliseconds, and a busy machine changes nothing.
LIMIT_S = 3.0


class SlowExpressionError(Exception):
    """An expression that found no end within its time."""


class Expression:
    """A regular expression in Python's syntax.

    Args:
        source: As the user wrote it.
        scorer: Whose option it is, for messages.
        option: Which option.

    Raises:
        ConfigError: It is none.
    """

    def __init__(self, source: str, scorer: str, option: str) -> None:
        import regex

        self._source = source
        try:
            # Python's own compiler says what its users know. The package searches: it can be told when to stop.
            self._groups = re.compile(source).groups
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._compiled = regex.compile(source)
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"The scorer {scorer} cannot use `{option}: {source}`: {error}. Write a Python regular expression, in single "
                "quotes."
            ) from None

    def last(self, *texts: str) -> str | None:
        """The last match, or its first group if it has groups, in the first of the texts that has a match.

        Raises:
            SlowExpressionError: It tries ways of matching for longer than LIMIT_S.
        """
        # The package counts by this clock as well.
        end = time.process_time() + LIMIT_S
        for text in dict.fromkeys(texts):
            matches = self._compiled.finditer(text, timeout=max(end - time.process_time(), 0.001))
            with self._in_time():
                for last in deque(matches, maxlen=1):
                    found: str | None = last.group(1 if self._groups else 0)
                    return found
        return None

    def removed_from(self, text: str) -> str:
        """The text without what the expression matches.

        Raises:
            SlowExpressionError: It tries ways of matching for longer than LIMIT_S.
        """
        with self._in_time():
            return str(self._compiled.sub("", text, timeout=LIMIT_S))

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise SlowExpressionError(
                f"{self._source!r} took more than {LIMIT_S:g} s of computing: it tries too many ways of matching"
            ) from None
