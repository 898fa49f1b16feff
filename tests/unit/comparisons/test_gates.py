import csv

import numpy as np
import pytest
import yaml

import gate as step
from milepost.campaign.shown import Point, Shown, ShownTask
from milepost.comparisons.gates import gate_verdict, read_gate, try_gate
from milepost.errors import ConfigError, UnknownKeyError
from milepost.records import write_record, write_records

RIGHT = {"better": "higher", "range": [0, 1]}
WRONG = {"better": "lower", "range": [0, 1]}


class Campaign:
    """Scores of two checkpoints in a folder, and gates that are tried on them."""

    def __init__(self, folder, tasks=("sums", "words")):
        self.folder = folder
        names = {name: Point(name) for name in ("old", "new")}
        self.shown = Shown(names, {name: ShownTask(name.title()) for name in tasks})

    def put(self, ckpt, task, scores, scale=RIGHT, **more):
        lines = [{"id": f"i{k}", "sample": 0, "score": score, "metrics": {}} for k, score in enumerate(scores)]
        write_records(self.folder / "scores" / ckpt / f"{task}.jsonl", lines)
        record = {
            "ckpt": ckpt, "task": task, "task_version": 1, "scorer": "s", "metric": "m", "n_items": len(scores),
            "value": float(np.mean(scores)), "provenance": {"prompts": "p"}, "scales": {"m": scale}, **more,
        }  # fmt: skip
        write_record(self.folder / "summaries" / ckpt / f"{task}.json", record)
        return self

    def gate(self, *conditions, margins=None, **more):
        path = self.folder / "gate.yaml"
        content = {"candidate": "new", "reference": "old", "conditions": list(conditions), **more}
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return read_gate(path, self.shown, margins or {})

    def tried(self, *conditions, **more):
        found = self.gate(*conditions, **more)
        return try_gate(found, self.shown, self.folder / "scores", self.folder / "summaries")


def answers(p, n=400, seed=0):
    """Right and wrong answers to items whose difficulty is the same for all."""
    return (np.random.default_rng(seed).uniform(size=n) < p).astype(float).tolist()


def on(task, kind, **more):
    return {"task": task, "is": kind, **more}


@pytest.mark.parametrize(
    ("old", "new", "condition", "verdict"),
    [
        (0.5, 0.7, on("sums", "better"), "passed"),
        (0.7, 0.5, on("sums", "better"), "failed"),
        (0.5, 0.505, on("sums", "better"), "not decided"),
        (0.5, 0.5, on("sums", "not_worse", by=0.05), "passed"),
        (0.5, 0.3, on("sums", "not_worse", by=0.05), "failed"),
        (0.5, 0.46, on("sums", "not_worse", by=0.05), "not decided"),
        (0.5, 0.5, on("sums", "equivalent", by=0.05), "passed"),
        (0.5, 0.7, on("sums", "equivalent", by=0.05), "failed"),
        (0.5, 0.3, on("sums", "equivalent", by=0.05), "failed"),
        (0.5, 0.7, on("sums", "above", than=0.6), "passed"),
        (0.5, 0.5, on("sums", "above", than=0.6), "failed"),
        (0.5, 0.6, on("sums", "above", than=0.6), "not decided"),
        (0.5, 0.7, on("sums", "below", than=0.8), "passed"),
    ],
)
def test_one_condition(tmp_path, old, new, condition, verdict):
    campaign = Campaign(tmp_path).put("old", "sums", answers(old)).put("new", "sums", answers(new))
    (found,) = campaign.tried(condition)
    assert (found.verdict, found.n) == (verdict, 400)
    assert found.ci_low <= found.value <= found.ci_high
    assert (found.n_needed is not None) == (verdict == "not decided")
    assert gate_verdict([found]) == verdict


@pytest.mark.parametrize(("old", "new", "verdict"), [(0.5, 0.3, "passed"), (0.3, 0.5, "failed")])
def test_where_lower_is_better_fewer_errors_are_better(tmp_path, old, new, verdict):
    campaign = Campaign(tmp_path).put("old", "sums", answers(old), WRONG).put("new", "sums", answers(new), WRONG)
    found = campaign.tried(on("sums", "better"), on("sums", "not_worse", by=0.05))
    assert [one.verdict for one in found] == [verdict, verdict]
    assert (found[0].value > 0) == (verdict == "passed")
    (limit,) = campaign.tried(on("sums", "below", than=0.4))
    assert limit.verdict == verdict


