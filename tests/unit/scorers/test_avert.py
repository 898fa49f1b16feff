import json
import math
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.embedding.embedders import CosineSimilarity
from milepost.errors import ConfigError, RecordError
from milepost.scorers.avert.candidates import candidate_groups
from milepost.scorers.avert.scorer import Scorer, names_only, other_items
from milepost.scorers.avert.verdict import shares_of, verdict_of

GOLDEN = Path(__file__).parents[2] / "golden"
GROUPS = json.loads((GOLDEN / "avert_candidate_groups.json").read_text())
SCORES = json.loads((GOLDEN / "avert_scores.json").read_text())["scores"]

# Rows in which the original raises an error that cannot come up here, or that is a fault:
NOT_APPLICABLE = {
    10: "a group named twice: groups are a mapping",
    11: "options without positions: the positions are what asks for options",
    12: "more than ten options raise: ours take any number (test_any_number_of_options)",
}
# Candidates that differ, by row and group, because the original
# - says nothing of the last option of an analysis that chooses it (1-3: wrong or correct option last),
# - takes the correct option out of its place, to the end, in walks that choose a wrong one (1, 2, 4),
# - writes letters for the symbol of the options, whatever it is (4: romans).
DIFFERENT = {
    1: {"wrong": [15, 16, 17, 18, 19, 20]},
    2: {"wrong": [15, 16, 17, 18, 20]},  # 19: the correct one happens to be the last of the rest
    3: {"correct": [6]},
    4: {"correct": [5, 6], "wrong": [10, 11, 12, 13]},
}
PLACES = ["kitchen", "garden", "office", "hallway", "bathroom", "bedroom"]


def stub(texts):
    """The embedding of the golden files: counts of trigrams, hashed."""
    vectors = []
    for text in texts:
        padded, counts = f"  {text.lower()}  ", [0.0] * 64
        for at in range(len(padded) - 2):
            counts[zlib.crc32(padded[at : at + 3].encode()) % 64] += 1
        vectors.append(counts)
    return vectors


def groups_of(arguments, row):
    texts = {"correct": arguments["correct_group_text"], "wrong": arguments["wrong_group_text"]}
    texts = {
        # The texts of refusals and the like belong to whoever asks for those groups.
        name: texts[name] if name in texts else row["out"][name]
        for name in arguments["target_group_names_list"]
    }
    positions = None
    if arguments.get("with_options"):
        positions = {"correct": arguments["correct_group_idxs"], "wrong": arguments["wrong_group_idxs"]}
    symbols = arguments.get("option_symbol", "letters")
    return candidate_groups(texts, enhance=arguments["enhance"], positions=positions, symbols=symbols)


@pytest.mark.parametrize("number", [n for n in range(len(GROUPS)) if n not in NOT_APPLICABLE])
def test_candidates_as_the_original(number):
    row = GROUPS[number]
    ours, theirs = groups_of(row["args"], row), row["out"]
    assert list(ours) == list(theirs)
    assert {name: len(members) for name, members in ours.items()} == {name: len(m) for name, m in theirs.items()}
    different = {
        name: [at for at, (a, b) in enumerate(zip(ours[name], theirs[name], strict=True)) if a != b] for name in ours
    }
    assert {name: at for name, at in different.items() if at} == DIFFERENT.get(number, {})


def test_walks_keep_order_and_symbol_and_speak_of_every_option():
    groups = groups_of(GROUPS[4]["args"], GROUPS[4])
    assert groups["wrong"][12:] == [
        'The answer is the third one, option "III". "z". Let me explain why:\n'
        '\tOption "I". "y". Is not correct.\n\tOption "II". "x". Is not correct.\n',
        'Analyzing the options:\n\tOption "I". "y". Is not correct.\n\tOption "II". "x". Is not correct.\n'
        '\tOption "III". "z". Is correct.\n\nTherefore, the answer is the third one, option "III". "z"',
    ]


def test_any_number_of_options():
    wrong = [f"o{n}" for n in range(29)]
    positions = {"correct": [29], "wrong": list(range(29))}
    groups = candidate_groups({"correct": ["x"], "wrong": wrong}, positions=positions)
    assert len(groups["wrong"]) == 7 * 29
    assert groups["correct"][3] == 'Therefore, the correct answer is option "AD": "x"'
    assert groups["correct"][6].endswith('Therefore, the answer is the 30th one, option "AD". "x"')
    assert groups["wrong"][-1].endswith('the answer is the 29th one, option "AC". "o28"')


@pytest.mark.parametrize(
    "positions", [{"correct": [0], "wrong": [0]}, {"correct": [0], "wrong": [1, 2]}, {"wrong": [0]}]
)
def test_positions_must_number_the_options(positions):
    with pytest.raises(ConfigError, match=r"[Oo]ptions|positions"):
        candidate_groups({"correct": ["x"], "wrong": ["y"]}, positions=positions)


