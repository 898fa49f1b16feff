import json
from dataclasses import replace
from pathlib import Path

import pytest

from milepost.campaign.config import load_task, native_task
from milepost.errors import RecordError
from milepost.scorers import load_scorer
from milepost.scorers.avert.scorer import Scorer
from milepost.tasks import build_prompts, load_items
from milepost.tasks.babi import UNKNOWN, babi_targets
from milepost.tasks.known import bbh_targets, gsm8k_targets, item_of, read_known

ROOT = Path(__file__).parents[3]
GOLDEN = json.loads((Path(__file__).parents[2] / "golden/avert_tasks.json").read_text())
# Said of nothing, the original's sentences are "the there is nothing is north of" and "bill gave the nothing to mary".
OURS = {
    "the there is nothing is north of the garden": "there is nothing north of the garden",
    "bill gave the nothing to mary": "bill gave nothing to mary",
}


@pytest.mark.parametrize("row", GOLDEN["babi"], ids=lambda row: f"{row['task']}-{row['target']}")
def test_babi(row):
    right, wrong = babi_targets(row["task"], row["question"], row["target"])
    assert right == row["correct"]
    assert wrong == [OURS.get(text, text) for text in row["wrong"]]
    assert babi_targets(row["task"], row["question"], row["target"], compat=True) == (row["correct"], row["wrong"])


@pytest.mark.parametrize(
    ("task", "question", "target", "right", "some_wrong"),
    [
        (4, "What is the bathroom east of?", "hallway", ["hallway", "the bathroom is east of the hallway"],
         ["bathroom is east of office", "there is nothing that the bathroom is east of"]),
        (5, "Who did Mary give the milk to?", "Fred", ["Fred", "mary gave the milk to Fred"], ["mary gave the milk to Bill"]),
        (5, "Who gave the milk to Bill?", "Mary", ["Mary", "Mary gave the milk to bill"], ["John gave the milk to bill"]),
        (7, "How many objects is Mary carrying?", "two", ["two"], ["none", "six"]),
        (8, "What is John carrying?", "apple,milk,pear",
         ["apple,milk,pear", "apple,pear,milk", "milk,apple,pear", "milk,pear,apple", "pear,apple,milk", "pear,milk,apple"],
         ["apple,banana,milk", "apple,milk", "apple", "nothing"]),
        (10, "Is Bill in the school?", "maybe", ["maybe"], ["no, the placement: bill in the school, is not correct"]),
        (15, "What is gertrude afraid of?", "wolf", ["afraid of wolf"], ["afraid of mouse", "unknown"]),
        (17, "Is the pink rectangle above the square?", "yes",
         ["yes, the placement: pink rectangle above the square, is correct"],
         ["no, the placement: pink rectangle above the square, is not correct"]),
        (19, "How do you go from the kitchen to the park?", "north west",
         ["north west", "to go from the kitchen to the park you first go north and then west"],
         ["south", "north north", "to go from the kitchen to the park you need to go south"]),
        (19, "How do you go from the kitchen to the park?", "n,w",
         ["n,w", "north west", "to go from the kitchen to the park you first go north and then west"], ["south"]),
    ],
)  # fmt: skip
def test_babi_beside_the_golden_rows(task, question, target, right, some_wrong):
    found, wrong = babi_targets(task, question, target)
    assert found == right
    assert set(some_wrong) <= set(wrong)
    assert not set(right) & set(wrong)
    assert (set(UNKNOWN) <= set(wrong)) == (target != "maybe")
    assert len(set(wrong)) == len(wrong)


def test_babi_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'Paris' is in none of bAbI's lists"):
        babi_targets(1, "Where is Mary?", "Paris")
    with pytest.raises(ValueError, match="is not a question of task 19"):
        babi_targets(19, "Where is Mary?", "north west")


