from pathlib import Path

import pytest

from milepost.campaign.config import nemo_task
from milepost.campaign.identity import DigestCache
from milepost.errors import ConfigError, HarnessError
from milepost.tasks.lm_eval_files import files_digest, include_folders, local_files

FILES = {
    "h/base.yaml": "dataset_path: json\ndataset_kwargs: {data_files: {test: data/base.jsonl}}\n",
    "h/one.yaml": "include: base.yaml\ntask: one\ntag: [mine]\nprocess_docs: !function utils.clean\n",
    "h/sub/two.yaml": "task: two\ntag: mine\ndataset_path: json\ndataset_kwargs: {data_files: [data/two-*.jsonl, 'https://x/y.jsonl']}\n",
    "h/three.yaml": "task: three\ndataset_path: org/data\ndataset_kwargs: {data_files: there.json}\n",
    "h/both.yaml": "group: both\ntask:\n  - one\n  - group: inner\n    task: [two]\n  - {task: own, dataset_path: csv, dataset_kwargs: {data_files: data/own.csv}}\n",
    "h/utils.py": "def clean(docs): return docs\n",
    "data/base.jsonl": "{}\n",
    "data/two-a.jsonl": "{}\n",
    "data/two-b.jsonl": "{}\n",
    "data/own.csv": "a\n",
    "data/unused.jsonl": "{}\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def params(args="--include_path h"):
    return {"extra": {"args": args}}


def eval_type(name):
    return f"lm-evaluation-harness.{name}"


def digest(name="one", **more):
    content = {
        "version": 1,
        "harness": "nemo",
        "metric": "acc",
        "eval_type": eval_type(name),
        "params": params(),
        **more,
    }
    return files_digest(nemo_task("t", content, "here"), DigestCache(Path("cache.json")))


ONE = ["data/base.jsonl", "h/base.yaml", "h/one.yaml", "h/utils.py"]
TWO = ["data/two-a.jsonl", "data/two-b.jsonl", "h/sub/two.yaml", "h/utils.py"]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("one", ONE),
        ("two", TWO),
        ("three", ["h/three.yaml", "h/utils.py"]),
        ("mine", sorted({*ONE, *TWO})),
        ("both", sorted({*ONE, "data/own.csv", "h/both.yaml"} | set(TWO))),
    ],
)
def test_a_task_rests_on_its_own_files_alone(name, files):
    assert [str(path) for path in local_files(eval_type(name), params())] == files


def test_without_a_folder_there_are_none():
    assert local_files("mmlu", {}) == []
    assert digest(params={}) is None


def test_a_task_of_another_name_rests_on_all():
    assert {"h/one.yaml", "h/three.yaml", "data/own.csv"} <= {
        str(path) for path in local_files(eval_type("mmlu"), params())
    }


@pytest.mark.parametrize(
    ("args", "folders"),
    [
        ("", []),
        ("--include_path a", ["a"]),
        ("--x 1 --include_path='a b' --include_path c", ["c", "a b"]),
        ("--include_path", []),
    ],
)
def test_folders_from_a_command_line(args, folders):
    assert [str(path) for path in include_folders(params(args))] == folders


@pytest.mark.parametrize("changed", ["h/one.yaml", "h/base.yaml", "h/utils.py", "data/base.jsonl"])
def test_an_edit_changes_the_digest_and_one_of_a_neighbour_does_not(changed):
    before = digest()
    Path("h/three.yaml").write_text("task: three\ndescription: new\n")
    Path("data/unused.jsonl").write_text("new")
    assert digest() == before
    path = Path(changed)
    path.write_text(path.read_text() + "\n# new\n")
    assert digest() != before


def test_a_campaign_that_was_moved_keeps_its_digest(folder, monkeypatch):
    before = digest()
    moved = folder.with_name(folder.name + "-moved")
    folder.rename(moved)
    monkeypatch.chdir(moved)
    assert digest() == before


def test_the_content_of_a_tokenizers_folder_counts():
    Path("tok").mkdir()
    Path("tok/tokenizer.json").write_text("1")
    before = digest(tokenizer="tok")
    Path("tok/tokenizer.json").write_text("22")
    assert digest(tokenizer="tok") != before


@pytest.mark.parametrize(
    ("break_it", "error", "words"),
    [
        (lambda: Path("data/base.jsonl").unlink(), HarnessError, "h/base.yaml names the data file 'data/base.jsonl', which does not exist"),
        (lambda: Path("h/base.yaml").unlink(), HarnessError, "includes 'base.yaml', which is neither"),
        (lambda: Path("h/one.yaml").write_text("a: ["), HarnessError, "h/one.yaml, a task file of lm-eval, is not YAML"),
        (lambda: Path("h").rename("g"), HarnessError, "The folder of lm-eval tasks 'h' .* does not exist"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(break_it, error, words):
    break_it()
    with pytest.raises(error, match=words):
        local_files(eval_type("one"), params())


def test_a_command_line_that_cannot_be_read():
    with pytest.raises(ConfigError, match="cannot be read as a command line"):
        include_folders(params("--include_path 'h"))
