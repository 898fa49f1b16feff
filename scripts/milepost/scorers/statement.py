"""What a long answer states in the end: which of an item's options, read off its last sentences.

A small embedder is blind to most of what decides: which sentence of a long answer is its conclusion, whether an option is
named or ruled out, and numbers. This looks at the last sentences one by one, and at each for three things: whether it
names an option, which words it shares with one and no other, and how near in meaning it is. benchmarks/validity.py
measures what each of them brings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Sentences from the end that are looked at, and what one counts against the one after it.
SENTENCES = 4
DECAY = 0.7
# What a sentence that draws a conclusion counts more: so much that one plain sentence may follow it.
CONCLUSION = 1.5
# What a first sentence counts that says an option and nothing else: the answer first, and then why.
LEAD = 1.0
# A named option against one that shares all its words, or all its meaning, with the sentence.
NAMED, SHARED, NEAR = 1.0, 0.5, 0.5

Cosine = Callable[[str, int], float]
"""How near a sentence is in meaning to an option, by its place: in [-1, 1]."""

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")
_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|so|answer|conclu\w+|correct|best|final\w*|choice|select|choose|summary|overall|given|"
    r"based on|this means)\b",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(r"\b(?:wait|actually|correction|mistake|sorry|on second thought)\b", re.IGNORECASE)
_DENIES = re.compile(
    r"\b(?:not|never|no|cannot|\w+n't|neither|nor|none|incorrect|wrong|instead|rather|eliminated?|false|invalid|fails?|"
    r"impossible|unnecessary|without)\b"
)
_REFUSES = re.compile(
    r"\b(?:i|we)(?:'m| am| are|'re)? (?:sorry|afraid|cannot|can't|can not|could not|couldn't|unable|not able|"
    r"(?:do not|don't) (?:know|have)|(?:would|'d) rather not|won't|will not|refuse)\b"
    r"|\b(?:not possible|impossible|no way) to (?:know|say|tell|determine|decide|answer)\b"
    r"|\b(?:cannot|can't|can not) be (?:known|determined|answered|said)\b|\bnot enough information\b"
)
_CLAUSE = re.compile(r"[,;:]|\b(?:but|because|so|since|as|while|although|however)\b")
_SYMBOL = re.compile(
    r"\b(?:option|choice|answer)s?\b(?:\s+(?:is|was|would be))?\s*:?\s*[\"'(\[]?((?-i:[A-Z]))\b"
    r"|^[\"'(\[]?((?-i:[A-Z]))[\])\"'.:](?=\s|$)|\(((?-i:[A-Z]))\)",
    re.IGNORECASE,
)
# Words around an option that is said and nothing else.
_FRAME = frozenset("answer option choice correct final best right solution".split())
# Words that say nothing of which option is meant.
_EMPTY = frozenset(
    "a an the is are was were be been being of to in on at and or for with by from as it its this that these those they "
    "them their there he she his her you your we our i so do does did will would can could should not no than then".split()
)


def words(text: str) -> list[str]:
    """The words of a text, as they are compared: numbers as digits, without upper case and punctuation.

    >>> words("Ten crossings, 1,200.0 kg - don't")
    ['10', 'crossings', '1200', 'kg', "don't"]
    """
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return [_DIGITS.get(word) or re.sub(r"(?<=\d)\.0+$", "", word) for word in _WORD.findall(text)]


def last_sentences(text: str, count: int = SENTENCES) -> list[str]:
    r"""The last sentences of a text, the last one first, without marks of lists and emphasis.

    >>> last_sentences("**One.** Two!\n- Three: 1.5 km")
    ['Three: 1.5 km', 'Two!', 'One.']
    """
    found: list[str] = []
    for line in reversed(text.replace("**", "").replace("__", "").replace("`", "").splitlines()):
        plain = re.sub(r"^\s*(?:[-*•>#]+|\d+[.)])\s+", "", line).strip()
        parts = re.split(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(A-Z0-9])", plain)
        found += [part for part in reversed(parts) if re.search(r"\w", part)]
        if len(found) >= count:
            break
    return found[:count]


def lead(text: str) -> str | None:
    """The first sentence of a text that has several.

    >>> lead("Ten. Because five and five are ten.")
    'Ten.'
    >>> lead("Ten.") is None
    True
    """
    first, _, rest = text.replace("**", "").replace("__", "").replace("`", "").strip().partition("\n")
    found = last_sentences(first, len(first))
    return found[-1] if found and (len(found) > 1 or re.search(r"\w", rest)) else None


def refuses(text: str) -> bool:
    """Whether a text says that it does not answer.

    >>> refuses("I'm sorry, but I cannot say."), refuses("He cannot swim.")
    (True, False)
    """
    return bool(_REFUSES.search(_plain(text)))


def refusal(
    sentences: Sequence[str],
    members: Sequence[str],
    similarity: Callable[[str, Sequence[str]], Sequence[float]],
    options: Options,
) -> list[float]:
    """How far an answer's last sentences say each of some refusals, on the scale of `Options.stated`."""
    found = [0.0] * len(members)
    for place, sentence in enumerate(sentences):
        said = NAMED * (refuses(sentence) and not options.chosen(sentence))
        near = similarity(sentence, members)
        found = [max(one, DECAY**place * (said + NEAR * cosine)) for one, cosine in zip(found, near, strict=True)]
    return found


