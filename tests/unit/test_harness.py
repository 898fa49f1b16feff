import json

import pytest
import yaml

from milepost.errors import HarnessError
from milepost.harness import summarize_harness

HEADER = {
    "task": "colours", "kind": "nemo", "version": 2, "generation": 1, "samples": 1, "sampling": {},
    "harness": {"eval_type": "h.colours", "endpoint_type": "chat", "params": {}},
}  # fmt: skip


def write_run(folder, number, values, value=None, stderr=0.1, metric="exact_match", said="red", stats=None, others=()):
    """One collected run: results.yml with its number, and samples with these values."""
    run = folder / f"run-{number}"
    run.mkdir(parents=True)
    value = sum(values) / len(values) if value is None else value
    numbers = {metric: value, **dict(others)}
    metrics = {name: {"scores": {name: {"value": one, "stats": {"stderr": stderr}}}} for name, one in numbers.items()}
    (run / "results.yml").write_text(yaml.safe_dump({"results": {"tasks": {"colours": {"metrics": metrics}}}}))
    if values:
        records = [
            {"doc_id": n, "resps": [[said]], "filter": "none", metric.partition("__")[0]: one}
            for n, one in enumerate(values)
        ]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (run / "samples_colours_2026-01-01T00-00-00.000001.jsonl").write_text(text)
    if stats:
        (run / "eval_factory_metrics.json").write_text(json.dumps({"response_stats": stats}))


def summarize(folder, samples=1, metric="exact_match", **header):
    return summarize_harness("c", {**HEADER, "samples": samples, **header}, metric, folder, {"model": "d"})


def test_numbers_are_made_from_the_samples_as_for_our_own_tasks(tmp_path):
    write_run(tmp_path, 0, [1, 0, 1, 1], others=[("f1", 0.9)])
    write_run(tmp_path, 1, [1, 0, 0, 1])
    scores, summary = summarize(tmp_path, samples=2)
    assert [(score["id"], score["sample"], score["score"]) for score in scores[3:5]] == [("3", 0, 1.0), ("0", 1, 1.0)]
    assert (summary["value"], summary["n_items"], summary["n_samples"]) == (0.625, 4, 8)
    assert summary["variance"]["decoding"] is not None
    assert "harness" not in summary
    assert summary["scorer"] == "nemo"
    assert summary["metrics"]["f1"]["value"] == 0.9
    assert summary["metrics"]["exact_match"]["stderr"] == summary["stderr"] != 0.1
    assert (summary["task_version"], summary["provenance"]["model"]) == (2, "d")


@pytest.mark.parametrize("case", ["no samples", "another number", "one run of two", "no value"])
def test_where_the_samples_do_not_reproduce_it_the_harness_own_number_stands_and_is_marked(tmp_path, case):
    write_run(tmp_path, 0, [] if case == "no samples" else [1, 0], value=0.5 if case == "one run of two" else 0.7)
    write_run(tmp_path, 1, [1, 0] if case == "one run of two" else [], value=0.9)
    if case == "no value":
        path = tmp_path / "run-0" / "results.yml"
        path.write_text(path.read_text().replace("0.7", "null"))
    scores, summary = summarize(tmp_path, samples=2)
    assert scores == []
    assert summary["harness"] is True
    expected = {"one run of two": 0.7, "no value": 0.9}.get(case, 0.8)
    assert summary["value"] == pytest.approx(expected)
    assert summary["stderr"] == pytest.approx(0.1), "runs ask the same items: their number does not narrow it"
    assert summary["ci95"] == pytest.approx((expected - 0.196, expected + 0.196), abs=1e-4)
    assert (summary["n_items"], summary["n_samples"]) == (0, 0)


def test_a_standard_error_that_is_none_is_none(tmp_path):
    write_run(tmp_path, 0, [], value=0.7, stderr="N/A")
    _, summary = summarize(tmp_path)
    assert (summary["value"], summary["stderr"], summary["ci95"]) == (0.7, None, None)


@pytest.mark.parametrize("value", ["nan", "text"])
def test_a_number_that_is_none_is_none(tmp_path, value):
    write_run(tmp_path, 0, [], value=float("nan") if value == "nan" else value)
    _, summary = summarize(tmp_path)
    assert summary["value"] is None


@pytest.mark.parametrize("runs", [0, 1, 3])
def test_runs_that_are_too_few_or_too_many(tmp_path, runs):
    for number in range(runs):
        write_run(tmp_path, number, [1])
    with pytest.raises(HarnessError, match=f"holds {runs} runs of 2. Remove it: it is collected anew"):
        summarize(tmp_path, samples=2)


def test_ten_runs_are_in_their_order(tmp_path):
    for number in range(11):
        write_run(tmp_path, number, [number / 10])
    scores, _ = summarize(tmp_path, samples=11)
    assert [score["score"] for score in scores] == [number / 10 for number in range(11)]


def test_a_missing_headline(tmp_path):
    write_run(tmp_path, 0, [1])
    with pytest.raises(HarnessError, match=r"hold no metric 'exact_mtch'.*Did you mean 'exact_match'"):
        summarize(tmp_path, metric="exact_mtch")


@pytest.mark.parametrize("samples", [True, False])
def test_a_limit_is_marked(tmp_path, samples):
    write_run(tmp_path, 0, [1, 0] if samples else [], value=0.5)
    _, summary = summarize(tmp_path, partial={"limit": 2, "of": "?"})
    assert summary["partial"] == {"limit": 2, "of": "?"}


def test_what_the_adapter_counted_stands_beside_the_numbers(tmp_path):
    for number, (length, tokens) in enumerate([(1, 10.0), (3, 20.0)]):
        stats = {"finish_reason": {"stop": 4 - length, "length": length}, "avg_completion_tokens": tokens}
        write_run(tmp_path, number, [1, 0], stats=stats)
    _, summary = summarize(tmp_path, samples=2)
    assert (summary["rates"]["truncated"], summary["mean_tokens"]) == (0.5, 15.0)


@pytest.mark.parametrize(("said", "empty"), [("red", 0.0), ("", 1.0), ([-1.5, True], None)])
def test_blank_answers_are_counted_only_where_there_are_texts(tmp_path, said, empty):
    write_run(tmp_path, 0, [1, 0], said=said)
    _, summary = summarize(tmp_path)
    assert summary["rates"]["empty"] == empty
    assert summary["rates"]["truncated"] is None, "the samples do not tell"
