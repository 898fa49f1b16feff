"""Reads which of an item's options a long answer states, from its last sentences and those that declare the answer.

A small embedder is blind to most of what decides: which sentence of a long answer is its conclusion, whether an option is
named or ruled out, and numbers. This looks at the sentences one by one, and at each for three things: whether it names an
option, which words it shares with one and no other, and how near in meaning it is. benchmarks/validity.py measures what
each of them brings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from milepost.scorers.avert.denials import denies, ruled_out
from milepost.scorers.avert.sentences import Sentences, declares, find_words, lower, plain, refuses, takes_back, words

# What a sentence counts against the one after it.
DECAY = 0.7
# What a sentence that draws a conclusion counts more: so much that one plain sentence may follow it.
CONCLUSION = 1.5
# What a sentence counts that says "the answer is ...": so much that an explanation may follow it, however long.
DECLARED = 2.5
# What a first sentence counts that says an option and nothing else: the answer first, and then why.
LEAD = 1.0
# A named option against one that shares all its words, or all its meaning, with the sentence.
NAMED, SHARED, NEAR = 1.0, 0.5, 0.5

Cosine = Callable[[str, int], float]
"""How near a sentence is in meaning to an option, by its place: in [-1, 1]."""

_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|so|answer|conclu\w+|correct|best|final\w*|choice|select|choose|summary|overall|given|"
    r"based on|this means)\b",
    re.IGNORECASE,
)
_INFERS = re.compile(
    r"^(?:and |but )?(?:so|therefore|thus|hence|finally|overall|consequently|in (?:conclusion|summary|the end)|"
    r"as a result|to conclude)\b",
    re.IGNORECASE,
)
_SYMBOL = re.compile(
    r"\b(?:option|choice|answer)s?\b(?:\s+(?:is|was|would be|must be|should be))?(?:\s+(?:either|option|choice|\w+ly|indeed))*"
    r"\s*[:=]?\s*[\"'(\[]*((?-i:[A-Z]))\b"
    r"|\b(?:option|choice)\s+[\"'(\[]*((?-i:[b-z]|a(?=\W*$|[\"')\],:.]|\s+(?:is|was|because|since))))(?![\w'])"
    r"|\banswer(?:\s+is)?\s*:?\s*[\"'(\[]*((?-i:[a-z]))(?=[\"')\].]|\s*$)"
    r"|^[\"'(\[]*([A-Z])(?:[\])\"'.:]+(?=\s|$)|\s+[-\u2013\u2014]\s|\W*$)"
    r"|(?<!\w)\(([A-Z])(?=\)|,|\s+(?:and|or)\b)|(?<![\w(])((?-i:[A-Z]))\)"
    r"|\b(?:choose|chose|pick|picked|select|go with|going with)\s+[\"'(\[]*((?-i:[A-Z]))\b"
    r"|\b((?-i:[A-Z]))\b[\"'\])]*\s+(?:is|was|must be|would be|cannot be|isn't)\s+(?:not\s+)?(?:the\s+)?(?:only\s+)?"
    r"(?:correct|right|best|answer|incorrect|wrong|false|true)\b"
    # A letter alone, where no name stands before it and nobody quotes it; "A" and "I" are words, too.
    r"|(?:^|[^\w\s'\"(\[]\s*|\b(?:is|be|was|are|or|and|either|neither|nor|not|than|just|only|letter|say|for|with|to|therefore|"
    r"thus|hence|so|then|that|choosing|picking|selecting)\s+)[(\[]*((?-i:[B-HJ-Z]|A(?!\s+[a-z])|I(?!\s+[a-z'])))(?![\w'\"])"
    r"|\b((?-i:[A-Z]))(?=\s*(?:or|and|/|,|&)\s+(?:or )?(?:option )?(?-i:[A-Z])\b(?!\w))"
    r"|(?:^|\bonly |\bthen |\bthat |[,;:] )(A)(?=\s+(?:is|was|does|holds?|works?|fits?|seems|must|can|cannot|could|would|"
    r"makes?|remains?|looks|(?:does|is|ca|wo)n't)\b)|(?:\bis|'s)\s+[\"'(\[]*((?-i:[a-z]))(?=[\"')\].]*$)",
    re.IGNORECASE,
)
# What stands before a letter that is an option, and no other thing's name, within parentheses.
_LISTED = re.compile(r"(?:\b(?:and|or|options?|choices?|answers?)|[(,&/])\s*$", re.IGNORECASE)
# Words that may stand between two options of which an answer cannot say which.
_BETWEEN = frozenset(
    "or either maybe perhaps possibly even also could might may be option answer choice letter".split()
)
_OPEN = frozenset("or maybe perhaps possibly could might may".split())
# Words around an option that is said and nothing else.
_FRAME = frozenset("answer option choice correct final best right solution".split())
# Words that say nothing of which option is meant.
_EMPTY = frozenset(
    "a an the is are was were be been being of to in on at and or for with by from as it its this that these those they "
    "them their there he she his her you your we our i so do does did will would can could should not no than then".split()
)


class _Mention(NamedTuple):
    """A place where a sentence names an option: its words [begin, end), and whether the option is ruled out there."""

    begin: int
    end: int
    option: int
    denied: bool


@dataclass(frozen=True)
class Options:
    """The options of one item: all texts, right and wrong, that an answer can mean.

    Attributes:
        texts: The texts.
        lettered: How many of them, from the first on, the item shows as A, B, C, …
    """

    texts: tuple[str, ...]
    lettered: int = 0
    _exact: bool = field(init=False, repr=False)
    _words: list[list[str]] = field(init=False, repr=False)
    _telling: list[dict[str, float]] = field(init=False, repr=False)
    _denying: list[bool] = field(init=False, repr=False)
    _refusing: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Split the texts once, for all answers."""
        bare = {tuple(words(plain(text))) for text in self.texts}
        # Signs count where two options are the same without them.
        object.__setattr__(self, "_exact", len(bare) < len(self.texts))
        split = [[_stem(word) for word in words(plain(text), exact=self._exact)] for text in self.texts]
        stems = [{stem for stem in one if stem not in _EMPTY} for one in split]
        shared = Counter(stem for one in stems for stem in one)
        object.__setattr__(self, "_words", split)
        object.__setattr__(self, "_telling", [{stem: 1 / shared[stem] for stem in one} for one in stems])
        object.__setattr__(self, "_denying", [denies(plain(text)) for text in self.texts])
        object.__setattr__(self, "_refusing", [at for at, text in enumerate(self.texts) if refuses(text)])

    def stated(self, said: Sentences, cosine: Cosine) -> list[float]:
        """How far an answer's sentences state each option, from 0 on.

        Args:
            said: The answer's sentences.
            cosine: How near a sentence is to an option.
        """
        found = [0.0] * len(self.texts)
        bare = self._bare(said.first) if said.first is not None else None
        if bare is not None and not any(self._says_anew(sentence, bare) for sentence in said.last):
            # What follows explains it, and names what else it must.
            found[bare] = LEAD * (NAMED + SHARED + NEAR)
        later = _Later()
        place = declarations = 0
        out: set[int] = set()
        for sentence in (*said.last, *filter(None, [said.declared])):
            mentions = self._mentions(sentence)
            shared = self._shared(sentence)
            if not mentions and sentence.endswith(":") and max(shared, default=0) < SHARED:
                continue  # announces what comes, or came, and says nothing itself
            chosen = self._last(mentions, sentence)
            if not chosen and refuses(sentence) and max(shared, default=0) < SHARED:
                if not self._refusing:
                    continue
                chosen = set(self._refusing)
            # Named, or said in most of its words.
            meant = chosen or (
                {shared.index(max(shared))} if not mentions and max(shared, default=0) > SHARED else set()
            )
            declared = bool(meant) and declares(sentence) and not later.differs(meant)
            if declared:
                weight = DECLARED * DECAY**declarations
                declarations += 1
            elif sentence is said.declared:
                continue
            else:
                weight = DECAY**place * (CONCLUSION if _CONCLUDES.search(sentence) else 1)
                if meant and later.differs(meant):
                    weight *= DECAY
            later.note(sentence, meant, bare=self._bare(sentence) is not None)
            place += 1
            out |= _ruled_out(mentions)
            one = self._said(sentence, mentions, chosen, shared, cosine)
            found = [max(before, weight * now) for before, now in zip(found, one, strict=True)]
        rest = set(range(len(self.texts))) - out
        if len(rest) == 1 and len(out) > 1 and not later.chose:
            found[rest.pop()] += CONCLUSION * NAMED
        return found

    def chosen(self, sentence: str) -> set[int]:
        """The options that a sentence names last and does not rule out."""
        return self._last(self._mentions(sentence), sentence)

    def _last(self, mentions: Sequence[_Mention], sentence: str) -> set[int]:
        return _chosen(mentions, sentence, exact=self._exact)

    def _said(
        self, sentence: str, mentions: Sequence[_Mention], chosen: set[int], shared: Sequence[float], cosine: Cosine
    ) -> list[float]:
        """Score how far one sentence states each option."""
        denying = denies(sentence)
        out = _ruled_out(mentions)
        said = [0.0] * len(self.texts)
        for option in range(len(self.texts)):
            if option in out - chosen:
                continue  # near in words and meaning to what it denies
            # "You should spin" shares most words with "You should not spin".
            alike = denying == self._denying[option] or option in chosen
            said[option] = (
                NAMED * (option in chosen) + SHARED * alike * shared[option] + NEAR * cosine(sentence, option)
            )
        if len(chosen) > 1:
            # It cannot say which: what is nearer in meaning decides nothing.
            said = [max(said) if option in chosen else one for option, one in enumerate(said)]
        return said

    def _says_anew(self, sentence: str, first: int) -> bool:
        """Whether a sentence names another option, and concludes with it, takes back the first, or says nothing else."""
        if not self.chosen(sentence) - {first}:
            return False
        return bool(_CONCLUDES.search(sentence) or takes_back(sentence)) or self._bare(sentence) not in (None, first)

    def _bare(self, sentence: str) -> int | None:
        """The option that a sentence names, if the sentence consists of nothing else."""
        mentions = self._mentions(sentence)
        chosen = self._last(mentions, sentence)
        if len(chosen) != 1 or len({one.option for one in mentions}) != 1:
            return None
        (option,) = chosen
        rest = Counter(map(_stem, words(sentence, exact=self._exact)))
        rest.subtract(self._words[option])
        symbol = chr(ord("a") + option) if option < self.lettered else ""
        left = {stem for stem, count in rest.items() if count > 0} - _EMPTY - _FRAME - {symbol}
        return None if left else option

    def _mentions(self, sentence: str) -> list[_Mention]:
        """Find all places where a sentence names options, in their order."""
        text = lower(sentence)
        found = find_words(text, exact=self._exact)
        said = [_stem(word.text) for word in found]
        taken = [False] * len(said)
        places: list[tuple[int, int, int]] = []
        # The longest first: "two sisters" is not "two".
        for option in sorted(range(len(self.texts)), key=lambda option: -len(self._words[option])):
            size = len(self._words[option])
            for at in _places(said, self._words[option]):
                if not any(taken[at : at + size]):
                    taken[at : at + size] = [True] * size
                    places.append((at, at + size, option))
        by_words = {place[0] for place in places}
        for match in _SYMBOL.finditer(sentence) if self.lettered else ():
            group = match.lastindex or 0
            begin, end = match.span(group)
            if sentence[end : end + 1] == ")" and _open(sentence[:begin]) and not _LISTED.search(sentence[:begin]):
                continue  # "(the box A)"
            option = ord(match[group].upper()) - ord("A")
            at = len(words(sentence[:end], exact=self._exact)) - 1
            if option < self.lettered and 0 <= at < len(taken) and not taken[at]:
                taken[at] = True
                places.append((at, at + 1, option))
        merged: list[tuple[int, int, int]] = []
        for begin, end, option in sorted(places):
            # "B) the garden" names it once.
            if merged and merged[-1][2] == option and set(said[merged[-1][1] : begin]) <= _EMPTY:
                merged[-1] = (merged[-1][0], end, option)
            else:
                merged.append((begin, end, option))
        characters = [(found[begin].begin, found[end - 1].end) for begin, end, _ in merged]
        # "No" goes with other denials. A longer text, whose own words are left out, does not.
        denying = [
            self._denying[option] and begin in by_words and len(self._words[option]) <= 2 for begin, _, option in merged
        ]
        denied = ruled_out(text, characters, denying)
        return [_Mention(*place, out) for place, out in zip(merged, denied, strict=True)]

    def _shared(self, sentence: str) -> list[float]:
        """The share of each option's words that a sentence holds; a word of k options counts 1/k."""
        stems = {_stem(word) for word in words(sentence, exact=self._exact)}
        return [
            sum(weight for stem, weight in telling.items() if stem in stems) / sum(telling.values()) if telling else 0.0
            for telling in self._telling
        ]


