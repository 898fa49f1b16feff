"""Against the original program, a-vert 0.3.5, where it is installed (`make test-a-vert`): inputs drawn by hypothesis."""

import math
import os
import runpy
import sys
from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

a_vert = pytest.importorskip(
    "a_vert", reason="a-vert 0.3.5 is not installed: `make test-a-vert` compares with it, in an environment of its own"
)
sys.path.append(str(Path(__file__).parents[2]))
from scoring_stub import Stub  # noqa: E402

from milepost.reasoning import strip_reasoning  # noqa: E402
from milepost.scorers.avert.candidates import REFUSALS, candidate_groups  # noqa: E402
from milepost.scorers.avert.scorer import Scorer  # noqa: E402
from milepost.scorers.avert.settings import TEMPLATES, Settings, Template  # noqa: E402
from milepost.scorers.avert.similarity import TextsToCompare, find_similarities  # noqa: E402
from milepost.scorers.avert.verdict import grouping_of, original_verdict_of  # noqa: E402
from milepost.tasks.babi import babi_targets  # noqa: E402
from milepost.text import normalized  # noqa: E402

EXAMPLES = int(os.environ.get("MILEPOST_EXAMPLES", "60"))
SLOW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
text = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=40).filter(str.strip)
texts = st.lists(text, min_size=2, max_size=10, unique=True)


@pytest.fixture(scope="module")
def url():
    with Stub(quiet=True).running() as address:
        yield address


@SLOW
@given(texts, st.data(), st.sampled_from(["letters", "romans", "numbers"]), st.booleans())
def test_candidates(options, data, symbols, with_options):
    correct = data.draw(st.integers(0, len(options) - 1))
    wrong = [at for at in range(len(options)) if at != correct]
    arguments = {"correct_group_idxs": [correct], "wrong_group_idxs": wrong, "option_symbol": symbols}
    theirs = a_vert.processing.construct_candidate_groups(
        [options[correct]],
        [options[at] for at in wrong],
        ["correct", "wrong"],
        enhance=True,
        with_options=with_options,
        **(arguments if with_options else {}),
    )
    ours = candidate_groups(
        {"correct": [options[correct]], "wrong": [options[at] for at in wrong]},
        positions={"correct": [correct], "wrong": wrong} if with_options else None,
        symbols=symbols,
        compat=True,
    )
    assert ours == theirs


@SLOW
@given(
    text,
    st.lists(text, min_size=1, max_size=4),
    st.lists(text, min_size=1, max_size=40),
    st.booleans(),
    st.sampled_from(["vllm", "openai", "tei"]),
    st.sampled_from(["rerank", "embedding"]),
    st.sampled_from(sorted(TEMPLATES)),
    st.sampled_from(["max", "mean", "mean_top_k_1", "mean_top_k_3", "mean_top_k_50"]),
)
def test_scores(url, response, correct, wrong, refusal, api, method, template, grouping):
    groups = {"correct": correct, "wrong": wrong, **(REFUSALS if refusal else {})}
    query, document = TEMPLATES[template]
    config = a_vert.AvertConfig(
        method, document, query, grouping, True, url, api, "m", {"default": "look"}, bool(query and "instr" in query)
    )
    theirs, _ = a_vert.processing.get_candidate_groups_embedings_ranking(response, groups, config)
    found = find_similarities(
        Settings(url, "m", api, method, Template(query, document, "look"), grouping, True),
        TextsToCompare({response: list(dict.fromkeys(one for members in groups.values() for one in members))}),
        double=True,
    )
    similarities = {name: list(found(response, members)) for name, members in groups.items()}
    verdict = original_verdict_of(similarities, grouping_of(grouping, compat=True))
    assert verdict.shares == pytest.approx(theirs, abs=1e-9)
    # Nearer to each other than this, rounding decides.
    if abs(theirs["correct"] - theirs["wrong"]) > 1e-12:
        assert verdict.match == (theirs["correct"] >= theirs["wrong"])


@SLOW
@given(texts, text, st.data(), st.sampled_from(["rerank", "embedding"]), st.booleans())
def test_the_scorer_from_the_environment_on(url, options, response, data, method, letters):
    folded = [" ".join("".join(c if c.isalnum() else " " for c in option.casefold()).split()) for option in options]
    assume(len(set(folded)) == len(options) and all(folded) and "<think>" not in response)
    assume(len(set(map(normalized, options))) == len(options) and strip_reasoning(response) == (response, False))
    correct = data.draw(st.integers(0, len(options) - 1))
    wrong = [at for at in range(len(options)) if at != correct]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "MODEL_ENDPOINT": url, "ENDPOINT_TYPE": "vllm", "MODEL_NAME": "m", "METHOD": method, "PROMPT_TEMPLATE": "empty"
        }.items():  # fmt: skip
            patch.setenv(f"AVERT_{name}", value)
        positions = {"correct_group_idxs": [correct], "wrong_group_idxs": wrong, "option_symbol": "letters"}
        groups = a_vert.processing.construct_candidate_groups(
            [options[correct]], [options[at] for at in wrong], ["correct", "wrong"], with_options=letters,
            **(positions if letters else {}),
        )  # fmt: skip
        theirs, _ = a_vert.processing.get_candidate_groups_embedings_ranking(response.strip(), groups, a_vert.setup())
        prompt = {"id": "a", "prompt": "?", "target": options[correct], "choices": options}
        (score,) = Scorer(compat=True, letters=letters, chance=False, semscore=False).score(
            [prompt], [{"id": "a", "sample": 0, "content": response}]
        )
    assert score["metrics"]["avert_correct"] == pytest.approx(theirs["correct"], abs=1e-9)
    assert score["metrics"]["avert_wrong"] == pytest.approx(theirs["wrong"], abs=1e-9)
    if not math.isclose(theirs["correct"], theirs["wrong"], abs_tol=1e-12):
        assert score["score"] == float(theirs["correct"] >= theirs["wrong"])