@dataclass(frozen=True)
class Options:
    """The texts that an answer can mean, right and wrong ones, of one item.

    Attributes:
        texts: The texts.
        lettered: How many of them, from the first on, the item shows as A, B, C, …
    """

    texts: tuple[str, ...]
    lettered: int = 0
    _words: list[list[str]] = field(init=False, repr=False)
    _telling: list[dict[str, float]] = field(init=False, repr=False)
    _denying: list[bool] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Split the texts once, for all answers."""
        split = [words(text) for text in self.texts]
        stems = [{_stem(word) for word in one if word not in _EMPTY} for one in split]
        shared = Counter(stem for one in stems for stem in one)
        object.__setattr__(self, "_words", split)
        object.__setattr__(self, "_telling", [{stem: 1 / shared[stem] for stem in one} for one in stems])
        object.__setattr__(self, "_denying", [_denies(text) for text in self.texts])

    def stated(self, sentences: Sequence[str], cosine: Cosine, first: str | None = None) -> list[float]:
        """How far an answer's last sentences state each option, from 0 on.

        Args:
            sentences: From `last_sentences`: the last one first.
            cosine: How near a sentence is to an option.
            first: From `lead`: the answer's first sentence, if it has others.
        """
        found = [0.0] * len(self.texts)
        place = 0
        bare = self._bare(first) if first is not None else None
        if bare is not None and not any(self._says_anew(sentence, bare) for sentence in sentences):
            # What follows explains it, and names what else it must.
            found[bare] = LEAD * (NAMED + SHARED + NEAR)
        for sentence in sentences:
            named, shared = self._named(sentence), self._shared(sentence)
            if not named and sentence.endswith(":") and max(shared, default=0) < SHARED:
                continue  # announces what comes, or came, and says nothing itself
            chosen = self._chosen(sentence, named)
            if not chosen and refuses(sentence) and max(shared, default=0) < SHARED:
                continue
            denies = _denies(sentence)
            weight = DECAY**place * (CONCLUSION if _CONCLUDES.search(sentence) else 1)
            place += 1
            said = [0.0] * len(self.texts)
            for option in range(len(self.texts)):
                if option in named and option not in chosen and self._ruled_out_in(option, sentence):
                    continue  # near in words and meaning to what it denies
                # "You should spin" shares most words with "You should not spin".
                alike = denies == self._denying[option] or option in chosen
                said[option] = (
                    NAMED * (option in chosen) + SHARED * alike * shared[option] + NEAR * cosine(sentence, option)
                )
            if len(chosen) > 1:
                # It cannot say which: what is nearer in meaning decides nothing.
                said = [max(said) if option in chosen else one for option, one in enumerate(said)]
            found = [max(one, weight * other) for one, other in zip(found, said, strict=True)]
        return found

    def chosen(self, sentence: str) -> set[int]:
        """The options that a sentence names last and does not rule out."""
        return self._chosen(sentence, self._named(sentence))

    def _says_anew(self, sentence: str, first: int) -> bool:
        """Whether a sentence names another option, and concludes with it, takes back the first, or says nothing else."""
        if not self.chosen(sentence) - {first}:
            return False
        return bool(_CONCLUDES.search(sentence) or _TAKES_BACK.search(sentence)) or self._bare(sentence) not in (
            None,
            first,
        )

    def _bare(self, sentence: str) -> int | None:
        """The option that a sentence says, if it says nothing else."""
        chosen = self.chosen(sentence)
        if len(chosen) != 1 or len(self._named(sentence)) != 1:
            return None
        (option,) = chosen
        rest = Counter(words(sentence))
        rest.subtract(self._words[option])
        symbol = chr(ord("a") + option) if option < self.lettered else ""
        left = {word for word, count in rest.items() if count > 0} - _EMPTY - _FRAME - {symbol}
        return None if left else option

    def _ruled_out_in(self, option: int, sentence: str) -> bool:
        return self._ruled_out(option, _CLAUSE.split(sentence.casefold()))

    def _named(self, sentence: str) -> dict[int, tuple[int, int]]:
        """The options that a sentence names, and from which word to which it does so last."""
        said = words(sentence)
        taken = [False] * len(said)
        named: dict[int, tuple[int, int]] = {}
        # The longest first: "two sisters" is not "two".
        for option in sorted(range(len(self.texts)), key=lambda option: -len(self._words[option])):
            size = len(self._words[option])
            for at in _places(said, self._words[option]):
                if not any(taken[at : at + size]):
                    taken[at : at + size] = [True] * size
                    named[option] = (at, at + size)
        for match in _SYMBOL.finditer(sentence) if self.lettered else ():
            option = ord(next(filter(None, match.groups()))) - ord("A")
            at = len(words(sentence[: match.end()]))
            if option < self.lettered:
                named[option] = max(named.get(option, (0, 0)), (at - 1, at))
        return named

    def _chosen(self, sentence: str, named: dict[int, tuple[int, int]]) -> set[int]:
        """The option that a sentence names last and does not rule out; two, if it cannot say which of them."""
        clauses = _CLAUSE.split(sentence.casefold())
        left = sorted((place, option) for option, place in named.items() if not self._ruled_out(option, clauses))
        chosen = {option for _, option in left[-1:]}
        if len(left) > 1:
            between = words(sentence)[left[-2][0][1] : left[-1][0][0]]
            if "or" in between and set(between) <= _EMPTY:
                chosen.add(left[-2][1])
        return chosen

    def _ruled_out(self, option: int, clauses: Sequence[str]) -> bool:
        """Whether all clauses that name an option deny something."""
        if self._denying[option]:
            return False
        own = [clause for clause in clauses if _places(words(clause), self._words[option])]
        return bool(own) and all(map(_denies, own))

    def _shared(self, sentence: str) -> list[float]:
        """The share of each option's words that a sentence holds; a word of k options counts 1/k."""
        stems = {_stem(word) for word in words(sentence)}
        return [
            sum(weight for stem, weight in telling.items() if stem in stems) / sum(telling.values()) if telling else 0.0
            for telling in self._telling
        ]


def _denies(text: str) -> bool:
    return bool(_DENIES.search(_plain(text)))


def _plain(text: str) -> str:
    return text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _stem(word: str) -> str:
    """A word without its commonest endings."""
    for ending in ("ing", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _places(text: Sequence[str], part: Sequence[str]) -> list[int]:
    """Where a sequence of words stands within another."""
    size = len(part)
    return [at for at in range(len(text) - size + 1) if text[at : at + size] == part] if size else []
