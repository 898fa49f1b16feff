import pytest

from milepost.errors import RecordError
from milepost.records import PromptSet
from milepost.statistics.intervals import UNIT
from milepost.statistics.means import mean_estimate
from milepost.statistics.metrics import Metric, clusters_of
from milepost.statistics.outcomes import is_truncated
from milepost.statistics.summary import reasoning_of, summarize


def prompts(n=3, samples=1, **header):
    head = {"task": "sums", "kind": "native", "version": 2, "generation": 1, "samples": samples, "sampling": {}}
    return PromptSet({**head, **header}, [{"id": f"i{number}"} for number in range(n)])


def answer(item, sample=0, content="4", **more):
    return {"id": item, "sample": sample, "content": content, "finish_reason": "stop", **more}


def failed(item, sample=0):
    return {"id": item, "sample": sample, "error": {"type": "context", "message": "too long"}}


def score(item, value, sample=0, **more):
    return {"id": item, "sample": sample, "score": value, "metrics": {"accuracy": value}, **more}


def run(prompt_set, answers, scores):
    return summarize(
        "step-1",
        prompt_set,
        answers,
        scores,
        scorer="match",
        metric="accuracy",
        provenance={"git": "abc"},
        metrics=[Metric("accuracy")],
    )


def test_samples_are_averaged_within_their_item_first():
    answers = [answer("i0", 0), answer("i0", 1), answer("i0", 2), answer("i1", 0)]
    scores = [score("i0", 1.0, 0), score("i0", 1.0, 1), score("i0", 0.0, 2), score("i1", 0.0, 0)]
    found = run(prompts(2, samples=3), answers, scores)
    assert found["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert {name: found[name] for name in ("value", "stderr", "ci95")} == mean_estimate([2 / 3, 0.0], bounds=UNIT)
    assert (found["n_items"], found["n_samples"]) == (2, 4)
    assert found["provenance"] == {"git": "abc", "expected": {"items": 2, "samples": 6}}
    assert found["variance"]["decoding"] > 0


def test_a_summary_says_what_would_narrow_its_interval():
    keys = [(f"i{item}", sample) for item in range(4) for sample in range(2)]
    found = run(
        prompts(4, samples=2),
        [answer(*key) for key in keys],
        [score(item, float(item == "i0" or sample), sample) for item, sample in keys],
    )
    # Three items of four are answered now so, now so: more than all of the variance is decoding's.
    assert found["advice"] == ("4 more samples per item would narrow the interval by 42 %, 100 more items by 80 %.")
    assert "advice" not in run(prompts(1), [failed("i0")], [score("i0", None)])


NO_RATES = dict.fromkeys(
    ("truncated", "empty", "unreadable", "failed", "refused", "filtered", "reasoning_only", "tool_calls", "identical"),
    0.0,
)


def test_what_cannot_be_scored_is_counted_and_never_zero():
    answers = [answer("i0"), failed("i1"), answer("i2", content="?"), answer("i3", content=" \n")]
    scores = [score("i0", 1.0), score("i1", None), score("i2", None), score("i3", None)]
    found = run(prompts(4), answers, scores)
    assert found["value"] == 1.0
    assert (found["n_items"], found["n_samples"], found["n_errors"], found["n_unscored"]) == (1, 1, 1, 2)
    assert found["rates"] == {**NO_RATES, "empty": 0.25, "unreadable": 0.5, "failed": 0.25}


def test_nothing_readable_is_null():
    found = run(prompts(1), [failed("i0")], [score("i0", None)])
    assert (found["value"], found["stderr"], found["ci95"], found["mean_tokens"]) == (None, None, None, None)
    assert found["metrics"] == {"accuracy": {"value": None, "stderr": None, "ci95": None}}


def test_no_answer_at_all():
    found = run(prompts(2), [], [])
    assert (found["value"], found["n_samples"]) == (None, 0)
    assert found["rates"] == NO_RATES


@pytest.mark.parametrize(
    ("content", "finish_reason", "expected"),
    [
        ("4", "stop", False),
        ("4", "length", True),
        ("<think>so", "stop", True),
        ("<think>so</think>4", "stop", False),
        ("so</think>4", None, False),
        ("<think>a</think>4<think>b", "stop", True),
        (None, "stop", False),
    ],
)
def test_truncated(content, finish_reason, expected):
    assert is_truncated(answer("i0", content=content, finish_reason=finish_reason)) is expected


def test_every_metric_has_an_estimate_and_chance_is_one_of_them():
    metrics = [{"accuracy": 1.0, "loose": 1.0, "chance": 0.25}, {"accuracy": 0.0, "loose": None, "chance": 0.5}]
    scores = [{"id": f"i{n}", "sample": 0, "score": m["accuracy"], "metrics": m} for n, m in enumerate(metrics)]
    found = run(prompts(2), [answer("i0"), answer("i1")], scores)
    assert list(found["metrics"]) == ["accuracy", "chance", "loose"]
    assert found["metrics"]["loose"] == {"value": 1.0, "stderr": None, "ci95": None}
    assert found["chance"] == 0.375


def test_no_chance_without_such_a_metric():
    assert "chance" not in run(prompts(1), [answer("i0")], [score("i0", 1.0)])


def test_partial_and_tokens():
    answers = [answer("i0", usage={"prompt_tokens": 9, "completion_tokens": 2}), answer("i1")]
    found = run(prompts(2, partial={"limit": 2, "of": 9}), answers, [score("i0", 1.0), score("i1", 0.0)])
    assert found["partial"] == {"limit": 2, "of": 9}
    assert found["mean_tokens"] == 2


def test_clusters_widen_the_interval_and_few_are_said(caplog):
    values = [1.0, 1.0, 0.0, 0.0]
    answers = [answer(f"i{n}") for n in range(4)]
    scores = [score(f"i{n}", value, cluster="ab"[n // 2]) for n, value in enumerate(values)]
    found = run(prompts(4), answers, scores)
    assert found["stderr"] == pytest.approx(0.5)
    assert found["provenance"]["clusters"] == 2
    assert "2 clusters only" in caplog.text


def test_an_item_is_in_one_cluster():
    with pytest.raises(RecordError, match="'i0' is in the clusters 'a' and 'b'"):
        clusters_of([score("i0", 1.0, cluster="a"), score("i0", 1.0, sample=1, cluster="b")])


@pytest.mark.parametrize(
    ("answers", "scores", "message"),
    [
        ([answer("i0")], [], "do not follow the answers"),
        ([answer("i0")], [score("i0", 1.0, sample=1)], "do not follow the answers"),
        ([answer("zz")], [score("zz", 1.0)], "not among the prompts"),
        ([failed("i0")], [score("i0", 0.0)], "must give a failed answer null"),
    ],
)
def test_what_does_not_belong_together_is_an_error(answers, scores, message):
    with pytest.raises(RecordError, match=message):
        run(prompts(1), answers, scores)


def test_samples_are_runs_and_a_missing_run_is_named():
    answers = [answer(item, sample) for item in ("i0", "i1") for sample in range(3)]
    scores = [score("i0", 1.0, 0), score("i0", 0.0, 1), score("i0", None, 2)]
    scores += [score("i1", 1.0, 0), score("i1", 1.0, 1), score("i1", None, 2)]
    runs = run(prompts(2, samples=3), answers, scores)["runs"]
    assert runs == {
        "mean": 0.75, "std": pytest.approx(0.125**0.5), "sem": pytest.approx(0.25), "n": 2,
        "per_run": [1.0, 0.5, None], "missing": [2],
    }  # fmt: skip


def test_a_single_run_has_no_spread():
    runs = run(prompts(2), [answer("i0"), answer("i1")], [score("i0", 1.0), score("i1", 0.0)])["runs"]
    assert runs == {"mean": 0.5, "std": None, "sem": None, "n": 1, "per_run": [0.5]}


def test_reasoning_is_counted_apart():
    usage = {"prompt_tokens": 1, "completion_tokens": 40}
    answers = [
        {"id": "a", "sample": 0, "content": "<think>so</think>It", "usage": usage},
        {"id": "a", "sample": 1, "content": "", "reasoning": "so on", "reasoning_cut": True, "usage": usage},
        {"id": "a", "sample": 2, "content": "It", "usage": usage},
        {"id": "a", "sample": 3, "error": {"type": "context", "message": "x"}},
    ]
    assert reasoning_of(answers) == {"cut": 1 / 3, "mean_tokens": 20.0, "mean_tokens_cut": 40.0}
    assert reasoning_of(answers[2:]) is None