# bAbI's targets are no part of the package, but of the tasks in its repository, which carry no licence: a checkout of it.
TASKS = Path(os.environ.get("MILEPOST_AVERT_REPOSITORY") or "/nonexistent") / "lm-eval_tasks"
PLACES = ["office", "bathroom", "hallway", "garden", "kitchen", "bedroom", "park"]
THINGS = ["nothing", "apple", "banana", "orange", "pineapple", "pear", "melon", "table", "milk", "football", "pajamas"]
SIDES = ["north", "south", "east", "west"]
ANIMALS = ["mouse", "sheep", "wolf", "cat"]
FOUR, FIVE = ["Fred", "Jeff", "Bill", "Mary"], ["Fred", "Jeff", "Bill", "Mary", "Julie"]
# Every question that each task asks, by what it asks for.
ASKED = {
    1: [("Where is Mary?", PLACES)],
    2: [("Where is the milk?", PLACES)],
    3: [(f"Where was the {thing} before the {place}?", PLACES) for thing in THINGS[1:] for place in PLACES],
    4: [
        *((f"What is {side} of the {place}?", PLACES) for side in SIDES for place in PLACES),
        *((f"What is the {place} {side} of?", PLACES) for side in SIDES for place in PLACES),
    ],
    5: [
        *((f"What did {one} give to {other}?", THINGS) for one in FOUR for other in FOUR),
        *((f"Who gave the {thing} to {one}?", FIVE) for thing in THINGS[1:] for one in FOUR),
        *((f"Who gave the {thing}?", FIVE) for thing in THINGS[1:]),
        *((f"Who received the {thing}?", FIVE) for thing in THINGS[1:]),
        *((f"Who did {one} give the {thing} to?", FIVE) for thing in THINGS[1:] for one in FOUR),
    ],
    6: [("Is John in the park?", ["yes", "no"])],
    7: [("How many objects is John carrying?", ["none", "one", "two", "three", "four", "five", "six"])],
    8: [
        (
            "What is John carrying?",
            [*THINGS, *map(",".join, permutations(THINGS[1:], 2)), *map(",".join, permutations(THINGS[1:5], 3))],
        )
    ],
    9: [("Is John in the park?", ["yes", "no"])],
    10: [
        (f"Is {name} in the {place}?", ["yes", "no", "maybe"])
        for name in FIVE
        for place in [*PLACES, "school", "cinema"]
    ],
    11: [("Where is Mary?", PLACES)],
    12: [("Where is Mary?", PLACES)],
    13: [("Where is Mary?", PLACES)],
    14: [("Where was Mary before the park?", ["cinema", "bedroom", "kitchen", "school", "office", "park"])],
    15: [(f"What is {name} afraid of?", ANIMALS) for name in ("gertrude", "winona", "jessica", "emily")],
    16: [("What color is Greg?", ["gray", "white", "yellow", "green", "red", "blue", "pink"])],
    17: [
        (f"Is the {one} {where} the {other}?", ["yes", "no"])
        for one in ("pink rectangle", "red sphere", "triangle")
        for other in ("red square", "blue square")
        for where in ("to the left of", "to the right of", "above", "below")
    ],
    18: [("Does the box fit in the chest?", ["yes", "no"])],
    19: [
        (f"How do you go from the {one} to the {other}?", [" ".join(way) for way in product(SIDES, repeat=2)])
        for one in PLACES
        for other in PLACES
    ],
    20: [
        ("Why did Sumit go to the garden?", ["hungry", "thirsty", "bored", "tired"]),
        ("Where will Sumit go?", PLACES),
        ("What will Sumit get?", THINGS),
    ],
}


def says_nonsense(task, question, target):
    """Where the original says something else than the answer: see babi.py."""
    return (
        (task == 4)
        or (task == 5 and question.startswith(("What did", "Who did")))
        or (task == 8 and target.count(",") == 2)
        or (task == 10 and target == "maybe")
    )


@pytest.mark.skipif(
    not TASKS.is_dir(), reason="`make test-a-vert AVERT=...` names no checkout of the original's repository"
)
@pytest.mark.parametrize("task", ASKED)
def test_all_targets_of_babi(task, monkeypatch):
    for name, value in {
        "MODEL_ENDPOINT": "http://x",
        "ENDPOINT_TYPE": "tei",
        "METHOD": "rerank",
        "PROMPT_TEMPLATE": "empty",
    }.items():
        monkeypatch.setenv(f"AVERT_{name}", value)
    theirs = runpy.run_path(str(TASKS / "babi_tasks/chat_zero-shot_a-vert/utils.py"))["get_babi_options"]
    compared = 0
    for question, targets in ASKED[task]:
        for target in targets:
            right, wrong = theirs(target, question, task)
            assert babi_targets(task, question, target, compat=True) == (right, wrong)
            compared += 1
            ours = babi_targets(task, question, target)
            if not says_nonsense(task, question, target):
                assert ours == (right, wrong)
            elif task in (4, 5):
                # The same but for the sentences that say it.
                other = [
                    (our, their)
                    for our, their in zip([*ours[0], *ours[1]], [*right, *wrong], strict=True)
                    if our != their
                ]
                assert all("nothing" in their for _, their in other) or question.startswith("Who did")
    assert compared >= len(ASKED[task])
