"""Three checkers with the interface that IFBench's have; a checkout of its repository has 58."""

import re
from typing import Any


class Instruction:
    """What all of them share."""

    def __init__(self, instruction_id: str) -> None:
        self.id = instruction_id

    def build_description(self, **kwargs: Any) -> None:
        """Take the instruction's arguments."""
        self.kwargs = kwargs

    def get_instruction_args(self) -> dict[str, Any]:
        """The arguments as they were taken."""
        return self.kwargs


class WordCount(Instruction):
    """At most so many words."""

    def check_following(self, value: str) -> bool:
        """Whether an answer follows."""
        return len(value.split()) <= self.kwargs["max_words"]


class Mention(Instruction):
    """A word stands in the answer, at least so many times."""

    def check_following(self, value: str) -> bool:
        """Whether an answer follows."""
        found = re.findall(rf"\b{re.escape(self.kwargs['keyword'])}\b", value, re.IGNORECASE)
        return len(found) >= self.kwargs["N"]


class EndWith(Instruction):
    """The answer ends with a certain sign."""

    def check_following(self, value: str) -> bool:
        """Whether an answer follows."""
        return value.rstrip().endswith(self.kwargs["end_phrase"])