# Rows that apply: embeddings, no template, the maximum. Others belong to rerankers, templates and other groupings.
APPLICABLE = [r for r in SCORES if (r["method"], r["template"], r["grouping"]) == ("embedding", "empty", "max")]
# The candidates that each case was scored with, ours, and those of them that differ from the original's (see above).
LYON = {
    "correct_group_text": ["Lyon"],
    "wrong_group_text": ["Paris", "Nice", "Lille"],
    "correct_group_idxs": [1],
    "wrong_group_idxs": [0, 2, 3],
}
CASES = {
    0: (groups_of(GROUPS[0]["args"], GROUPS[0]), []),
    3: (groups_of(GROUPS[1]["args"] | LYON, GROUPS[1]), [22, 23, 24, 25, 26, 27]),
    6: (groups_of(GROUPS[3]["args"], GROUPS[3]), [6]),
}


@pytest.mark.parametrize("row", APPLICABLE, ids=lambda r: f"{r['endpoint_type']}-{r['case']}")
def test_scores_as_the_original(row):
    groups, different = CASES[row["case"]]
    texts = [text for members in groups.values() for text in members]
    similarity = CosineSimilarity(stub, [row["response"], *texts])
    cosines = similarity(row["response"], texts)
    same = [at for at in range(len(texts)) if at not in different]
    assert len(cosines) == len(row["all_scores"])
    assert [cosines[at] for at in same] == pytest.approx([row["all_scores"][at] for at in same], abs=1e-9)
    # The highest of each group is none of those that differ: the groups' scores are the original's all the same.
    verdict = verdict_of({name: similarity(row["response"], members) for name, members in groups.items()})
    assert verdict.shares == pytest.approx(row["group_scores"], abs=1e-9)
    assert verdict.match == row["match"]
    assert not verdict.tie


def test_scorer_as_the_original():
    prompt = {"id": "a", "prompt": "?", "target": "kitchen", "choices": ["office", "kitchen", "garden"]}
    answer = {"id": "a", "sample": 0, "content": "Mary is in the kitchen."}
    (score,) = Scorer(embed=stub, reading="whole").score([prompt], [answer])
    expected = next(r for r in APPLICABLE if r["case"] == 0)["group_scores"]
    assert score["score"] == 1
    assert score["metrics"]["avert_correct"] == pytest.approx(expected["correct"], abs=1e-9)
    assert score["metrics"]["avert_wrong"] == pytest.approx(expected["wrong"], abs=1e-9)
    assert score["metrics"]["chance"] is None


cosines = st.floats(-1, 1)


@given(st.dictionaries(st.sampled_from(["correct", "wrong", "refusal"]), cosines, min_size=2))
def test_shares_keep_the_order(scores):
    shares = shares_of(scores)
    assert math.fsum(shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares.values())
    for one in scores:
        for other in scores:
            if scores[one] <= scores[other]:
                assert shares[one] <= shares[other]
    if min(scores.values()) >= 0 and sum(scores.values()) > 1e-6:
        assert shares == pytest.approx({name: score / sum(scores.values()) for name, score in scores.items()})


@pytest.mark.parametrize(
    ("scores", "match", "tie"),
    [
        ({"correct": 0.6, "wrong": 0.4}, True, False),
        ({"correct": 0.4, "wrong": 0.6}, False, False),
        ({"correct": 0.5, "wrong": 0.5}, False, True),
        ({"correct": -0.1, "wrong": -0.3}, True, False),
        ({"correct": -0.3, "wrong": -0.1}, False, False),
        ({"correct": 0.2, "wrong": -0.2}, True, False),
        ({"correct": 0.0, "wrong": 0.0}, False, True),
        ({"correct": 0.6, "wrong": 0.4, "refusal": 0.7}, False, False),
        ({"correct": 0.6, "wrong": 0.4, "refusal": 0.6}, False, True),
        ({"correct": 0.5, "wrong": 0.6, "refusal": 0.6}, False, False),
    ],
)
def test_verdict(scores, match, tie):
    verdict = verdict_of({name: [score, -1.0] for name, score in scores.items()})
    assert (verdict.match, verdict.tie) == (match, tie)


def where(target, **rest):
    return {"id": target, "prompt": "?", "target": target, "choices": PLACES, **rest}


def by_name(texts):
    """A vector per text: which places it names."""
    return [[float(place in text.lower()) for place in PLACES] + [0.1] for text in texts]