class _Later:
    """What the later sentences say: whether they conclude with something else.

    Attributes:
        chose: Whether any of them means an option.
    """

    def __init__(self) -> None:
        self.chose = False
        self._concluded: set[int] = set()
        self._meant: set[int] = set()

    def note(self, sentence: str, meant: set[int], *, bare: bool) -> None:
        """Take in a sentence, the options that it means, and whether it says nothing else; the last one comes first."""
        self.chose |= bool(meant)
        self._meant |= meant
        if takes_back(sentence):
            self._concluded |= self._meant
        if bare or _INFERS.search(sentence) or declares(sentence):
            self._concluded |= meant

    def differs(self, meant: set[int]) -> bool:
        """Whether the later sentences conclude with, or correct to, anything that is not among the given options."""
        return bool(self._concluded - meant)


def refusal(
    sentences: Sequence[str],
    members: Sequence[str],
    similarity: Callable[[str, Sequence[str]], Sequence[float]],
    options: Options,
) -> list[float]:
    """Score how far an answer's last sentences state each of the given refusals, on the scale of `Options.stated`."""
    found = [0.0] * len(members)
    for place, sentence in enumerate(sentences):
        said = NAMED * (refuses(sentence) and not options.chosen(sentence))
        near = similarity(sentence, members)
        found = [max(one, DECAY**place * (said + NEAR * cosine)) for one, cosine in zip(found, near, strict=True)]
    return found


