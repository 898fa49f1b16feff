"""Files of a configuration that mean something else than they say: each is an error, and none is guessed at."""

import os
from pathlib import Path

import pytest

from milepost.campaign.frozen import FROZEN
from milepost.campaign.sheet import read_checkpoints, read_rows
from milepost.errors import ConfigError, RecordError
from milepost.records import read_records
from milepost.schemas import check, read_yaml

SHEET = Path("sheet.tsv")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FROZEN, raising=False)


def read(text, encoding="utf-8"):
    SHEET.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return read_checkpoints(SHEET, {}, lambda cells, where: None)


HEAD = "name\tmodel\trun\tstep\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\tmodel\tmodel\na\tb\tc\n", ["column 'model' twice"]),
        ("name\t\tmodel\na\tb\tc\n", ["column 2 has no name"]),
        (HEAD + "a\tm\tr\t1\nb\tm\tr\t1.0\n", ["'a' and 'b' are both step 1.0 of run 'r'"]),
        (HEAD + "a\tm\t\t1\nb\tm\t\t1\n", ["'a' and 'b' are both step 1, without a run"]),
        (HEAD + "a\tm\tr\t1\nb\tm\t\t2\n", ["row 'b' has a step and no run"]),
        (HEAD + "Base\tm\t\t\nbase\tm\t\t\n", ["'Base' and 'base' differ in case only"]),
        (HEAD + f"{'a' * 151}\tm\t\t\n", ["name is wrong", "too long"]),
        (HEAD + f"a\tm\tr\t{'9' * 400}\n", ["A step is a number"]),
        (HEAD + "a b\tm\t\t\n", ["name is wrong: 'a b'", "letters, digits"]),
        ("name   model\na   m\n", ["'name   model'", "one column, and has spaces in it", "by tabs"]),
        ("name,model\na,m\n", ["'name,model'", "commas", "by tabs"]),
        ("name;model\na;m\n", ["semicolons"]),
        (HEAD + "a m r 1\n", ["line 2: the row of 'a m r 1' has 1 columns, and the header has 4"]),
        (HEAD + "a\tm\tr\t1\t\n", ["line 2", "has 5 columns"]),
        (
            HEAD + '# a comment\na\tm\t"quoted\t1\nb\tm\tr\t2\nc\tm\tr"\t3\n',
            ["line 3 cannot be read", "quotation mark"],
        ),
        (HEAD + '\na\tm\t"quick" run\t1\n', ["line 3 cannot be read"]),
        (HEAD + "a\tm\tr\rs\t1\n", ["line 2", "control character"]),
        (HEAD + "a\tm\tr\x0bs\t1\n", ["line 2", "control character"]),
        (HEAD + "a\t$NO_SUCH_FOLDER/m\tr\t1\n", ["line 2, column 'model'", "$NO_SUCH_FOLDER is not set"]),
        (HEAD + "a\t~nobody-of-this-name/m\tr\t1\n", ["no such home folder"]),
        (HEAD + "a\tm{1}\tr\t1\n", ["Braces"]),
        (HEAD.encode("utf-16"), ["sheet.tsv is not UTF-8. It is UTF-16: save"]),
        ((HEAD + "a\tm\t\xfc\t1\n").encode("latin-1"), ["is not UTF-8. Line 2 holds the byte 0xfc"]),
        (HEAD.encode("utf-16-le"), ["zero bytes"]),
        ("", ["lists no checkpoint"]),
    ],
    ids=repr,
)
def test_a_sheet_that_says_something_else(text, words):
    with pytest.raises(ConfigError) as caught:
        read(text)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sheet_that_is_a_folder():
    SHEET.mkdir()
    with pytest.raises(ConfigError, match=r"sheet.tsv is a folder"):
        read_rows(SHEET)


@pytest.mark.parametrize("text", [
    "\ufeffname\tmodel\r\na\tm\r\n", "name\tmodel\ra\tm\r", "name\t model \n a \tm\n", '"name"\tmodel\n"a"\t"m"\n',
    "# a b c\n\nname\tmodel\n#\tx\na\tm\n",
])  # fmt: skip
def test_what_spreadsheets_write_is_read(text):
    assert read_rows_of(text) == [{"name": "a", "model": "m"}]


def read_rows_of(text):
    SHEET.write_bytes(text.encode())
    return read_rows(SHEET)


def test_a_cell_with_quotation_marks_as_a_spreadsheet_writes_it():
    text = 'name\tmodel\tvllm_args\na\tm\t"--override \'{""x"": 1}\'"\n'
    assert read_rows_of(text) == [{"name": "a", "model": "m", "vllm_args": "--override '{\"x\": 1}'"}]


def test_home_and_variables_in_a_path_are_filled_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WORK", "/work area")
    for step in (10, 9):
        (tmp_path / f"m-{step}").mkdir()
    rows = read_rows_of("name\tmodel\na-{step}\t~/m-{step}\nb\t${WORK}/b\nc\torg/model\n")
    assert [row["model"] for row in rows] == [f"{tmp_path}/m-9", f"{tmp_path}/m-10", "/work area/b", "org/model"]


