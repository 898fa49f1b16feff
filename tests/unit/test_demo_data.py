"""The demo's questions: held out indeed, the same every time, and answerable."""

import importlib.util
import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import yaml

DEMO = Path(__file__).parents[2] / "demo"
NATIVE = ["sums", "where", "constraints"]
TASKS = [*NATIVE, "colours"]


@pytest.fixture(scope="module")
def worlds():
    spec = importlib.util.spec_from_file_location("worlds", DEMO / "worlds.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["worlds"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["worlds"]


@pytest.fixture(scope="module")
def data(worlds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    worlds.write_items(folder)
    return {task: [json.loads(line) for line in (folder / f"{task}.jsonl").open()] for task in TASKS}


def question(record):
    return record["question"] if "question" in record else record["messages"][0]["content"]


def trained(worlds, task, seed=0, count=10_000):
    # A training reads 400 steps of at most 22 examples per task.
    return islice(worlds.training_examples(task, seed), count)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_key_is_trained_on(worlds, task, seed):
    kept_back = {example.key for example in worlds.held_out(task)}
    assert kept_back.isdisjoint(example.key for example in trained(worlds, task, seed))


@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_question_is_trained_on(worlds, data, task):
    assert {question(record) for record in data[task]}.isdisjoint(example.question for example in trained(worlds, task))


def test_no_pair_of_operands_is_trained_on(worlds, data):
    pairs = {tuple(re.findall(r"\d+", question(record))) for record in data["sums"]}
    assert len(pairs) == 100
    assert pairs.isdisjoint(tuple(re.findall(r"\d+", example.question)) for example in trained(worlds, "sums"))


def test_no_story_is_trained_on_in_other_words(worlds, data):
    def plot(text):
        return tuple(re.findall("|".join([*worlds.PEOPLE, *worlds.PLACES]), text))

    plots = {plot(question(record)) for record in data["where"]}
    assert plots.isdisjoint(plot(example.question) for example in trained(worlds, "where"))


def test_no_held_out_word_is_read_in_any_training(worlds, data):
    words = {record["meta"]["word"] for record in data["constraints"]}
    read = {
        word
        for task in TASKS
        for example in trained(worlds, task)
        for word in re.findall(r"[a-z]+", f"{example.question} {example.answer}".lower())
    }
    assert len(words) == 100
    assert words.isdisjoint(read)


def test_every_syllable_colour_place_and_person_is_trained_on(worlds):
    text = " ".join(f"{example.question} {example.answer}" for task in TASKS for example in trained(worlds, task))
    things = [thing for things in worlds.COLOURS.values() for thing in things]
    known = [*worlds.SYLLABLES, *worlds.COLOURS, *worlds.PLACES, *worlds.PEOPLE, *things]
    assert [word for word in known if word not in text] == []


def test_files_are_the_same_every_time(worlds, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        command = [sys.executable, DEMO / "train.py", "--data-out", folder, "--seed", str(len(folder.name))]
        subprocess.run(command, check=True)
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == two
    assert sorted(one) == sorted(f"{task}.jsonl" for task in TASKS)


def test_a_right_file_is_left_alone_and_a_wrong_one_replaced(worlds, tmp_path):
    worlds.write_items(tmp_path)
    before = (tmp_path / "sums.jsonl").stat()
    (tmp_path / "where.jsonl").write_text("cut off")
    worlds.write_items(tmp_path)
    after = (tmp_path / "sums.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len((tmp_path / "where.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize(("task", "count"), [("sums", 100), ("where", 100), ("constraints", 100), ("colours", 50)])
def test_number_and_names_of_items(data, task, count):
    assert len({record["id"] for record in data[task]}) == len(data[task]) == count


def test_sums_are_right(data):
    for record in data["sums"]:
        a, b = map(int, re.findall(r"\d+", question(record)))
        assert record["target"] == str(a + b)


def test_where_target_follows_from_the_story(worlds, data):
    for record in data["where"]:
        story, asked = question(record).split(" Where is ")
        places = re.findall(rf"{asked.rstrip('?')} \w+ the (\w+)\.", story)
        assert record["target"] == places[-1]
        assert record["choices"] == worlds.PLACES
        assert record["target"] in record["choices"]
        assert all(
            record["target"] in text and record["meta"]["person"] in text for text in record["meta"]["paraphrases"]
        )


def test_every_constraint_is_obeyed_by_the_taught_answer(worlds):
    kinds = set()
    for example in worlds.held_out("constraints"):
        words = re.findall(r"[a-z]+", example.answer.lower())
        checks = example.fields["meta"]["constraints"]
        assert checks
        kinds.add(tuple(check["kind"] for check in checks))
        for check in checks:
            match check:
                case {"kind": "repeat_word", "word": word, "times": times}:
                    assert words.count(word) == times
                case {"kind": "end_with", "word": word}:
                    assert words[-1] == word
                case {"kind": "upper_case"}:
                    assert example.answer.isupper()
                case _:
                    pytest.fail(f"unknown constraint {check}")
    assert ("upper_case",) in kinds
    assert ("repeat_word", "upper_case") in kinds
    assert ("end_with", "upper_case") in kinds


def test_every_colour_is_known_and_each_thing_has_one(worlds, data):
    things = [thing for things in worlds.COLOURS.values() for thing in things]
    assert len(things) == len(set(things))
    assert {record["target"] for record in data["colours"]} <= set(worlds.COLOURS)


def test_harness_task_names_columns_that_exist(data):
    task = yaml.safe_load((DEMO / "harness" / "colours.yaml").read_text())
    columns = re.findall(r"\{\{(\w+)\}\}", task["doc_to_text"] + task["doc_to_target"])
    assert set(columns) <= set(data["colours"][0])


def run_train(*arguments):
    command = [sys.executable, "-X", "importtime", DEMO / "train.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def finished(folder, **note):
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(note))


def test_a_complete_training_loads_no_torch(tmp_path):
    for step in (5, 10):
        finished(tmp_path / f"step-{step}", seed=0, step=step, last_step=10)
    done = run_train("--out", tmp_path, "--steps", "5,10")
    assert done.returncode == 0
    assert "torch" not in done.stderr
    assert "transformers" not in done.stderr


def test_another_training_in_the_way_is_an_error(tmp_path):
    finished(tmp_path / "step-5", seed=1, step=5, last_step=5)
    done = run_train("--out", tmp_path, "--steps", "5")
    assert done.returncode == 1
    assert "holds another training" in done.stderr
    assert "Remove it, or choose another --out." in done.stderr