def test_an_item_holds_the_originals_targets_where_they_are_others():
    row = {"task": 10, "passage": "", "question": "Is Bill in the school?", "answer": "maybe"}
    item = item_of(row, "babi")
    assert item["target"] == ["maybe"]
    assert "original_targets" not in item_of(row | {"answer": "no"}, "babi")["meta"]
    sound = {"yes": [1.0, 0.0], "no,": [0.0, 1.0], "may": [0.6, 0.8]}
    answers = [{"id": "", "sample": 0, "content": "no, he is not there"}]

    def embed(texts):
        return [sound.get(text[:3], [0.7, -0.7]) for text in texts]

    (ours,) = Scorer(embed=embed, chance=False, reading="whole", enhance=False).score([item], answers)
    (theirs,) = Scorer(embed=embed, chance=False, compat=True, enhance=False).score([item], answers)
    assert (ours["score"], theirs["score"]) == (0.0, 1.0)


def test_the_word_itself_is_an_exact_match_where_a_sentence_is_the_target():
    item = item_of({"task": 15, "passage": "", "question": "What is gertrude afraid of?", "answer": "wolf"}, "babi")
    answers = [{"id": "", "sample": n, "content": text} for n, text in enumerate(["Wolf.", "afraid of wolf", "cat"])]
    scores = Scorer(embed=embed, chance=False, semscore=False).score([item], answers)
    assert [score["metrics"]["exact_match"] for score in scores] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("row", [row for row in GOLDEN["gsm8k"] if "out" in row], ids=lambda row: row["answer"])
def test_gsm8k(row):
    assert list(gsm8k_targets(row["answer"])) == row["out"]


def test_gsm8k_where_the_original_fails():
    assert gsm8k_targets("#### 1,200") == (["1200", "1,200"], ["120", "600", "1500", "2160"])
    assert gsm8k_targets("#### 0") == (["0"], ["1", "2", "5", "10"])
    assert gsm8k_targets("#### -8") == (["-8"], ["-1", "-4", "-10", "-14"])


@pytest.mark.parametrize("row", GOLDEN["bbh"], ids=lambda row: row["args"][2])
def test_bbh(row):
    assert list(bbh_targets(*row["args"])) == row["out"]


# Of benchmarks whose answers are compared with nothing.
CHECKED = {
    "ifeval": [{"key": 7, "prompt": "?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}],
}
CHECKED["ifbench"] = CHECKED["ifeval"]
AXES = ("accuracy", "completeness", "communication_quality")
JUDGED = {
    "healthbench": [
        {
            "prompt_id": "h",
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "?"}]}],
            "example_tags": ["theme:hedging"],
            "rubrics": [{"criterion": "C", "points": 3, "tags": [f"axis:{axis}"]} for axis in AXES],
        }
    ],
    "writingbench": [
        {"index": 1, "domain1": "Literature & Arts", "domain2": "Poetry", "query": "?", "checklist": [{"name": "N"}]}
    ],
    "arena_hard": [{"uid": "u", "category": "hard_prompt", "prompt": "?"}],
    "alpaca_eval": [{"dataset": "koala", "instruction": "?", "output": "!"}],
}
ROWS = {
    "babi": [{"task": 1, "passage": "Mary went to the kitchen.", "question": "Where is Mary?", "answer": "kitchen"}],
    "mmlu": [{"question": "2 + 2?", "choices": ["3", "4", "5", "6"], "answer": 1, "subject": "sums"}],
    "mmlu_pro": [{"question": "?", "options": [f"o{n}" for n in range(12)], "answer_index": 11, "category": "c"}],
    "gpqa": [
        {"Question": "Q", "Correct Answer": "right\n", "High-level domain": "Physics"}
        | {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    ],
    "arc": [
        {"question": "Which?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question_stem": "Which?", "choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "1"},
    ],
    "gsm8k": [{"question": "How many?", "answer": "because\n#### 42"}],
    "bbh": [
        {"input": "Which?\nOptions:\n(A) red\n(B) blue", "target": "(B)"},
        {"input": "Valid?\nOptions:\n- valid\n- invalid", "target": "invalid"},
        {"input": "How many?", "target": "7"},
        {"input": "True and False is", "target": "False"},
    ],
}
SAID = {
    "babi": ["She is in the kitchen."],
    "mmlu": ["The sum is 4."],
    "mmlu_pro": ["It is o11."],
    "gpqa": ["The right one: right."],
    "gsm8k": ["So there are 42."],
    "bbh": ["(B)", "The argument is invalid.", "There are seven.", "This is false."],
    "arc": ["It is blue.", "Red, I think."],
}


def embed(texts):
    return [[1.0, 0.0]] * len(texts)


@pytest.mark.parametrize("form", ROWS)
def test_each_benchmark_is_asked_and_scored(tmp_path, form):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[form]))
    items = load_items(
        native_task("t", {"version": 1, "data": str(data), "format": form, "scorer": {"name": "exact_match"}}, "here")
    )
    assert [item["id"] for item in items] == [str(n + 1) for n in range(len(ROWS[form]))]
    for item in items:
        (message,) = item["messages"]
        assert message["role"] == "user"
        for at, option in enumerate(item.get("choices", [])):
            assert f"\n{chr(ord('A') + at)}. {option}\n" in message["content"]
    answers = [{"id": item["id"], "sample": 0, "content": said} for item, said in zip(items, SAID[form], strict=True)]
    letters = all("choices" in item for item in items)
    scores = list(Scorer(embed=embed, letters=letters, chance=False).score(items, answers))
    # All texts are alike to this embedder: what is named decides. A letter counts where all items show letters.
    expected = [1.0] * len(items) if form != "bbh" else [0.0, 1.0, 1.0, 1.0]
    assert [score["score"] for score in scores] == expected


