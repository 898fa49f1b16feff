import json
import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from judged_tasks import answer_to, judges, make_scorer, scored

from milepost.errors import ConfigError
from milepost.judges.readers import PREFERENCES
from milepost.records import PromptSet
from milepost.scorers.arena_hard import GAMES, Style, style_difference, style_of
from milepost.statistics.adjusted import equal_style_fit, equal_style_rate
from milepost.statistics.summary import summarize
from milepost.tasks.judged import arena_hard_item

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((FOLDER / "arena_hard.json").read_text())
STYLE = json.loads((FOLDER / "arena_hard_style_control.json").read_text())
HARD, CREATIVE = "hard_prompt", "creative_writing"


def item(uid, category=HARD):
    return arena_hard_item({"uid": uid, "category": category, "prompt": f"Prompt {uid}"})


def write_baseline(folder, items, name="baseline.jsonl", answer="The baseline's."):
    rows = [{"uid": one["id"], "messages": [{"role": "assistant", "content": {"answer": answer}}]} for one in items]
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder / name)


def both(first, second):
    return dict(zip(GAMES, (first, second), strict=True))


@pytest.fixture
def golden(tmp_path):
    """Makes items, scorer and scores of the golden games; a label that is none is no verdict."""

    def make(**options):
        items = [item(uid, category) for uid, category, *_ in GOLDEN["games"]]
        scorer = make_scorer(
            "arena_hard", "a", baselines={"default": write_baseline(tmp_path, items)}, bootstrap=10, **options
        )
        labels = {
            uid: {"a": both(*(label if label in PREFERENCES else None for label in said))}
            for uid, _, *said in GOLDEN["games"]
        }
        return items, scorer, scored(scorer, items, labels)

    return make


@pytest.mark.parametrize(("strong", "name"), [(1, "weight1"), (3, "weight3")])
def test_win_rates_of_the_framework_and_of_the_benchmark(golden, strong, name):
    items, scorer, scores = golden(strong=strong, compat=True)
    numbers = scorer.reduce(items, scores)
    theirs = GOLDEN["framework"][name]
    for category, expected in {**theirs["by_category"], "pooled": theirs["overall"]}.items():
        found = numbers[f"win_rate_{category}"]
        assert found["value"] == pytest.approx(expected["winrate"], abs=1e-12)
        assert found["ci95"] == pytest.approx((expected["ci_lower"], expected["ci_upper"]), abs=1e-12)
    if strong == 3:
        for category, expected in GOLDEN["upstream"].items():
            assert numbers[f"win_rate_{category}"]["value"] == pytest.approx(expected["plain_mean"], abs=1e-12)
        # What the intervals should be: over prompts, they are wider.
        items, scorer, scores = golden()
        ours = scorer.reduce(items, scores)
        low, high = ours["win_rate_hard_prompt"]["ci95"]
        assert high - low > theirs["by_category"][HARD]["ci_upper"] - theirs["by_category"][HARD]["ci_lower"]
        assert "win_rate_pooled" not in ours
        assert ours["win_rate"]["value"] == pytest.approx(
            (GOLDEN["upstream"][HARD]["plain_mean"] + GOLDEN["upstream"][CREATIVE]["plain_mean"]) / 2, abs=1e-12
        )


def golden_rows():
    features = [
        style_difference(*(Style(*counts) for counts in STYLE["styles"][uid])) for uid, _ in STYLE["uids_scores"]
    ]
    return np.array([outcome for _, outcome in STYLE["uids_scores"]]), np.array(features)


def unfinished(design, outcomes, rate=0.1, rounds=50):
    """The original's optimiser, which takes fifty short steps and then stops wherever it is: L-BFGS without line search."""
    found, history = np.full(design.shape[1], 0.5), []

    def gradient():
        return design.T @ (1 / (1 + np.exp(-design @ found)) - outcomes)

    slope = gradient()
    direction, step, scale = -slope, min(1.0, 1 / np.abs(slope).sum()) * rate, 1.0
    for n in range(rounds):
        if n:
            new = gradient()
            moved, turned = direction * step, new - slope
            history.append((moved, turned))
            scale, slope = (turned @ moved) / (turned @ turned), new
            left, kept = -slope, []
            for s, y in reversed(history):
                kept.append((s @ left) / (y @ s))
                left = left - kept[-1] * y
            direction = left * scale
            for (s, y), a in zip(history, reversed(kept), strict=True):
                direction = direction + s * (a - (y @ direction) / (y @ s))
            step = rate
        found = found + step * direction
    return found


