import pytest

from milepost.scorers.sentences import read_sentences, refuses, words
from milepost.scorers.statement import Options

PLACES = Options(("kitchen", "garden", "living room", "room"))
LETTERED = Options(("two", "twenty", "no one", "two sisters"), lettered=4)


def never(sentence, option):
    """Meaning says nothing: what is named and shared decides."""
    return 0.0


def stated(options, text, cosine=never):
    found = options.stated(read_sentences(text), cosine)
    best = max(found)
    return {options.texts[at] for at, one in enumerate(found) if one == best > 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She is in the kitchen.", {"kitchen"}),
        # The last one counts, and what is ruled out does not.
        ("First she was in the garden. Then she went to the kitchen.", {"kitchen"}),
        ("She is in the kitchen, not in the garden.", {"kitchen"}),
        ("Not in the garden: she is in the kitchen.", {"kitchen"}),
        ("She isn't in the garden but in the kitchen.", {"kitchen"}),
        # The longest name.
        ("She is in the living room.", {"living room"}),
        ("She is in the room.", {"room"}),
        # The answer first, and then why.
        ("The kitchen. She went there after leaving the garden.", {"kitchen"}),
        ("Answer: the kitchen\n\nShe had been in the garden before.", {"kitchen"}),
        # But what is taken back, or concluded otherwise, is not.
        ("The kitchen. Wait, she left it for the garden.", {"garden"}),
        ("The kitchen. She left it later. Therefore, she is in the garden.", {"garden"}),
        ("The kitchen. No, the garden.", {"garden"}),
        ("Not the kitchen. She is in the garden.", {"garden"}),
        # A conclusion counts more than what comes after it.
        ("Therefore, the answer is the kitchen. There are flowers in the garden.", {"kitchen"}),
        # Either of two is neither.
        ("She is in the kitchen or in the garden.", {"kitchen", "garden"}),
        ("The garden or the kitchen.", {"kitchen", "garden"}),
        # A denial alone, and a refusal, say nothing of where she is.
        ("She is not in the kitchen.", set()),
        ("I am sorry, but I cannot say where she is.", set()),
        ("It is impossible to know.", set()),
        ("", set()),
        ("…", set()),
    ],
)
def test_what_is_stated(text, expected):
    assert stated(PLACES, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is B.", {"twenty"}),
        ("So it is option (C).", {"no one"}),
        ("**D**. Because of the sisters", {"two sisters"}),
        ("A man has it.", set()),
        ("Option E.", set()),
        # Numbers as numbers.
        ("That makes 20.", {"twenty"}),
        ("That makes 20.0 in all.", {"twenty"}),
        ("There are 2.", {"two"}),
        ("There are 12.", set()),
        # An option that denies is not ruled out by its own word.
        ("No one.", {"no one"}),
        ("She has two sisters.", {"two sisters"}),
    ],
)
def test_letters_numbers_and_denials(text, expected):
    assert stated(LETTERED, text) == expected


def test_letters_count_only_where_they_are_shown():
    assert stated(Options(("two", "twenty")), "The answer is B.") == set()


def test_meaning_decides_where_nothing_is_named():
    def cosine(sentence, option):
        return [0.1, 0.6, 0.2, 0.3][option]

    assert stated(PLACES, "Among the flowers outside.", cosine) == {"garden"}
    # It does not decide between two that are both named, nor for what is denied.
    assert stated(PLACES, "In the kitchen or the garden.", cosine) == {"kitchen", "garden"}
    assert stated(PLACES, "She is not in the garden.", cosine) == {"room"}


def test_sentences_that_share_words_with_one_option():
    options = Options(("You should spin around", "You should not spin around"))
    assert stated(options, "So you should not be spinning around.") == {"You should not spin around"}
    assert stated(options, "So you should be spinning around.") == {"You should spin around"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can\N{RIGHT SINGLE QUOTATION MARK}t answer that.", True),
        ("It cannot be determined from the story.", True),
        ("There is not enough information.", True),
        ("He cannot swim.", False),
        ("She said that I am tall.", False),
    ],
)
def test_refusals(text, expected):
    assert refuses(text) is expected


def test_words_and_sentences():
    assert words("1,234.50 metres") == ["1234.5", "metres"]
    assert read_sentences("# One\n\n1. Two.\n2. Three!\n\n```py\n- four (4.5)\n```").last == (
        *("four (4.5)", "Three!", "Two.", "One"),
    )
    assert read_sentences("- **Two.** And why").first == "Two."
    assert read_sentences("Two").first is None