def test_rows_that_cannot_be_asked(tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"question": "?", "choices": ["a", "b"]}) + "\n")
    with pytest.raises(RecordError, match=r"line 1: the row has no column 'answer'.*format: mmlu"):
        read_known(str(data), "mmlu")
    data.write_text(json.dumps({"input": "Sort: b a", "target": "a b"}) + "\n")
    with pytest.raises(RecordError, match="no wrong answers are known for the answer 'a b'"):
        read_known(str(data), "bbh")
    alike = {"question": "?", "choices": ["a", "A ", "b"], "answer": 0}
    data.write_text(json.dumps(alike) + "\n" + json.dumps(alike | {"choices": ["a", "b"]}) + "\n")
    assert len(read_known(str(data), "mmlu")) == 1
    assert "1 of 2 rows" in capsys.readouterr().err


@pytest.mark.parametrize("example", sorted((ROOT / "config/tasks/examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_example_of_a_task(example, tmp_path, monkeypatch):
    """Copied as it says, it asks the benchmark's rows and scores answers to them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("config/tasks", "data"):
        (tmp_path / folder).mkdir(parents=True)
    name = example.stem
    (tmp_path / "config/tasks" / example.name).write_text(example.read_text())
    task = load_task(name)
    form = task.format
    free = {"id": "sky", "prompt": "Which colour is the sky?", "target": ["blue"], "meta": {"wrong": ["green"]}}
    # The part of BIG-Bench Hard that it is about.
    rows = (
        [{"input": "Back?\nOptions:\n- Yes\n- No", "target": "No"}]
        if form == "bbh"
        else {**ROWS, **CHECKED, **JUDGED}.get(form, [free])
    )
    task = replace(task, data=task.data or "data/packaged.jsonl")
    (tmp_path / task.data).write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = build_prompts(task)
    assert len(prompts.prompts) == len(rows)
    options = {"requirements": "none"} if form == "writingbench" else {}
    scorer = load_scorer({key: value for key, value in task.scorer.items() if key != "embed"} | options)
    known = {metric.name for metric in scorer.metrics_of(prompts.prompts)}
    assert {*filter(None, [task.metric]), *task.beside} <= known
