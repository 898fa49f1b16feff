import json
import math
import shutil
import statistics
from pathlib import Path

import pytest
import yaml

from milepost.campaign.config import nemo_task
from milepost.errors import HarnessError, StatsError
from milepost.nemo.scores import summarize_harness

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


def summarize(folder, samples=1, metric="exact_match", spec=None, **header):
    content = {"version": 2, "harness": "nemo", "eval_type": "h.t", "metric": metric, **(spec or {})}
    task = nemo_task("t", content, "here")
    return summarize_harness("c", {**HEADER, "samples": samples, **header}, task, folder, {"model": "d"})


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
    assert summary["ci95"] == pytest.approx((expected - 0.196, min(1.0, expected + 0.196)), abs=1e-4)
    assert (summary["n_items"], summary["n_samples"]) == (0, 0)


def test_a_standard_error_that_is_no_number_is_null(tmp_path):
    write_run(tmp_path, 0, [], value=0.7, stderr="N/A")
    _, summary = summarize(tmp_path)
    assert (summary["value"], summary["stderr"], summary["ci95"]) == (0.7, None, None)


@pytest.mark.parametrize("value", ["nan", "text"])
def test_a_value_that_is_no_number_is_null(tmp_path, value):
    write_run(tmp_path, 0, [], value=float("nan") if value == "nan" else value)
    _, summary = summarize(tmp_path)
    assert summary["value"] is None


@pytest.mark.parametrize("runs", [0, 1, 3])
def test_runs_that_are_too_few_or_too_many(tmp_path, runs):
    for number in range(runs):
        write_run(tmp_path, number, [1])
    with pytest.raises(HarnessError, match=f"holds {runs} runs of 2. Remove it: it is collected anew"):
        summarize(tmp_path, samples=2)


def test_runs_are_ordered_by_number_not_by_text(tmp_path):
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


def test_tokens_and_truncation_stand_beside_the_numbers(tmp_path):
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


# Runs of lm-eval on the demo's model, as NeMo Evaluator 0.2.8 left them; the samples without their texts asked.
REAL = Path(__file__).resolve().parents[2] / "golden" / "nemo"


def real(tmp_path, name, runs=1):
    for number in range(runs):
        shutil.copytree(REAL / name, tmp_path / f"run-{number}")
    return tmp_path


def test_a_group_is_made_from_the_samples_of_all_its_tasks(tmp_path):
    scores, summary = summarize(real(tmp_path, "t_group"))
    assert "harness" not in summary
    assert summary["value"] == 0.5571428571428572, "the harness's digits"
    assert (summary["n_items"], len({score["id"] for score in scores})) == (70, 70)
    assert {score["id"].partition("/")[0] for score in scores} == {"t_sums", "t_where"}
    # 39 of 70 items right: the plain error over items, where lm-eval's own (.0143) leaves out what lies between tasks.
    assert summary["stderr"] == pytest.approx(math.sqrt(39 / 70 * 31 / 70 / 69), rel=1e-12)
    assert summary["metrics"]["t_sums/exact_match"]["value"] == 0.975
    assert summary["metrics"]["t_sums/exact_match"]["stderr"] == pytest.approx(0.025)


def test_a_group_that_weighs_its_tasks_equally_is_the_harness_own(tmp_path):
    scores, summary = summarize(real(tmp_path, "t_even"))
    assert (summary["harness"], summary["value"], scores) == (True, 0.4875, [])
    assert summary["stderr"] == pytest.approx(0.01431195)


def test_one_task_of_a_group_can_be_the_headline(tmp_path):
    scores, summary = summarize(real(tmp_path, "t_even"), metric="t_sums/exact_match")
    assert (summary["value"], summary["n_items"], "harness" in summary) == (0.975, 40, False)
    assert all(score["id"].startswith("t_sums/") for score in scores)


@pytest.mark.parametrize(
    ("metric", "value", "stderr"),
    [("acc", 0.13333333333333333, 0.06312427686319994), ("acc_norm", 0.3333333333333333, 0.08753762190648169)],
)
def test_log_probability_scores_have_their_items_too(tmp_path, metric, value, stderr):
    scores, summary = summarize(real(tmp_path, "t_choice"), metric=metric)
    assert (summary["value"], summary["n_items"]) == (value, 30)
    assert summary["stderr"] == pytest.approx(stderr, rel=1e-12), "lm-eval has n - 1 in the denominator, too"
    assert set(scores[0]["metrics"]) == {"acc", "acc_norm"}
    assert "harness" not in summary
    assert summary["metrics"]["acc_norm"]["ci95"] != summary["metrics"]["acc"]["ci95"]
    assert summary["rates"]["truncated"] is None, "one token is what a log-probability takes"
    assert summary["rates"]["empty"] is None


