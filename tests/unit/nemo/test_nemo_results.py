import json
import os

import pytest
import yaml

from milepost.errors import HarnessError
from milepost.nemo import results as nemo_results


def entry(value, stderr=None):
    return {"value": value, "stats": {"stderr": stderr} if stderr is not None else None}


def results(tmp_path, tasks=None, groups=None):
    """A results.yml with tasks and groups as {name: {metric: {score: entry}}}."""

    def spread(source):
        return {
            name: {"metrics": {metric: {"scores": scores} for metric, scores in metrics.items()}}
            for name, metrics in source.items()
        }

    content = {"results": {"tasks": spread(tasks or {}), "groups": spread(groups or {})}}
    (tmp_path / "results.yml").write_text(yaml.safe_dump(content))
    return nemo_results.read_metrics(tmp_path)


ACC = {"acc": {"acc": entry(0.5, 0.1)}}


@pytest.mark.parametrize(
    ("tasks", "groups", "numbers"),
    [
        ({"a": ACC}, {}, {"acc": (0.5, 0.1), "a/acc": (0.5, 0.1)}),
        # lm-eval puts a single task under the groups, too.
        ({"a": ACC}, {"a": ACC}, {"acc": (0.5, 0.1), "a/acc": (0.5, 0.1)}),
        (
            {"a": {"acc": {"acc": entry(0.2)}}, "b": ACC},
            {"g": {"acc": {"acc": entry(0.4, 0.05)}}},
            {"acc": (0.4, 0.05), "a/acc": (0.2, None), "b/acc": (0.5, 0.1), "g/acc": (0.4, 0.05)},
        ),
        ({"a": ACC, "b": ACC}, {}, {"a/acc": (0.5, 0.1), "b/acc": (0.5, 0.1)}),
        ({"a": {"ifeval": {"strict": entry(1), "loose": entry(2, 0)}}}, {}, {"ifeval.strict": (1, None), "ifeval.loose": (2, 0), "a/ifeval.strict": (1, None), "a/ifeval.loose": (2, 0)}),
        ({"a": {"acc": {"acc": entry(0.5, "N/A")}}}, {}, {"acc": (0.5, "N/A"), "a/acc": (0.5, "N/A")}),
        ({}, {"g": ACC}, {"acc": (0.5, 0.1), "g/acc": (0.5, 0.1)}),
    ],
)  # fmt: skip
def test_numbers_of_a_run(tmp_path, tasks, groups, numbers):
    found = results(tmp_path, tasks, groups)
    assert {name: (number["value"], number["stderr"]) for name, number in found.items()} == numbers


@pytest.mark.parametrize(
    "content",
    [None, "", "results:", "results: []", "results: {tasks: [a]}", "results: {tasks: {a: null}}", "results: {tasks: {a: {metrics: {m: 1}}}}",
     "results: {tasks: {a: {metrics: {m: {scores: {m: 1}}}}}}", "a: [", "other: {}", b"\xff\xfe\x00"],
)  # fmt: skip
def test_results_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "results.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HarnessError, match=r"results.yml cannot be read as results of NeMo Evaluator"):
        nemo_results.read_metrics(tmp_path)


@pytest.mark.parametrize(
    "content", ["results: {}", "results: {tasks: {}, groups: null}", "results: {tasks: {a: {metrics: {}}}}"]
)
def test_results_without_a_number(tmp_path, content):
    (tmp_path / "results.yml").write_text(content)
    with pytest.raises(HarnessError, match="holds no number: the harness scored nothing"):
        nemo_results.read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("names", "metric", "found"),
    [
        (["exact_match", "a/exact_match"], "exact_match", "exact_match"),
        (["exact_match__strict", "a/exact_match__strict"], "exact_match", "exact_match__strict"),
        (["exact_match__strict", "exact_match__flexible"], "exact_match__flexible", "exact_match__flexible"),
        (["a/acc", "b/acc"], "b/acc", "b/acc"),
        (["ifeval.strict"], "ifeval.strict", "ifeval.strict"),
    ],
)
def test_the_headline_metric_is_found_with_or_without_its_filter(names, metric, found):
    assert nemo_results.find_metric({name: {} for name in names}, metric, "here") == found


