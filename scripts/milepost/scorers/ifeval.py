"""The scorer ifeval: does the answer follow instructions that a program can check, as IFEval does?

The checks are those of lm-evaluation-harness, as they are, but for two: language detection is seeded, and where a row asks for
a sign that is no letter (keys 1122, '#', and 1129, '!') that sign is counted, for which the original draws a random letter.

Source: Zhou et al. (2023), arXiv 2311.07911.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from milepost.errors import RecordError, did_you_mean
from milepost.records import Prompt
from milepost.scorers.following import CRASHED, LOOSE, STRICT, FollowingScorer

# What each kind of instruction has to be told: the checks draw at random what they are not.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "change_case:capital_word_frequency": ("capital_frequency", "capital_relation"),
    "change_case:english_capital": (),
    "change_case:english_lowercase": (),
    "combination:repeat_prompt": ("prompt_to_repeat",),
    "combination:two_responses": (),
    "detectable_content:number_placeholders": ("num_placeholders",),
    "detectable_content:postscript": ("postscript_marker",),
    "detectable_format:constrained_response": (),
    "detectable_format:json_format": (),
    "detectable_format:multiple_sections": ("num_sections", "section_spliter"),
    "detectable_format:number_bullet_lists": ("num_bullets",),
    "detectable_format:number_highlighted_sections": ("num_highlights",),
    "detectable_format:title": (),
    "keywords:existence": ("keywords",),
    "keywords:forbidden_words": ("forbidden_words",),
    "keywords:frequency": ("frequency", "keyword", "relation"),
    "keywords:letter_frequency": ("let_frequency", "let_relation", "letter"),
    "language:response_language": ("language",),
    "length_constraints:nth_paragraph_first_word": ("first_word", "nth_paragraph", "num_paragraphs"),
    "length_constraints:number_paragraphs": ("num_paragraphs",),
    "length_constraints:number_sentences": ("num_sentences", "relation"),
    "length_constraints:number_words": ("num_words", "relation"),
    "punctuation:no_comma": (),
    "startend:end_checker": ("end_phrase",),
    "startend:quotation": (),
}


class Scorer(FollowingScorer):
    """Checks an answer against the instructions of its prompt; the headline is the share of prompts, read strictly."""

    name = "ifeval"
    metrics = (*STRICT, *LOOSE, CRASHED)
    environment = "benchmarks"
    library = "ifeval"

    def check_instructions(self, item: Prompt, instructions: Sequence[Mapping[str, Any]]) -> None:
        """See that each instruction is of a known kind, with all of its arguments.

        Raises:
            RecordError: One is not.
        """
        for one in instructions:
            ident, given = one["id"], one["kwargs"]
            if ident not in _ARGUMENTS:
                raise RecordError(
                    f"Item {item['id']!r} has an instruction of an unknown kind, {ident!r}. Kinds: {', '.join(_ARGUMENTS)}."
                    f"{did_you_mean(str(ident), _ARGUMENTS)}"
                )
            if set(given) != set(_ARGUMENTS[ident]):
                raise RecordError(
                    f"Item {item['id']!r}: the instruction {ident} takes {', '.join(_ARGUMENTS[ident]) or 'no arguments'}; it has "
                    f"{', '.join(sorted(given)) or 'none'}. Correct its `kwargs`."
                )
            letter = given.get("letter", "a")
            if not isinstance(letter, str) or len(letter) != 1:
                raise RecordError(f"Item {item['id']!r}: {ident} counts one sign, and `letter` is {letter!r}.")
