"""Four judged benchmarks in one campaign, in phases, with judges whose replies follow from a hash of what they are asked."""

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import expected_numbers
from judge_stub import Stub

BASELINE = "THE BASELINE SAYS SO"
AXES = ("accuracy", "completeness")
HEALTH = [
    {
        "prompt_id": f"health-{n}",
        "prompt": [{"role": "user", "content": f"hello health-{n}"}],
        "example_tags": [f"theme:theme{n % 2}"],
        "rubrics": [
            {"criterion": f"Statement {n}-{k}.", "points": points, "tags": ["level:example", f"axis:{AXES[k % 2]}"]}
            for k, points in enumerate((5, 4, -2, 3))
        ],
    }
    for n in range(4)
]
WRITING = [
    {
        "index": n,
        "domain1": ("Law", "Education")[n % 2],
        "domain2": f"Sub{n % 3}",
        "query": f"hello writing-{n}.",
        "checklist": [{"name": f"Criterion {n}-{k}.", "criteria_description": "D"} for k in range(3)],
    }
    for n in range(1, 5)
]
TEXTS = {"style": [1, 2], "format": [3], "length": []}
CRITERIA = {"style": ["Criterion 1-0.", "Criterion 2-1.", "Criterion 2-2."], "format": ["Criterion 3-1."], "length": []}
ARENA = [
    {"uid": f"arena-{n}", "category": ("hard_prompt", "creative_writing")[n % 2], "prompt": f"hello arena-{n}."}
    for n in range(6)
]
ALPACA = [
    {"dataset": ("koala", "oasst")[n % 2], "instruction": f"hello alpaca-{n}.", "output": BASELINE} for n in range(6)
]
TASKS = {"healthbench": HEALTH, "writingbench": WRITING, "arena_hard": ARENA, "alpaca_eval": ALPACA}
OPTIONS = {
    "writingbench": {"requirements": "data/requirement"},
    "arena_hard": {"baselines": {"default": "data/baseline.jsonl"}, "bootstrap": 2},
    "alpaca_eval": {"baseline": "data/alpaca_eval.jsonl", "bootstrap": 2},
}


@pytest.fixture(scope="class")
def judge():
    """One server that is both judges."""
    stub = Stub()
    with stub.running() as url:
        yield stub, url


@pytest.fixture(scope="class")
def campaign(make_campaign, judge):
    """One checkpoint and all four tasks, with one judge."""
    campaign = make_campaign(checkpoints="c1 m1", tasks=())
    entry = {"provider": "external", "url": judge[1], "retries": 0}
    campaign.write("config/endpoints.yaml", json.dumps({name: {**entry, "model": name} for name in "ab"}))
    for name, rows in TASKS.items():
        campaign.write(f"data/{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    rows = [{"uid": row["uid"], "output": BASELINE} for row in ARENA]
    campaign.write("data/baseline.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    for name, texts in TEXTS.items():
        folder = campaign.folder / "data/requirement" / name
        folder.mkdir(parents=True)
        (folder / f"{name}_subset.jsonl").write_text("".join(f'{{"index": {n}}}\n' for n in texts))
        chosen = {n: [one for one in CRITERIA[name] if f" {n}-" in one] for n in texts}
        lines = [{"index": n, "checklist": [{"name": one} for one in names]} for n, names in chosen.items()]
        (folder / f"{name}_subset_C.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    judged_by(campaign, "a")
    campaign.select(*TASKS)
    return campaign


def judged_by(campaign, *judges):
    for name in TASKS:
        scorer = {"name": name, "judges": list(judges), **OPTIONS.get(name, {})}
        campaign.task(name, data=f"data/{name}.jsonl", format=name, samples=1, scorer=scorer)


def expected(chats):
    return {
        "healthbench": expected_numbers.healthbench(HEALTH, chats),
        "writingbench": expected_numbers.writingbench(
            WRITING, chats, {name: rows for name, rows in TEXTS.items() if rows}, CRITERIA
        ),
        "arena_hard": expected_numbers.arena_hard(ARENA, chats, BASELINE),
        "alpaca_eval": expected_numbers.alpaca_eval(ALPACA, chats),
    }


def chats_of(stub, judge):
    return [body["messages"] for body in stub.asked if body["model"] == judge]


CALLS = 4 * 4 + 4 * 3 + 6 * 2 + 6


class TestJudged:
    def test_answers_ask_no_judge(self, campaign, judge):
        run = campaign.run("answers")
        assert (run.rc, run.rules["collect_answers"], run.starts) == (0, 4, {"c1": 1}), run.said
        assert not run.rules["judge_answers"]
        assert not judge[0].asked

    def test_the_plan_says_what_judging_will_cost(self, campaign):
        run = campaign.run("plan")
        assert run.rc == 0, run.said
        rows = [line.split() for line in run.said.splitlines() if line.split()[:1] and line.split()[0] in TASKS]
        judged = {row[0]: row[1:5] for row in rows if row[1] == "a"}
        calls = {"healthbench": "16", "writingbench": "12", "arena_hard": "12", "alpaca_eval": "6"}
        assert judged == {name: ["a", count, "0", count] for name, count in calls.items()}, run.said

    def test_scores_start_no_server_and_are_those_that_follow_from_the_verdicts(self, campaign, judge):
        run = campaign.run("scores")
        assert (run.rc, run.rules["judge_answers"], run.starts) == (0, 4, {}), run.said
        assert len(judge[0].asked) == CALLS
        for task, numbers in expected(chats_of(judge[0], "a")).items():
            metrics = campaign.summary("c1", task)["metrics"]
            found = {name: metrics[name]["value"] for name in numbers}
            assert found == pytest.approx(numbers, abs=1e-12), task
            assert metrics["unreadable_verdicts"]["value"] == 0

    def test_another_judge_is_asked_about_the_same_answers_and_compared(self, campaign, judge):
        judged_by(campaign, "a", "b")
        run = campaign.run()
        assert (run.rc, run.rules["judge_answers"], run.rules["tabulate_task"], run.starts) == (0, 4, 4, {}), run.said
        # The first is asked nothing again.
        assert [len(chats_of(judge[0], name)) for name in "ab"] == [CALLS, CALLS]
        for task, numbers in expected(chats_of(judge[0], "b")).items():
            metrics = campaign.summary("c1", task)["metrics"]
            for name, value in numbers.items():
                # The same words have the same hash: b says what a says.
                assert metrics[f"{name}_b"]["value"] == pytest.approx(value, abs=1e-12)
                assert metrics[name]["value"] == pytest.approx(value, abs=1e-12)
            folder = campaign.folder / f"results/{task}/{task}"
            (row,) = csv.DictReader((folder / "judges.csv").open())
            assert (row["judge_a"], row["judge_b"], row["agreement"]) == ("a", "b", "1.0")
            assert (folder / "judges.svg").exists()
        assert (campaign.folder / "results/writingbench/writingbench/scores.xlsx").exists()
        assert set(campaign.run("figures").rules) == {"figures"}