@pytest.mark.parametrize(
    ("names", "metric", "words"),
    [
        (["acc", "acc_norm"], "acc_nrm", "The results of here hold no metric 'acc_nrm'. They hold: acc, acc_norm. Did you mean 'acc_norm'?"),
        (["em__strict", "em__flexible"], "em", "They hold: em__flexible, em__strict."),
        (["a/acc", "b/acc"], "acc", "They hold: a/acc, b/acc."),
    ],
)  # fmt: skip
def test_a_missing_metric_says_what_there_is(names, metric, words):
    with pytest.raises(HarnessError) as caught:
        nemo_results.find_metric({name: {} for name in names}, metric, "here")
    assert words in str(caught.value)
    assert "Correct 'metric' in the task's file; nothing is asked again for it." in str(caught.value)


def write_samples(folder, name, records, when=1.0):
    path = folder / "model" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    os.utime(path, (when, when))
    return path


def sample(number, value, said="text", **fields):
    return {
        "doc_id": number,
        "resps": [[said]],
        "filter": "none",
        "exact_match": value,
        "metrics": ["exact_match"],
        **fields,
    }


def test_the_newest_samples_of_each_task_count(tmp_path):
    write_samples(tmp_path, "samples_a_2026-01-02T00-00-00.000001.jsonl", [], when=5)
    newest = write_samples(tmp_path, "samples_a_2026-01-01T00-00-00.000001.jsonl", [], when=9)
    other = write_samples(tmp_path, "samples_a_b_2026-01-01T00-00-00.000001.jsonl", [], when=1)
    assert nemo_results.newest_samples(tmp_path) == sorted([newest, other])
    assert nemo_results.sample_task(other) == "a_b"
    assert nemo_results.newest_samples(tmp_path / "nowhere") == []


def test_samples_become_scores_and_answers(tmp_path):
    records = [
        sample(0, 1.0, "said"),
        sample(1, False),
        sample(2, [1, 2]),
        sample(3, 0.5, [-3.2, True]),
        {"doc_id": 4, "resps": []},
        {"doc_id": 5, "exact_match": 1},
    ]
    write_samples(tmp_path, "samples_colours_2026-01-01T00-00-00.000001.jsonl", records)
    pairs = list(nemo_results.read_samples(tmp_path, 3, "exact_match"))
    assert [(score["id"], score["sample"], score["score"]) for score, _ in pairs] == [
        ("0", 3, 1.0), ("1", 3, 0.0), ("2", 3, None), ("3", 3, 0.5), ("5", 3, 1.0),
    ]  # fmt: skip
    assert [answer.get("content") for _, answer in pairs] == ["said", "text", "text", None, None]
    assert pairs[0][0]["metrics"] == {"exact_match": 1.0}


def test_only_the_metrics_own_filter_counts(tmp_path):
    records = [sample(0, value, filter=name) for name, value in (("strict", 0.0), ("flexible", 1.0))]
    write_samples(tmp_path, "samples_a_2026-01-01T00-00-00.000001.jsonl", records)
    assert [score["score"] for score, _ in nemo_results.read_samples(tmp_path, 0, "exact_match__flexible")] == [1.0]
    assert list(nemo_results.read_samples(tmp_path, 0, "exact_match__none")) == []
    assert list(nemo_results.read_samples(tmp_path, 0, "acc")) == []


def test_items_of_several_tasks_are_told_apart(tmp_path):
    for name in ("a", "b"):
        write_samples(tmp_path, f"samples_{name}_2026-01-01T00-00-00.000001.jsonl", [sample(0, 1.0)])
    assert [score["id"] for score, _ in nemo_results.read_samples(tmp_path, 0, "exact_match")] == ["a/0", "b/0"]


@pytest.mark.parametrize(
    ("content", "truncated", "tokens"),
    [
        ({"response_stats": {"finish_reason": {"stop": 3, "length": 1}, "avg_completion_tokens": 7.5}}, 0.25, 7.5),
        ({"response_stats": {"finish_reason": {"stop": 3}}}, 0.0, None),
        ({"response_stats": {"finish_reason": {}}}, None, None),
        ({"response_stats": {"finish_reason": []}}, None, None),
        ({"response_stats": None}, None, None),
        ({}, None, None),
        ("{", None, None),
        (None, None, None),
    ],
)
def test_tokens_and_truncation_come_from_the_adapter(tmp_path, content, truncated, tokens):
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        (tmp_path / "eval_factory_metrics.json").write_text(text)
    assert nemo_results.token_statistics(tmp_path) == {"truncated": truncated, "mean_tokens": tokens}
