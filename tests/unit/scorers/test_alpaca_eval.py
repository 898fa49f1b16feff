import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from judged_tasks import answer_to, judges, make_scorer, scored

from milepost.errors import ConfigError
from milepost.scorers.alpaca_eval import Scorer
from milepost.statistics.adjusted import Gamed, equal_length_rate
from milepost.tasks.judged import alpaca_eval_item

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((FOLDER / "alpaca_eval.json").read_text())
GAMED = FOLDER / "synthetic_df_gamed.csv"
FIRST, SECOND = "baseline first", "model first"


def item(number, dataset="koala"):
    return {**alpaca_eval_item({"instruction": f"Do {number}.", "dataset": dataset}), "id": str(number)}


def write_baseline(folder, items, name="baseline.json"):
    rows = [{"instruction": one["messages"][0]["content"], "output": "The baseline's."} for one in items]
    (folder / name).write_text(json.dumps(rows))
    return str(folder / name)


def test_win_rates_and_intervals_of_the_framework(tmp_path):
    items = [item(n, dataset) for n, (dataset, *_) in enumerate(GOLDEN["games"], 1)]
    scorer = make_scorer("alpaca_eval", "a", baseline=write_baseline(tmp_path, items), bootstrap=2, compat=True)
    # m always stands first.
    share = {"m": 1.0, "M": 0.0, "tie": 0.5, None: None}
    said = {
        one["id"]: {"a": {FIRST: share[first], SECOND: share[second]}}
        for one, (_, first, second) in zip(items, GOLDEN["games"], strict=True)
    }
    numbers = scorer.reduce(items, scored(scorer, items, said))
    theirs = GOLDEN["framework"]
    for name, expected in {"": theirs["overall"], **theirs["by_dataset"]}.items():
        found = numbers[f"win_rate_{name}" if name else "win_rate"]
        assert found["value"] == pytest.approx(expected["winrate"], abs=1e-12)
        assert found["ci95"] == pytest.approx((expected["ci_lower"], expected["ci_upper"]), abs=1e-12)


@pytest.fixture(scope="module")
def gamed():
    """The gamed set and the difficulty of each instruction."""
    rows = list(csv.DictReader(GAMED.open()))
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    theirs = Gamed(*(np.array([float(row[name]) for row in rows]) for name in columns))
    return theirs, {int(row["index"]): float(row["instruction_difficulty"]) for row in rows}


@pytest.mark.parametrize("model", GOLDEN["length_controlled"])
@pytest.mark.parametrize("form", ["v1", "noreg", "minimal"])
def test_length_control_of_the_original(gamed, model, form):
    run = GOLDEN["length_controlled"][model]
    preferences = np.array([(value or 1.5) - 1 for value in run["preference"]])
    deltas = np.array(run["len_1"], float) - np.array(run["len_2"], float)
    difficulty = np.array([gamed[1][n] for n in range(len(preferences))])
    found = equal_length_rate(preferences, deltas, form=form, difficulty=difficulty, gamed=gamed[0])
    expected = run["original"][f"length_controlled_{form}"]
    assert 100 * found == pytest.approx(expected["length_controlled_winrate"], abs=1e-9)


@pytest.mark.parametrize("model", GOLDEN["length_controlled"])
def test_the_row_of_the_leaderboard(tmp_path, model):
    """From the published annotations: how probable the judge found the model's answer, whose text is as long as it was."""
    run = GOLDEN["length_controlled"][model]
    items = [item(n) for n in range(1, 1 + len(run["preference"]))]
    scorer = make_scorer("alpaca_eval", "a", baseline=write_baseline(tmp_path, items), gamed=str(GAMED), bootstrap=2)
    scorer.check(items)
    said, scores = {}, []
    for one, value in zip(items, run["preference"], strict=True):
        ((name, game),) = scorer._games(one["id"]).items()
        for_model = (value or 1.5) - 1
        said[one["id"]] = {"a": {name: for_model if game.model_first else 1 - for_model}}
    scores = scored(scorer, items, said)
    for score, first, second in zip(scores, run["len_1"], run["len_2"], strict=True):
        score["metrics"]["more_characters"] = float(second - first)
    numbers = scorer.reduce(items, scores)
    published = run.get("published") or run["original"]["length_controlled_v1"]
    assert 100 * numbers["win_rate"]["value"] == pytest.approx(published["win_rate"], abs=1e-9)
    assert 100 * numbers["win_rate"]["stderr"] == pytest.approx(published["standard_error"], abs=1e-9)
    values = [score["metrics"]["win_rate"] for score in scores]
    draws = sum(value == 0.5 for value in values)
    wins = sum(value > 0.5 for value in values)
    assert (wins, draws, len(values)) == (published["n_wins"], published["n_draws"], published["n_total"])
    original = run["original"]["length_controlled_v1"]
    assert 100 * numbers["discrete_win_rate"]["value"] == pytest.approx(original["discrete_win_rate"], abs=1e-9)
    assert 100 * numbers["length_controlled"]["value"] == pytest.approx(original["length_controlled_winrate"], abs=1e-9)


