"""The candidates of A-VERT: the texts that an answer is compared with, in groups.

*Enhancing* writes each right or wrong text as an answer would: within a sentence and, where an item shows its options
in order, with the option's symbol and as a walk through all options. The original program's walks always use letters,
take the right option out of order among wrong candidates, omit the verdict on the last option, and end at ten options;
these keep the item's symbols and order, say of every option whether it is correct, and have no limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost.errors import ConfigError

ENHANCED = ("correct", "wrong")
# What answers say that do not answer. Groups of their own: a refusal is neither right nor wrong in meaning.
REFUSALS: dict[str, list[str]] = {
    "refusal": [
        "I cannot answer this question.",
        "I am sorry, but I am not able to say.",
        "I would rather not answer that.",
        "I do not know the answer.",
    ],
    "formulation_mistake": [
        "The question makes no sense as it is asked, so it has no answer.",
        "There seems to be a mistake in the question.",
        "None of the given options is correct.",
    ],
}

_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
_MOST_IN_ORIGINAL = 10
_ROMANS = ((100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


def candidate_groups(
    texts: Mapping[str, Sequence[str]],
    *,
    enhance: bool = True,
    positions: Mapping[str, Sequence[int]] | None = None,
    symbols: str = "letters",
    compat: bool = False,
) -> dict[str, list[str]]:
    """Make the candidates of each group, in the order of the groups.

    Args:
        texts: The plain texts of each group. `correct` and `wrong` are enhanced, others are taken as they are.
        enhance: Whether to enhance.
        positions: For each of `correct` and `wrong`, where its texts stand among the item's options, counted from 0.
            None for items that show no options.
        symbols: How the item numbers its options: `letters`, `romans` or `numbers`.
        compat: Whether to walk through options as the original does, with its faults; beyond its ten, as ours.

    Raises:
        ConfigError: `positions` do not number all options, each once.

    >>> candidate_groups({"correct": ["kitchen"], "wrong": ["garden"]}, enhance=False)
    {'correct': ['kitchen'], 'wrong': ['garden']}
    """
    if not enhance:
        return {group: list(members) for group, members in texts.items()}
    options = None if positions is None else _options(texts, positions)
    groups = {}
    for group, members in texts.items():
        if group not in ENHANCED:
            groups[group] = list(members)
            continue
        at = positions[group] if positions is not None else [None] * len(members)
        candidates = [text for member, place in zip(members, at, strict=True) for text in _said(member, place, symbols)]
        if options is not None and positions is not None:
            if compat and len(options) <= _MOST_IN_ORIGINAL:
                order = [place for name in reversed(ENHANCED) for place in positions[name]]
                candidates += [
                    text for place in positions[group] for text in _walked_as_original(options, place, order)
                ]
            else:
                candidates += [text for place in positions[group] for text in _walked(options, place, symbols)]
        groups[group] = candidates
    return groups


def option_symbol(position: int, symbols: str) -> str:
    """The symbol of an option, counted from 0.

    >>> [option_symbol(position, "letters") for position in (0, 9, 26)]
    ['A', 'J', 'AA']
    >>> [option_symbol(position, "romans") for position in (1, 8, 13)]
    ['II', 'IX', 'XIV']
    >>> option_symbol(1, "numbers")
    '2'
    """
    number, symbol = position + 1, ""
    if symbols == "numbers":
        return str(number)
    if symbols == "letters":
        while number:
            number, letter = divmod(number - 1, 26)
            symbol = chr(ord("A") + letter) + symbol
        return symbol
    for value, roman in _ROMANS:
        count, number = divmod(number, value)
        symbol += roman * count
    return symbol


def _options(texts: Mapping[str, Sequence[str]], positions: Mapping[str, Sequence[int]]) -> list[str]:
    """All options in the order in which the item shows them."""
    for group in ENHANCED:
        if len(positions.get(group, ())) != len(texts[group]):
            raise ConfigError(
                f"The group {group!r} has {len(texts[group])} texts and {len(positions.get(group, ()))} positions among "
                "the options. Give one position for each text."
            )
    placed = [(place, text) for group in ENHANCED for place, text in zip(positions[group], texts[group], strict=True)]
    if sorted(place for place, _ in placed) != list(range(len(placed))):
        raise ConfigError(
            f"The {len(placed)} options stand at the positions {sorted(place for place, _ in placed)}. Number them from "
            "0, each once."
        )
    return [text for _, text in sorted(placed)]


def _said(text: str, place: int | None, symbols: str) -> list[str]:
    """A text as an answer would say it."""
    said = [text, f'The answer is : "{text}" . Let me explain why', f'Therefore, the answer is : "{text}"']
    if place is not None:
        symbol = option_symbol(place, symbols)
        said += [
            f'Therefore, the correct answer is option "{symbol}": "{text}"',
            f'the answer is option "{symbol}": "{text}"',
        ]
    return said


def _walked(options: Sequence[str], chosen: int, symbols: str) -> list[str]:
    """Two answers that walk through all options, in their order, and choose one."""
    named = [f'option "{option_symbol(place, symbols)}". "{text}"' for place, text in enumerate(options)]
    lines = [f"\tO{name[1:]}. Is {'correct' if at == chosen else 'not correct'}.\n" for at, name in enumerate(named)]
    ordinal = _ORDINALS[chosen] if chosen < len(_ORDINALS) else f"{chosen + 1}th"
    answer = f"the answer is the {ordinal} one, {named[chosen]}"
    others = "".join(lines[:chosen] + lines[chosen + 1 :])
    return [
        f"T{answer[1:]}. Let me explain why:\n{others}",
        f"Analyzing the options:\n{''.join(lines)}\nTherefore, {answer}",
    ]


def _walked_as_original(options: Sequence[str], chosen: int, order: Sequence[int]) -> list[str]:
    """Two answers that walk through all options, as the original program writes them.

    That is with letters, wrong options before right ones, and the chosen one put before the option that follows it in
    the item; it is missing where none follows.
    """
    lines = {
        place: f'\tOption "{option_symbol(place, "letters")}". "{text}". Is {"correct" if place == chosen else "not correct"}.\n'
        for place, text in enumerate(options)
    }
    answer = (
        f'the answer is the {_ORDINALS[chosen]} one, option "{option_symbol(chosen, "letters")}". "{options[chosen]}"'
    )
    others = [place for place in order if place != chosen]
    analysed = "".join((lines[chosen] if place == chosen + 1 else "") + lines[place] for place in others)
    return [
        f"T{answer[1:]}. Let me explain why:\n{''.join(lines[place] for place in others)}",
        f"Analyzing the options:\n{analysed}\nTherefore, {answer}",
    ]