def test_style_control_of_the_original_and_where_its_fit_would_have_ended():
    outcomes, features = golden_rows()
    standard = (features - features.mean(axis=0)) / features.std(axis=0, ddof=1)
    ones = np.ones((len(outcomes), 1))
    stopped = unfinished(np.hstack([ones, -ones, standard]), outcomes)
    assert stopped == pytest.approx(STYLE["coefs"], abs=2e-6)
    ours = equal_style_fit(outcomes, features)
    assert ours[1:] == pytest.approx(STYLE["coefs"][2:], abs=3e-3)
    design = np.hstack([ones, standard])
    assert ours == pytest.approx(sm.Logit(outcomes, design).fit(disp=False).params, abs=1e-9)
    assert design.T @ (1 / (1 + np.exp(-design @ ours)) - outcomes) == pytest.approx(np.zeros(5), abs=1e-9)
    assert equal_style_rate(outcomes, features) == pytest.approx(STYLE["winrate_model"], abs=1e-5)
    assert outcomes.mean() == pytest.approx(STYLE["raw_mean"], abs=1e-7)


def test_what_cannot_be_fitted_is_no_number():
    features = np.array([[0.1], [0.2], [0.3]])
    assert math.isnan(equal_style_rate(np.array([1.0, 1.0, 1.0]), features))
    assert math.isnan(equal_style_rate(np.array([0.0, 0.0, 1.0]), features))
    # Answers as long as the baseline's: nothing to control for.
    assert equal_style_rate(np.array([1.0, 0.0, 1.0, 1.0]), np.zeros((4, 2))) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("plain\n\n## Head\n####### none\n#none", (1, 0, 0)),
        ("- a\n  * b\n+ c\n 12. d\n1) e\n-f", (0, 4, 0)),
        ("**a b** and __c__, ** d\n**", (0, 0, 2)),
        ("```\n# code\n- code\n```\n# Head", (1, 0, 0)),
    ],
)
def test_what_style_is_made_of(text, counts):
    assert tuple(style_of(text))[1:] == counts


def test_each_number_moves_with_its_own_verdicts_only(tmp_path):
    items = [item("x"), item("y"), item("z", CREATIVE), item("w", CREATIVE)]
    baselines = {"default": write_baseline(tmp_path, items)}
    labels = {
        "x": {"a": both("B>A", "A>B")},
        "y": {"a": both("A>>B", "A>B")},
        "z": {"a": both("B>A", "A=B")},
        "w": {"a": both("A>B", "A=B")},
    }
    scorer = make_scorer("arena_hard", "a", baselines=baselines, bootstrap=2)
    before = scorer.reduce(items, scored(scorer, items, labels))
    assert before["win_rate_hard_prompt"]["value"] == pytest.approx(3 / 6)
    assert before["win_rate_creative_writing"]["value"] == pytest.approx(1 / 2)
    assert before["win_rate"]["value"] == pytest.approx(1 / 2)

    def moved(uid, *said):
        after = scorer.reduce(items, scored(scorer, items, {**labels, uid: {"a": both(*said)}}))
        return {name for name in before if before[name]["value"] != after[name]["value"]} - {
            name for name in before if name.startswith("style_controlled")
        }

    assert moved("x", "B>>A", "A>B") == {"win_rate", "win_rate_hard_prompt"}
    assert moved("w", "A>B", "B>A") == {"win_rate", "win_rate_creative_writing", "consistent", "first_side"}
    assert moved("z", None, "A=B") == {
        *("win_rate", "win_rate_creative_writing", "consistent", "first_side", "unreadable_verdicts")
    }
    # The sides swapped say the same: only who stands first is another.
    assert moved("y", "A>B", "A>>B") == {"win_rate", "win_rate_hard_prompt"}