def _ruled_out(mentions: Sequence[_Mention]) -> set[int]:
    """The options that a sentence names, and rules out at every place where it names them."""
    return {one.option for one in mentions if one.denied} - {one.option for one in mentions if not one.denied}


def _chosen(mentions: Sequence[_Mention], sentence: str, *, exact: bool) -> set[int]:
    """The option that a sentence names last and does not rule out; several, if it cannot say which of them."""
    left = [one for one in mentions if not one.denied]
    chosen = {one.option for one in left[-1:]}
    said = words(sentence, exact=exact) if len(left) > 1 else []
    for before, after in zip(reversed(left[:-1]), reversed(left), strict=False):
        between = set(said[before.end : after.begin])
        both = "and" in between and {"between", "both"} & set(said[max(0, before.begin - 4) : before.begin])
        if not (between & _OPEN or both) or not between <= _EMPTY | _BETWEEN:
            break
        chosen.add(before.option)
    return chosen


def _open(text: str) -> bool:
    """Whether a parenthesis is open at the end of a text."""
    return text.count("(") > text.count(")")


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    """A word without its most common endings."""
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _places(text: Sequence[str], part: Sequence[str]) -> list[int]:
    """All places where a sequence of words stands within another one."""
    size = len(part)
    return [at for at in range(len(text) - size + 1) if text[at : at + size] == part] if size else []
