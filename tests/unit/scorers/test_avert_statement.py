import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.scorers.avert.scorer import names_only
from milepost.scorers.avert.sentences import read_sentences, refuses, words
from milepost.scorers.avert.statement import Options

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


CITIES = Options(("Canberra", "Sydney", "Perth", "Hobart"), lettered=4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Markdown, LaTeX, JSON, HTML.
        ("**Answer: B) Sydney**", {"Sydney"}),
        ("### Final answer\n\n*Perth*", {"Perth"}),
        ("Hence $\\boxed{\\text{C}}$.", {"Perth"}),
        ("\\[ \\boxed{Perth} \\]", {"Perth"}),
        ('```json\n{"reason": "not Sydney", "ANSWER": "D"}\n```', {"Hobart"}),
        ("<answer>B</answer>", {"Sydney"}),
        ("It is ~~Perth~~ Hobart.", {"Hobart"}),
        # Letters.
        ("b)", {"Sydney"}),
        ("Option (c)", {"Perth"}),
        ("I'd go with option d.", {"Hobart"}),
        ("The right choice here is (A).", {"Canberra"}),
        ("B is the only one that does not fit, so the answer is A.", {"Canberra"}),
        ("Only D holds up.", {"Hobart"}),
        ("A city in the north.", set()),
        ("I am sure.", set()),
        ('It starts with the letter "B".', set()),
        ("It is near the shop (see map B).", set()),
        # The answer, and then a long explanation that ends elsewhere.
        (
            "The answer is Canberra. Many would say Sydney. It is larger. It is older. It is better known. Its opera "
            "stands there. Such is the fame of Sydney.",
            {"Canberra"},
        ),
        ("The answer is B. Sydney was first. Wait, I misread that. The answer is C.", {"Perth"}),
        # Options that are ruled out.
        ("A) Canberra ❌\nB) Sydney ✅\nC) Perth ❌\nD) Hobart ❌", {"Sydney"}),
        ("- Sydney: incorrect\n- Perth: incorrect\n- Hobart - wrong", {"Canberra"}),
        ("Rather than Perth, it is Hobart.", {"Hobart"}),
        ("You might think Perth, but that's a mistake; it is Hobart.", {"Hobart"}),
        ("You might think Perth, but that's a mistake.", set()),
        ("Anything but Perth.", set()),
        ("Perth is out of the question.", set()),
        ("Option C is incorrect.", set()),
        ("No doubt it is Perth.", {"Perth"}),
        ("The other options (B, C, and D) do not fit.", {"Canberra"}),
        ("The other options are larger, so the answer is B.", {"Sydney"}),
        # One of several, but not which.
        ("Perth, or perhaps Sydney.", {"Perth", "Sydney"}),
        ("Maybe Perth. Or maybe Sydney.", {"Perth", "Sydney"}),
        ("The answer might be B or C.", {"Sydney", "Perth"}),
        ("Both Perth and Sydney are possible.", {"Perth", "Sydney"}),
        ("It could be Perth or Sydney, but I am sure that it is Hobart.", {"Hobart"}),
        # What is said out of politeness.
        ("It's Perth. Let me know if you have other questions! Is there anything else about Sydney?", {"Perth"}),
        ("Happy to help with Sydney!", {"Sydney"}),
        # Other languages keep at least the names.
        ("Die Antwort lautet „Perth“.", {"Perth"}),
        ("La réponse est « Perth ».", {"Perth"}),
        # A refusal names nothing.
        ("There isn't enough information to answer this.", set()),
        ("The text does not say.", set()),
    ],
)
def test_styles_of_other_models(text, expected):
    assert stated(CITIES, text) == expected


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        (("-5", "5", "50"), "So it is -5.", {"-5"}),
        (("-5", "5", "50"), "8 - 3 = 5", {"5"}),
        (("twenty-one", "21.5", "20"), "That makes 21.", {"twenty-one"}),
        (("105", "100", "5"), "One hundred and five", {"105"}),
        (("2021", "2000", "21"), "In two thousand twenty-one.", {"2021"}),
        (("three", "four"), "One, two and three", {"three"}),
        (("5", "105"), "One hundred, five", {"5"}),
        (("2000000", "2"), "Two million people.", {"2000000"}),
        (("$1,250", "$125"), "It cost 1250 dollars.", {"$1,250"}),
        (("1/2", "1", "2"), "\\(\\frac{1}{2}\\)", {"1/2"}),
        (("0.5", "5"), "So .50 is left.", {"0.5"}),
        (("9:30", "9", "30"), "at 9:30", {"9:30"}),
        (("2", "3"), "He came in 2nd.", set()),
        (("24", "4"), "24. That is three times eight.", {"24"}),
    ],
)
def test_numbers_as_numbers(options, text, expected):
    assert stated(Options(options), text) == expected