def test_a_pattern_does_not_take_a_folder_by_its_link_as_well():
    for name in ("m-1", "m-2", "m-last"):
        Path(name).mkdir()
    text = HEAD + "a-{step}\tm-{step}\tr\t{step}\n"
    assert list(read(text)) == ["a-1", "a-2"]
    os.symlink("m-2", "m-3")
    with pytest.raises(ConfigError, match=r"fits m-2 and m-3, which are one folder"):
        read(text)
    # A link to a place outside is how models are shared.
    Path("m-3").unlink()
    Path("elsewhere").mkdir()
    os.symlink("elsewhere", "m-3")
    assert list(read(text)) == ["a-1", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: 1\nb: 2\na: 3\n", ["not YAML", "'a' stands twice", "line 3"]),
        (b"a: {x: 1, y: 2, x: 1}\n", ["'x' stands twice", "line 1"]),
        (b"a:\n- {x: 1, 'x': 2}\n", ["'x' stands twice"]),
        ("a: ü\n".encode("latin-1"), ["is not UTF-8. Line 1 holds the byte 0xfc"]),
        ("a: 1\n".encode("utf-16"), ["UTF-16"]),
        (b"a: 2024-02-30\n", ["not YAML"]),
        (b"a: \x07\n", ["not YAML"]),
        (b"a: &a [*a]\n" + b"[" * 5000, ["x.yaml"]),
        (b"{[1]: 2}\n", ["not YAML"]),
        (b"a: !!python/object:os.system x\n", ["not YAML"]),
    ],
)
def test_a_yaml_file_that_says_something_else(text, words):
    Path("x.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(Path("x.yaml"))
    for word in words:
        assert word in str(caught.value)


def test_what_a_mapping_takes_over_may_be_overwritten():
    Path("x.yaml").write_text("base: &b {x: 1, y: 2}\nmore: {<<: *b, x: 3}\n")
    assert read_yaml(Path("x.yaml"))["more"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"seed": 2**63}, "sampling.seed is wrong: 9223372036854775808 does not fit"),
        ({"seed": -(10**60)}, "sampling.seed is wrong: this number does not fit"),
        ({"temperature": float("nan")}, "sampling.temperature is wrong: nan is no number"),
        ({"temperature": float("inf")}, "sampling.temperature is wrong: inf is no number"),
        ({"stop": ["\ud800"]}, "sampling.stop.0 is wrong: it holds half of a character"),
        ({True: 1}, "the key True is no text"),
    ],
)
def test_values_that_no_file_or_server_takes(sampling, words):
    task = {"version": 1, "data": "d", "scorer": {"name": "exact_match"}, "sampling": sampling}
    with pytest.raises(ConfigError, match=words):
        check(task, "task_native", "t.yaml")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"a": 1}\n'.encode("utf-16"), "is UTF-16 text"),
        (b'{"a": "\xfc"}\n', "byte 0xfc, which is not UTF-8"),
        (b'{"a": NaN}\n', "NaN and Infinity are no JSON"),
        (b'{"a": "\\ud800"}\n', "half of a character"),
    ],
)
def test_records_that_cannot_be_read(data, words):
    Path("x.jsonl").write_bytes(data)
    with pytest.raises(RecordError, match=words):
        list(read_records("x.jsonl"))


def test_records_of_editors_and_folders():
    Path("x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert list(read_records("x.jsonl")) == [{"a": 1}]
    Path("folder.jsonl").mkdir()
    with pytest.raises(RecordError, match="is a folder"):
        list(read_records("folder.jsonl"))


@pytest.mark.parametrize(("written", "read"), [
    ("010", "010"), ("1:30", "1:30"), ("-1:30:00", "-1:30:00"), ("190:20:30.15", "190:20:30.15"), ("10", 10), ("0", 0), ("-7", -7),
    ("0x1F", 31), ("1_000", 1000), ("1.5", 1.5), ("-0.5", -0.5), ("1.0e+3", 1000.0), ("'7'", "7"),
])  # fmt: skip
def test_what_only_old_yaml_takes_for_a_number_is_a_text(tmp_path, written, read):
    """010 was read as 8, and 1:30 as 90, without a word."""
    path = tmp_path / "x.yaml"
    path.write_text(f"a: {written}\n")
    found = read_yaml(path)["a"]
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {b: [*x]}\n", "&top a: 1\nb: &y\n  c: {d: *y}\n"])
def test_an_alias_within_what_it_stands_for_is_an_error(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="stands within what it stands for"):
        read_yaml(path)
    path.write_text("a: &x [1]\nb: [*x, *x]\n")
    assert read_yaml(path) == {"a": [1], "b": [[1], [1]]}
