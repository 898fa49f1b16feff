import os
import stat

import pytest

from milepost.errors import RecordError
from milepost.records import read_prompts, read_record, read_records, write_record, write_records

HEADER = {"task": "t", "kind": "native", "version": 1, "generation": 1, "samples": 1, "sampling": {}}


def test_records_come_back_as_they_were_written(tmp_path):
    records = [{"id": "ä\n\t\0", "n": 1.5}, {}, {"deep": [{"x": None}]}]
    path = tmp_path / "new" / "folder" / "r.jsonl"
    write_records(path, records)
    assert list(read_records(path)) == records
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        (b'{"a": 1}\n\n{"a": 1}\n', "line 2 is empty. One JSON object per line"),
        (b'{"a": 1}\n[1, 2]\n', r"line 2 is not a JSON object: \[1, 2\]"),
        (b'{"a": 1}\n"x"\n', "line 2 is not a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is not JSON"),
        (b'{"a": 1}\n{"a": 1}{"a": 2}\n', "line 2 is not JSON"),
    ],
)
def test_a_malformed_line_is_an_error_with_file_and_line(tmp_path, content, words):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=f"{path}, {words}"):
        list(read_records(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(RecordError, match=r"r\.jsonl does not exist"):
        list(read_records(tmp_path / "r.jsonl"))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.jsonl"
    write_records(path, [{"old": 1}])

    def broken():
        yield {"new": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert list(read_records(path)) == [{"old": 1}]
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_results_get_the_permissions_of_the_users_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_record(tmp_path / "r.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("count", [0, 2])
def test_a_single_record_is_a_single_one(tmp_path, count):
    write_records(tmp_path / "r.json", [{}] * count)
    with pytest.raises(RecordError, match=f"holds {count} records where one is expected"):
        read_record(tmp_path / "r.json")


def test_prompts_begin_with_their_header(tmp_path):
    path = tmp_path / "p.jsonl"
    write_records(path, [HEADER, {"id": "a", "prompt": "?"}])
    assert read_prompts(path).header == HEADER
    assert read_prompts(path).prompts == [{"id": "a", "prompt": "?"}]
    for records in ([], [{"id": "a", "prompt": "?"}]):
        write_records(path, records)
        with pytest.raises(RecordError, match="does not begin with a task's header"):
            read_prompts(path)