def test_an_ensemble_is_the_mean_of_win_rates_on_what_all_could_read(tmp_path):
    items = [item("x"), item("y")]
    labels = {
        "x": {"a": both("B>A", "A>>B"), "b": both("A>B", "A>B")},
        "y": {"a": both("A>B", "B>A"), "b": both(None, "A>B")},
    }
    scorer = make_scorer("arena_hard", "a", "b", baselines={"default": write_baseline(tmp_path, items)}, bootstrap=2)
    scores = scored(scorer, items, labels)
    numbers = {name: estimate["value"] for name, estimate in scorer.reduce(items, scores).items()}
    assert numbers["win_rate"] == pytest.approx((1.0 + 0.5) / 2)
    assert (numbers["win_rate_a"], numbers["win_rate_b"]) == (pytest.approx(4 / 6), 0.5)
    assert numbers["win_rate_hard_prompt_a"] == pytest.approx(4 / 6)
    assert (scores[1]["score"], scores[1]["metrics"]["win_rate_a"]) == (None, 0.0)
    only = make_scorer(
        "arena_hard", "a", "b", ensemble=["a"], baselines={"default": write_baseline(tmp_path, items)}, bootstrap=2
    )
    assert only.reduce(items, scored(only, items, labels))["win_rate"]["value"] == pytest.approx(4 / 6)


def test_both_games_are_asked_and_what_cannot_be_judged_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [item("x"), item("y", CREATIVE), item("none"), item("failed")]
    baselines = {"default": write_baseline(tmp_path, items[:2])}

    def prefers(chat):
        text = chat[1]["content"]
        return f"[[{'A>>B' if text.index('My answer') < text.index('The baseline') else 'B>A'}]]"

    answers = [
        answer_to(items[0], "<think>Hm</think>My answer"),
        answer_to(items[1], "My answer"),
        answer_to(items[2]),
        {"id": "failed", "sample": 0, "error": {"type": "context", "message": "too long"}},
    ]
    with judges(a=prefers) as servers:
        scorer = make_scorer("arena_hard", "a", baselines=baselines, bootstrap=5)
        scores = list(scorer.score(items, answers))
    assert [score["score"] for score in scores] == [1.0, 1.0, None, None]
    assert scores[2]["note"] == "not judged: the baseline of hard_prompt has no answer to it"
    assert (scores[0]["weights"]["win_rate"], scores[0]["metrics"]["first_side"]) == (4.0, 0.5)
    assert [one["value"] for one in scores[0]["judged"]["a"]] == ["B>A", "A>>B"]
    asked = [body["messages"] for body in servers["a"].asked]
    assert len(asked) == 4
    assert sum("write your own answer" in chat[0]["content"] for chat in asked) == 2
    assert all("Hm" not in chat[1]["content"] for chat in asked)
    summary = summarize(
        "c",
        PromptSet({"task": "t", "kind": "native", "version": 1, "generation": 1, "samples": 1, "sampling": {}}, items),
        answers,
        scores,
        scorer=scorer.name,
        metric="win_rate",
        provenance={},
        metrics=scorer.metrics_of(items),
        reduce=lambda some: scorer.reduce(items, some),
    )
    assert (summary["value"], summary["n_unscored"], summary["n_errors"]) == (1.0, 1, 1)
    assert summary["runs"]["per_run"] == [1.0]
    # One side wins all, so nothing can be fitted.
    assert summary["metrics"]["style_controlled"]["value"] is None


def test_a_category_without_a_baseline_and_one_that_answers_nothing(tmp_path):
    with pytest.raises(ConfigError, match="no baseline for the category 'other'"):
        make_scorer("arena_hard", "a").check([item("x", "other")])
    path = write_baseline(tmp_path, [item("y")])
    with pytest.raises(ConfigError, match="No baseline .* any of the 1 items, such as 'x'"):
        make_scorer("arena_hard", "a", baselines={"default": path}).check([item("x")])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"empty.jsonl holds no answer"):
        make_scorer("arena_hard", "a", baselines={HARD: str(tmp_path / "empty.jsonl")}).check([item("x")])
