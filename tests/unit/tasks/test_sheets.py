"""Questions and answers from tables, as people keep them."""

import openpyxl
import pytest

from milepost.errors import RecordError
from milepost.tasks.sheets import read_sheet

TABLE = "question,answer\nCapital of France?,Paris\nCapital of Perú?,Lima\n"


def csv(folder, content, name="q.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def pairs(sheet):
    return [(item["messages"][0]["content"], item["target"]) for item in sheet.items]


@pytest.mark.parametrize(
    ("content", "name", "encoding"),
    [
        (TABLE, "q.csv", "utf-8"),
        (TABLE, "q.csv", "utf-8-sig"),
        (TABLE, "q.csv", "utf-16"),
        (TABLE, "q.csv", "cp1252"),
        (TABLE.replace("\n", "\r\n"), "q.csv", "utf-8"),
        (TABLE.replace(",", ";"), "q.csv", "utf-8"),
        (TABLE.replace(",", "\t"), "q.tsv", "utf-8"),
        ("\n" + TABLE + "\n,\n", "q.CSV", "utf-8"),
        ("Prompt,Expected\nCapital of France?,Paris\nCapital of Perú?,Lima\n", "q.csv", "utf-8"),
        ("answer, input, note\nParis, Capital of France?, a\nLima, Capital of Perú?, b\n", "q.csv", "utf-8"),
    ],
)
def test_tables_in_many_forms(tmp_path, content, name, encoding):
    sheet = read_sheet(csv(tmp_path, content, name, encoding))
    assert pairs(sheet) == [("Capital of France?", "Paris"), ("Capital of Perú?", "Lima")]


def test_what_was_taken_for_what_is_said(tmp_path):
    said = read_sheet(csv(tmp_path, "id,frage,answer,note\n7,Wo?,da,x\n"), question="frage").said
    assert said.endswith("q.csv: 1 rows; column 'frage' is asked, 'answer' is the right answer; not used: note")
    assert "Windows-1252" in read_sheet(csv(tmp_path, TABLE, encoding="cp1252")).said


def test_a_text_with_separators_and_lines_and_several_right_answers(tmp_path):
    sheet = read_sheet(csv(tmp_path, 'question,answer\n"One, two,\nthree?",four | 4\n'))
    assert pairs(sheet) == [("One, two,\nthree?", ["four", "4"])]


def test_a_workbook(tmp_path):
    book = openpyxl.Workbook()
    for row in (("question", "answer"), ("2 + 2?", 4.0), (None, None), ("Capital of France?", "Paris")):
        book.active.append(row)
    book.create_sheet("notes")
    book.save(tmp_path / "q.xlsx")
    sheet = read_sheet(tmp_path / "q.xlsx")
    assert pairs(sheet) == [("2 + 2?", "4"), ("Capital of France?", "Paris")]
    assert "the first of 2" in sheet.said


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("a,b\n1,2\n", {}, r"has the columns a, b, and none of them is named as the questions' is .*--question COLUMN"),
        ("question,b\n1,2\n", {}, r"none of them is named as the answers' is"),
        (TABLE, {"answer": "anwser"}, r"no column 'anwser'\. Columns: question, answer\. Did you mean 'answer'"),
        ("question,answer\nx,y\nz,\n", {}, r"column 'answer' is empty in 1 of 2 rows \(row 3\)\. Nothing was asked"),
        ("question,answer\n,y\n", {}, r"column 'question' is empty in 1 of 1 rows \(row 2\)"),
        ("question,answer\n", {}, r"no row below them"),
        ("", {}, r"is empty\. Its first row names columns"),
        ("question,question\na,b\n", {}, r"two columns named 'question'"),
        ("question,answer\nWho, and why?,me\n", {}, r"line 2 has 3 cells, and the first row names 2"),
        (b"\x00\x01\x02", {}, r"is no text"),
        (b"question,answer\n\x81\x8d,x\n", {}, r"neither UTF-8 nor Windows-1252"),
    ],
)
def test_tables_that_are_none(tmp_path, content, options, said):
    with pytest.raises(RecordError, match=said):
        read_sheet(csv(tmp_path, content), **options)


def test_files_that_are_not_what_their_ending_says(tmp_path):
    with pytest.raises(RecordError, match="cannot be read as a workbook"):
        read_sheet(csv(tmp_path, TABLE, "q.xlsx"))
    with pytest.raises(RecordError, match=r"does not exist\. Name a table"):
        read_sheet(tmp_path / "none.csv")