def test_a_metric_that_is_no_mean_keeps_the_harness_number(tmp_path):
    write_run(tmp_path, 0, [1, 0], others=[("f1", 0.66)])
    for path in tmp_path.rglob("samples_*"):
        path.write_text(
            "".join(
                json.dumps({**json.loads(line), "f1": 0.1, "metrics": ["exact_match", "f1"]}) + "\n"
                for line in path.read_text().splitlines()
            )
        )
    _, summary = summarize(tmp_path)
    assert (summary["metrics"]["f1"]["value"], summary["metrics"]["f1"]["stderr"]) == (0.66, 0.1)
    _, summary = summarize(tmp_path, metric="f1")
    assert (summary["harness"], summary["value"]) == (True, 0.66)


def test_a_population_variance_becomes_one_of_the_sample(tmp_path):
    run = tmp_path / "run-0"
    run.mkdir()
    stats = {"count": 5, "mean": 0.4, "variance": 0.24, "stddev": 0.4898979, "stderr": 0.219089}
    (run / "results.yml").write_text(
        yaml.safe_dump(
            {
                "results": {
                    "tasks": {"gpqa": {"metrics": {"score": {"scores": {"micro": {"value": 0.4, "stats": stats}}}}}}
                }
            }
        )
    )
    _, summary = summarize(tmp_path, metric="score.micro")
    assert summary["stderr"] == pytest.approx(statistics.stdev([1, 1, 0, 0, 0]) / math.sqrt(5))
    assert (summary["n_items"], summary["harness"]) == (5, True)


WARM = {**HEADER["harness"], "params": {"temperature": 0.7}}
SAME = "gave the same answers to all 4 items, though every request had its own seed"


@pytest.mark.parametrize(
    ("said", "requests", "harness", "note"),
    [
        (("red", "blue"), (4, 4), WARM, None),
        (("red", "red"), (4, 4), WARM, SAME),
        (("red", "red"), (None, None), WARM, SAME),
        (("red", "blue"), (4, 0), WARM, "run 1 asked the server 0 times for 4 items: a cache answered"),
        (("red", "red"), (4, 3), HEADER["harness"], "run 1 asked the server 3 times"),
        (("red", "red"), (4, 4), HEADER["harness"], "the temperature is 0 or the harness's own"),
    ],
)
def test_runs_are_checked_to_be_samples_of_their_own(tmp_path, caplog, said, requests, harness, note):
    for number in range(2):
        write_run(tmp_path, number, [1, 0, 1, 1], said=said[number])
        if requests[number] is not None:
            (tmp_path / f"run-{number}/done.json").write_text(json.dumps({"requests": requests[number]}) + "\n")
    _, summary = summarize(tmp_path, samples=2, harness=harness)
    repeats = summary["provenance"]["repeats"]
    assert (repeats["compared"], repeats["same"]) == (4, 4 if said[0] == said[1] else 0)
    assert repeats["requests"] == list(requests)
    assert (note is None and "note" not in repeats) or note in repeats["note"]
    assert (note or "") in caplog.text
    assert bool(caplog.text) == bool(note)


def test_one_run_is_compared_with_nothing(tmp_path):
    write_run(tmp_path, 0, [1, 0])
    _, summary = summarize(tmp_path)
    assert "repeats" not in summary["provenance"]


def test_what_a_harness_repeats_within_a_run_is_checked_too(tmp_path, caplog):
    write_run(tmp_path, 0, [1, 0], said="x")
    for path in tmp_path.rglob("samples_*"):
        path.write_text(
            "".join(
                json.dumps({**json.loads(line), "resps": [["a", "a", "a"]]}) + "\n"
                for line in path.read_text().splitlines()
            )
        )
    _, summary = summarize(tmp_path, harness=WARM)
    assert (
        "asked several times within a run was answered the same each time (2 items)"
        in summary["provenance"]["repeats"]["note"]
    )


def test_versions_come_from_the_runs_themselves(tmp_path):
    for number, version in enumerate(["26.3", "26.4"]):
        write_run(tmp_path, number, [1, 0])
        run = tmp_path / f"run-{number}"
        (run / "done.json").write_text(json.dumps({"versions": {"nvidia-lm-eval": version}}) + "\n")
        results = yaml.safe_load((run / "results.yml").read_text())
        (run / "results.yml").write_text(
            yaml.safe_dump({**results, "metadata": {"versioning": {"nemo_evaluator": "0.2.8"}}})
        )
    _, summary = summarize(tmp_path, samples=2)
    assert summary["provenance"]["versions"] == {"nvidia-lm-eval": "26.3, 26.4", "nemo-evaluator": "0.2.8"}