def test_numbered_options_deny_nothing():
    options = Options(("Door No.1", "Door No.2", "both alike"))
    assert stated(options, "It is not Door No. 1. So it must be Door No. 2.") == {"Door No.2"}


def test_an_option_that_refuses_is_said_by_a_refusal():
    options = Options(("5", "Another option not stated"))
    assert stated(options, "The correct answer is not listed in the options.") == {"Another option not stated"}
    options = Options(("the kitchen", "It cannot be determined"))
    assert stated(options, "There is not enough information.") == {"It cannot be determined"}


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


PARTS = st.sampled_from(
    'Perth Sydney B (c) not or and answer is twenty hundred 5 - , . : ß İ ** \\boxed{ } " $ ❌ maybe but ? 1. \u017f'.split(
        " "
    )
) | st.sampled_from(["I don't know", "the answer is", "\n", "\ud800"])


@given(st.lists(PARTS, max_size=30).map(" ".join) | st.text())
def test_any_text_is_read(text):
    found = CITIES.stated(read_sentences(text), never)
    assert len(found) == 4
    assert all(one >= 0 for one in found)


@pytest.mark.parametrize(
    "part", ["either A or B, ", "Maybe Perth. ", "not listed in ", "Perth, not Sydney ", "**(a", "\\boxed{"]
)
def test_an_answer_that_repeats_itself_is_read_in_time(part):
    begun = time.process_time()
    CITIES.stated(read_sentences(part * 5000), never)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("options", "answer", "option"),
    [
        (("C", "C++", "C#"), "The answer is C++.", "C++"),
        (("C", "C++", "C#"), "So it is written in C, not in C#.", "C"),
        (("C", "C++", "C#"), "It must be C#.", "C#"),
        (("5", "5%"), "The answer is 5 %.", "5%"),
        (("5", "5%"), "The answer is 5.", "5"),
        (("$5", "5"), "Therefore it is $5.", "$5"),
        (("x", "-x"), "The answer is \u2212x.", "-x"),
        (("x", "-x"), "The answer is x.", "x"),
        (("x2", "x\u00b2"), "The answer is x^2.", "x\u00b2"),
        (("1/2", "12"), "The answer is \u00bd.", "1/2"),
        (("1 1/2", "11/2"), "The answer is 1\u00bd.", "1 1/2"),
        (("A+", "A-", "A"), "Her grade is A-.", "A-"),
        (("-5", "5"), "It is \u22125.", "-5"),
        (("caf\u00e9", "cafe"), "It is the cafe\u0301.", "caf\u00e9"),
    ],
)
def test_options_that_only_signs_tell_apart(options, answer, option):
    stated = Options(options).stated(read_sentences(answer), lambda sentence, at: 0.0)
    assert options[stated.index(max(stated))] == option
    assert sorted(stated)[-1] > sorted(stated)[-2]


@pytest.mark.parametrize(
    ("text", "targets", "others", "right"),
    [
        ("I write C++.", ["C"], ["C++"], False),
        ("I write C++.", ["C++"], ["C"], True),
        ("In the living room.", ["living room"], ["room"], True),
        ("In the living room.", ["room"], ["living room"], False),
        ("It is 5 %.", ["5%"], ["5"], True),
        ("It is 5 %.", ["5"], ["5%"], False),
        ("Au cafe\u0301.", ["caf\u00e9"], ["cafe"], True),
        ("In the KITCHEN or the garden", ["kitchen"], ["garden"], False),
        ("Nowhere", ["kitchen"], ["garden"], False),
    ],
)
def test_names_only(text, targets, others, right):
    assert names_only(text, targets, others) == right