def test_all_conditions_are_corrected_together_and_one_failure_fails_the_gate(tmp_path):
    campaign = Campaign(tmp_path)
    # By itself p is .03 one-sided; with a second condition that is not met, it is not enough.
    campaign.put("old", "sums", [0.0] * 22 + [1.0] * 10).put("new", "sums", [1.0] * 22 + [0.0] * 10)
    campaign.put("old", "words", answers(0.5)).put("new", "words", answers(0.51))
    alone = campaign.tried(on("sums", "better"))
    both = campaign.tried(on("sums", "better"), on("words", "better"))
    assert alone[0].verdict == "passed"
    assert both[0].p == pytest.approx(2 * alone[0].p)
    assert (both[0].verdict, gate_verdict(both)) == ("not decided" if both[0].p > 0.05 else "passed", "not decided")
    campaign.put("new", "words", answers(0.2))
    assert gate_verdict(campaign.tried(on("sums", "better"), on("words", "better"))) == "failed"


def test_what_cannot_be_tested_is_not_decided_and_says_why(tmp_path):
    campaign = Campaign(tmp_path).put("old", "sums", answers(0.5)).put("new", "sums", answers(0.9))
    found = campaign.tried(on("sums", "better"), on("words", "above", than=0.1))
    assert [(one.verdict, one.note) for one in found] == [("passed", None), ("not decided", "no scores yet: new")]
    assert gate_verdict(found) == "not decided"


def test_a_margin_is_the_condition_s_or_the_task_s(tmp_path):
    campaign = Campaign(tmp_path)
    gate = campaign.gate(
        on("sums", "not_worse"), on("words", "equivalent", by=0.2), margins={"sums": 0.03, "words": 0.1}
    )
    assert [one.by for one in gate.conditions] == [0.03, 0.2]


@pytest.mark.parametrize(
    ("conditions", "more", "words"),
    [
        ([on("sums", "not_worse")], {}, "has no margin. Write `by: NUMBER` beside it, or `delta`"),
        ([on("sums", "above")], {}, "is to be above nothing. Write `than: NUMBER`"),
        ([on("sums", "better")], {"reference": None}, "compares task 'sums' with a reference"),
        ([on("sum", "better")], {}, "condition on task 'sum'. Tasks: sums, words. Did you mean 'sums'?"),
        (
            [on("sums", "better")],
            {"candidate": "knew"},
            "names the candidate 'knew'. Checkpoints: old, new. Did you mean",
        ),
        ([], {}, "conditions is wrong"),
        ([on("sums", "best")], {}, "'best' is not one of"),
        ([on("sums", "not_worse", by=0)], {}, "by is wrong"),
    ],
)
def test_a_gate_that_cannot_be(tmp_path, conditions, more, words):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        Campaign(tmp_path).gate(*conditions, **more)


def test_an_unknown_key(tmp_path):
    with pytest.raises(UnknownKeyError, match="unknown key 'limit'"):
        Campaign(tmp_path).gate(on("sums", "above", limit=3))


@pytest.mark.parametrize(("than", "code", "word"), [(0.5, 0, "passed"), (0.9, 1, "failed"), (0.66, 2, "not decided")])
def test_command(tmp_path, monkeypatch, capsys, than, code, word):
    monkeypatch.chdir(tmp_path)
    Campaign(tmp_path / "results", ("sums",)).put("new", "sums", answers(0.7))
    (tmp_path / "config/tasks").mkdir(parents=True)
    (tmp_path / "config/config.yaml").write_text("tasks: [sums]\n")
    (tmp_path / "config/checkpoints.tsv").write_text("name\tmodel\nnew\tmodels/new\n")
    (tmp_path / "config/tasks/sums.yaml").write_text("version: 1\ndata: d.jsonl\nscorer: {name: exact_match}\n")
    (tmp_path / "gate.yaml").write_text(f"candidate: new\nconditions: [{{task: sums, is: above, than: {than}}}]\n")
    monkeypatch.setattr(step, "current_digests", lambda campaign, digests: Shown({}, {}).current)
    assert step.main(["gate.yaml"]) == code
    shown = capsys.readouterr().out
    assert f"new: {word}." in shown
    assert ("would decide it" in shown) == (code == 2)
    (row,) = csv.DictReader((tmp_path / "results/gates/gate.csv").open())
    assert (row["verdict"], row["condition"]) == (word, f"above {than}")