def test_each_number_moves_with_its_own_verdicts_only(tmp_path):
    items = [item(1), item(2, "oasst"), item(3, "oasst")]
    scorer = make_scorer("alpaca_eval", "a", baseline=write_baseline(tmp_path, items), bootstrap=2)
    ((name, _),) = scorer._games("1").items()
    said = {one["id"]: {"a": {next(iter(scorer._games(one["id"]))): 0.7}} for one in items}
    before = scorer.reduce(items, scored(scorer, items, said))
    after = scorer.reduce(items, scored(scorer, items, {**said, "1": {"a": {name: 0.8}}}))
    moved = {key for key in before if before[key]["value"] != after[key]["value"]}
    assert moved == {"win_rate", "win_rate_koala", "first_side"}
    # Too few for a fit over five splits.
    assert before["length_controlled"]["value"] is None


def test_the_error_of_length_control_is_one_over_prompts():
    drawing = np.random.default_rng(1)
    n = 60
    deltas = drawing.normal(size=n)
    preferences = 1 / (1 + np.exp(-(0.5 - deltas + drawing.normal(size=n))))
    rows = [
        {
            "id": str(k),
            "sample": 0,
            "score": p,
            "metrics": {"win_rate": p, "more_characters": -d},
            "judged": {"a": [{"about": SECOND, "value": p}]},
        }
        for k, (p, d) in enumerate(zip(preferences, deltas, strict=True))
    ]
    scorer = make_scorer("alpaca_eval", "a", bootstrap=20)
    items = [item(k) for k in range(n)]
    scorer._games = lambda _: {SECOND: type("Game", (), {"model_first": True})()}
    found = scorer.reduce(items, rows)["length_controlled"]
    # Of predictions that are all the same, the original's standard error is 0.
    assert 0.01 < found["stderr"] < 0.1
    assert found["ci95"][0] < found["value"] < found["ci95"][1]


def test_the_judge_is_asked_for_log_probabilities_and_read_by_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [item(n) for n in range(1, 7)]

    def reply(chat):
        """The baseline is better by 3 to 1, wherever it stands; no letter for the last item."""
        text = chat[1]["content"]
        if "Do 6." in text:
            return "I'm not sure"
        first = text.index("The baseline's.") < text.index("Mine.")
        tops = [
            {"token": "m", "logprob": math.log(0.75 if first else 0.25)},
            {"token": "M", "logprob": math.log(0.25 if first else 0.75)},
        ]
        letter = "m" if first else "M"
        return {
            "message": {"content": letter},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": letter, "logprob": 0.0, "top_logprobs": tops}]},
        }

    with judges(a=reply) as servers:
        scorer = make_scorer("alpaca_eval", "a", baseline=write_baseline(tmp_path, items), bootstrap=2)
        scores = list(scorer.score(items, [answer_to(one, "Mine.") for one in items]))
    assert [score["score"] for score in scores] == [pytest.approx(0.25)] * 5 + [None]
    assert {round(score["metrics"]["first_side"], 9) for score in scores[:5]} == {0.25, 0.75}
    assert all((body["logprobs"], body["top_logprobs"]) == (True, 5) for body in servers["a"].asked)
    # One game each, and three more questions about what could not be read.
    assert len(servers["a"].asked) == 9
    assert "judged by gpt-4-1106-preview, these by a" in scorer.provenance()["not_comparable"]
    assert scores[0]["metrics"]["more_characters"] == len("Mine.") - len("The baseline's.")
    other = make_scorer("alpaca_eval", "a", baseline=str(tmp_path / "baseline.json"), seed=5)
    assert [list(scorer._games(i)) for i in "123456"] != [list(other._games(i)) for i in "123456"]


def test_what_is_missing_is_said_before_anything_is_asked(tmp_path):
    with pytest.raises(ConfigError, match="length_control: v1.*needs the benchmark's gamed set"):
        make_scorer("alpaca_eval", "a", length_control="v1")
    strangers = [item(n) for n in (1, 9999)]
    with pytest.raises(ConfigError, match="no difficulty of item '9999'"):
        make_scorer("alpaca_eval", "a", baseline=write_baseline(tmp_path, strangers), gamed=str(GAMED)).check(strangers)
    with pytest.raises(ConfigError, match="no answer to any of the 2 items"):
        make_scorer("alpaca_eval", "a", baseline=write_baseline(tmp_path, [item(7)])).check(strangers)
    (tmp_path / "bad.csv").write_text("index,preference\n1,x\n")
    with pytest.raises(ConfigError, match=r"gamed set .*bad.csv cannot be read"):
        make_scorer(
            "alpaca_eval", "a", baseline=write_baseline(tmp_path, strangers), gamed=str(tmp_path / "bad.csv")
        ).check(strangers)
    with pytest.raises(ConfigError, match="names 'c', which is none of its judges: a, b"):
        make_scorer("alpaca_eval", "a", "b", ensemble=["c"])
    assert Scorer.own_metrics[0].name == "win_rate"