def test_metrics_of_the_demo():
    prompts = [where(place) for place in PLACES]
    contents = ["She is in the kitchen.", "Kitchen.", "garden", "In the kitchen, or the garden?", " ", "<think>kitchen"]
    answers = [{"id": "kitchen", "sample": n, "content": content} for n, content in enumerate(contents)]
    answers.append({"id": "garden", "sample": 0, "error": {"type": "server", "message": "500"}})
    scorer = Scorer(extra_wrong=["unknown"], truth="names_target", embed=by_name)
    scores = list(scorer.score(prompts, answers))
    assert all(tuple(score["metrics"]) == scorer.metric_names for score in scores)
    columns = {name: [score["metrics"][name] for score in scores] for name in scorer.metric_names}
    assert columns["avert_match"] == [1, 1, 0, 0, 0, 0, None] == [score["score"] for score in scores]
    assert columns["tie"] == [0, 0, 0, 1, 0, 0, None]
    assert columns["exact_match"] == [0, 1, 0, 0, 0, 0, None]
    assert columns["truth"] == [1, 1, 0, 0, 0, 0, None]
    assert columns["avert_agrees"] == [1, 1, 1, 1, 1, 1, None]
    assert columns["exact_agrees"] == [0, 1, 1, 1, 1, 1, None]
    assert (columns["avert_correct"][4], columns["avert_wrong"][4], columns["chance"][4]) == (0, 1, 0)
    assert "truncated" in scores[5]["note"]


def test_metrics_without_truth_and_chance():
    scorer = Scorer(chance=False, embed=by_name)
    assert scorer.metric_names == (
        *("avert_match", "avert_correct", "avert_wrong", "margin", "tie", "exact_match"),
        "semscore",
    )
    (score,) = scorer.score([where("kitchen")], [{"id": "kitchen", "sample": 0, "content": "kitchen"}])
    assert tuple(score["metrics"]) == scorer.metric_names


def test_chance_is_the_match_with_another_items_key():
    prompts = [where(place) for place in PLACES]
    answers = [{"id": a, "sample": n, "content": b} for a in PLACES for n, b in enumerate(PLACES)]
    scores = list(Scorer(embed=by_name).score(prompts, answers))
    others = other_items({place: [place] for place in PLACES})
    assert [s["metrics"]["chance"] for s in scores] == [float(others[a] == b) for a in PLACES for b in PLACES]


def test_each_distinct_text_is_embedded_once_shortest_first():
    calls = []

    def embed(texts):
        calls.append(list(texts))
        return by_name(texts)

    prompts = [where(place) for place in PLACES]
    answers = [{"id": place, "sample": n, "content": "In the garden."} for place in PLACES for n in range(4)]
    list(Scorer(extra_wrong=["unknown"], embed=embed).score(prompts, answers))
    (texts,) = calls
    assert Counter(texts).most_common(1)[0][1] == 1
    assert len(texts) == 1 + 3 * 7
    assert list(map(len, texts)) == sorted(map(len, texts))


@pytest.mark.parametrize("answers", [[], [{"id": "kitchen", "sample": 0, "content": "<think>"}]])
def test_nothing_to_compare_starts_no_embedder(answers):
    def embed(texts):
        pytest.fail("asked for vectors")

    list(Scorer(embed=embed).score([where("kitchen")], answers))


@pytest.mark.parametrize(
    ("options", "prompt", "error", "message"),
    [
        ({}, {"choices": []}, ConfigError, "no wrong answers.*'kitchen'.*`choices`.*wrong: .*exact_match"),
        ({}, {"choices": ["Kitchen"]}, ConfigError, "no wrong answers"),
        ({"extra_wrong": ["unknown"]}, {"choices": []}, ConfigError, "no wrong answers"),
        ({"wrong": ["kitchen"]}, {}, ConfigError, "no wrong answers"),
        ({}, {"choices": ["office", "garden"]}, RecordError, "not among its choices"),
        ({}, {"target": ""}, RecordError, "has no `target`"),
    ],
)
def test_an_item_that_cannot_be_scored_is_named(options, prompt, error, message):
    with pytest.raises(error, match=message):
        list(Scorer(embed=stub, **options).score([where("kitchen") | prompt], []))


def test_a_target_is_never_a_wrong_answer():
    seen = set()

    def embed(texts):
        seen.update(texts)
        return by_name(texts)

    options = {"wrong": ["no", "Unknown", "no."], "extra_wrong": ["unknown", "maybe"], "enhance": False}
    answer = {"id": "a", "sample": 0, "content": "perhaps"}
    list(Scorer(embed=embed, **options).score([{"id": "a", "prompt": "?", "target": "unknown"}], [answer]))
    assert seen == {"perhaps", "unknown", "no", "maybe"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Mary is in the Room.", True),
        ("the bathroom", False),
        ("the living room", False),
        ("the room, not the hall", False),
        ("nowhere", False),
        ("room or chamber", True),
    ],
)
def test_names_only(text, named):
    assert names_only(text, ["room", "chamber"], ["living room", "hall"]) is named


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_other_items_have_other_targets(targets):
    items = {str(number): [target] for number, target in enumerate(targets)}
    others = other_items(items)
    assert list(others) == list(items)
    assert others == {item: other_items(dict(reversed(items.items())))[item] for item in items}
    for item, other in others.items():
        assert (other is None) == (len(set(targets)) == 1)
        assert other is None or items[other] != items[item]
    if targets and max(Counter(targets).values()) * 2 <= len(targets):
        assert sorted(others.values()) == sorted(items)