@pytest.mark.parametrize(
    ("name", "spec", "stated", "better", "bounds"),
    [
        ("exact_match", {}, None, "higher", [0, 1]),
        ("acc_norm", {}, None, "higher", [0, 1]),
        ("word_perplexity", {}, None, "lower", None),
        ("bits_per_byte", {}, None, "lower", None),
        ("pct_stereotype", {}, None, "lower", [0, 1]),
        ("elo", {}, None, "higher", None),
        ("elo", {}, False, "lower", None),
        ("acc", {}, False, "lower", [0, 1]),
        ("acc", {"better": "higher"}, False, "higher", [0, 1]),
        ("elo", {"range": [0, 100], "better": "lower"}, None, "lower", [0, 100]),
        ("mcc", {}, None, "higher", [-1, 1]),
    ],
)
def test_which_way_is_better_and_the_range_reach_the_summary(tmp_path, name, spec, stated, better, bounds):
    write_run(tmp_path, 0, [1, 0, 1, 1], metric=name)
    if stated is not None:
        text = json.dumps({"higher_is_better": {"colours": {name: stated}}})
        (tmp_path / "run-0" / "lm_eval.json").write_text(text)
    _, summary = summarize(tmp_path, metric=name, spec=spec)
    assert summary["scales"][name] == {"better": better, "range": bounds if bounds is None else tuple(bounds)}
    assert (summary["ci95"][1] <= 1.0) == (bounds in ([0, 1], [-1, 1]))


def test_a_range_that_a_name_only_suggests_gives_way_to_values_beyond_it(tmp_path):
    write_run(tmp_path, 0, [45.0, 60.0, 52.0], metric="f1")
    _, summary = summarize(tmp_path, metric="f1")
    assert (summary["value"], summary["scales"]["f1"]["range"]) == (pytest.approx(157 / 3), None)
    with pytest.raises(StatsError, match="A score is 45, and by its metric's definition"):
        summarize(tmp_path, metric="f1", spec={"range": [0, 1]})


def write_group(folder, tasks, group, nested=False, stated=None):
    """A collected run with samples of several tasks, and a group's number over them."""
    run = folder / "run-0"
    run.mkdir(parents=True)

    def number(value):
        return {"metrics": {"acc": {"scores": {"acc": {"value": value, "stats": {"stderr": 0.1}}}}}}

    means = {name: sum(values) / len(values) for name, values in tasks.items()}
    groups = {group: number(sum(map(sum, tasks.values())) / sum(map(len, tasks.values())))}
    subgroups = {f"{group}_{half}": number(0.9) for half in ("stem", "other")}
    groups = {group: {**groups[group], "groups": subgroups}} if nested else {**groups, **subgroups}
    content = {"results": {"tasks": {name: number(value) for name, value in means.items()}, "groups": groups}}
    (run / "results.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name, values in tasks.items():
        lines = [{"doc_id": n, "filter": "none", "acc": value, "metrics": ["acc"]} for n, value in enumerate(values)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run / f"samples_{name}_2026-01-01T00-00-00.000001.jsonl").write_text(text)
    if stated:
        (run / "lm_eval.json").write_text(json.dumps({"group_subtasks": stated}))


@pytest.mark.parametrize(
    ("nested", "metric", "stated"),
    [
        (True, "acc", None),
        (True, "mmlu/acc", None),
        (False, "mmlu/acc", None),
        (False, "acc", {"mmlu": ["mmlu_stem", "mmlu_other"], "mmlu_stem": ["physics"], "mmlu_other": ["mmlu_law"]}),
        (
            False,
            "mmlu/acc",
            {"mmlu": ["mmlu_stem", "mmlu_other"], "mmlu_stem": ["physics"], "mmlu_other": ["mmlu_law"]},
        ),
    ],
)
def test_a_group_has_its_own_number_and_the_items_of_its_tasks(tmp_path, nested, metric, stated):
    """The number was that of the last subgroup, .90; or the harness's own, without an item."""
    tasks = {"physics" if stated else "mmlu_physics": [1, 0, 0, 0], "mmlu_law": [1, 0, 0, 0, 0, 1]}
    write_group(tmp_path, tasks, "mmlu", nested, stated)
    scores, summary = summarize(tmp_path, metric=metric)
    assert summary["value"] == pytest.approx(0.3)
    assert (summary["n_items"], len(scores), "harness" in summary) == (10, 10, False)
    assert {score["id"].partition("/")[0] for score in scores} == set(tasks)


def test_one_group_of_two_takes_the_items_of_its_own_tasks(tmp_path):
    write_group(tmp_path, {"law": [1, 0], "art": [1, 1]}, "all", stated={"all": ["law", "art"], "half": ["law"]})
    path = tmp_path / "run-0" / "results.yml"
    content = yaml.safe_load(path.read_text())
    content["results"]["groups"]["half"] = {"metrics": {"acc": {"scores": {"acc": {"value": 0.5}}}}}
    path.write_text(yaml.safe_dump(content))
    scores, summary = summarize(tmp_path, metric="half/acc")
    assert (summary["value"], [score["id"] for score in scores]) == (0.5, ["law/0", "law/1"])
