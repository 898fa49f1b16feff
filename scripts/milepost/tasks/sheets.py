"""Reads questions and answers from a table: CSV, TSV or XLSX, as people keep them."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from milepost.errors import RecordError, did_you_mean
from milepost.records import Message, Prompt

ENDINGS = (".csv", ".tsv", ".xlsx")
# What columns are called, first the likeliest.
QUESTIONS = ("question", "prompt", "input", "query", "instruction", "problem")
ANSWERS = ("answer", "target", "expected", "reference", "solution", "label", "gold", "output")
IDS = ("id", "key", "nr", "number")
SIGNS = ",;\t|"
SHOWN = 5


@dataclass(frozen=True)
class Sheet:
    """Items from a table, and what of it was taken for what, in words."""

    items: list[Prompt]
    said: str


def is_sheet(path: str | Path) -> bool:
    """Whether a file is a table, by its ending."""
    return Path(path).suffix.lower() in ENDINGS


def read_sheet(path: str | Path, question: str | None = None, answer: str | None = None) -> Sheet:
    """Read items from a table whose first row names its columns.

    Args:
        path: The table.
        question: The column of what is asked; found by its name if not given.
        answer: The column of the right answer, likewise. Several right ones are separated by ` | `.

    Raises:
        RecordError: There is no such file, column or row, or a cell is empty; in one paragraph.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path} does not exist. Name a table (.csv, .tsv, .xlsx) or a JSON Lines file (.jsonl).")
    names, rows, how = _workbook(path) if path.suffix.lower() == ".xlsx" else _text(path)
    asked = _column(path, names, question, QUESTIONS, "question")
    right = _column(path, names, answer, ANSWERS, "answer", not_this=asked)
    ident = next((name for name in names if name.strip().lower() in IDS and name not in (asked, right)), None)
    items: list[Prompt] = []
    empty: dict[str, list[int]] = {asked: [], right: []}
    for number, row in rows:
        if not any(row.values()):
            continue
        for name in (asked, right):
            if not row.get(name):
                empty[name].append(number)
        targets = [part for part in row.get(right, "").split(" | ") if part]
        items.append(
            Prompt(
                id=row.get(ident) or f"row-{number}" if ident else f"row-{number}",
                messages=[Message(role="user", content=row.get(asked, ""))],
                target=targets if len(targets) > 1 else row.get(right, ""),
            )
        )
    for name, numbers in empty.items():
        if numbers:
            shown = ", ".join(map(str, numbers[:SHOWN])) + (" and more" if len(numbers) > SHOWN else "")
            raise RecordError(
                f"{path}: the column {name!r} is empty in {len(numbers)} of {len(items)} rows (row {shown}). Nothing was asked."
                " Fill these cells, or take the rows out."
            )
    if not items:
        raise RecordError(
            f"{path} has the columns {', '.join(names)}, and no row below them. Add a row for each question."
        )
    said = f"{path}: {len(items)} rows{how}; column {asked!r} is asked, {right!r} is the right answer"
    rest = [name for name in names if name not in (asked, right, ident)]
    return Sheet(items, said + (f"; not used: {', '.join(rest)}" if rest else ""))


Rows = Iterable[tuple[int, Mapping[str, str]]]


def _text(path: Path) -> tuple[list[str], Rows, str]:
    data = path.read_bytes()
    how = ""
    for encoding in ("utf-8-sig", "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "cp1252"):
        try:
            content = data.decode(encoding)
            break
        except UnicodeDecodeError:
            how = ", read as Windows-1252, since it is not UTF-8"
    else:
        raise RecordError(f"{path} is neither UTF-8 nor Windows-1252. Save it as UTF-8 (`CSV UTF-8` in Excel).")
    if "\0" in content:
        raise RecordError(f"{path} is no text. Save the table as CSV in UTF-8, or as .xlsx.")
    if encoding == "utf-16":
        how = ", read as UTF-16"
    first = content.lstrip().partition("\n")[0]
    sign = max(SIGNS, key=first.count) if path.suffix.lower() != ".tsv" else "\t"
    reader = csv.reader(content.lstrip("\r\n").splitlines(keepends=True), delimiter=sign, skipinitialspace=True)
    try:
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise RecordError(
            f"{path}, line {reader.line_num}: {error}. Correct the quotation marks of that line."
        ) from None
    return _named(path, lines, how)


def _workbook(path: Path) -> tuple[list[str], Rows, str]:
    from zipfile import BadZipFile

    import openpyxl  # here: it takes a third of a second
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, OSError, KeyError, ValueError, BadZipFile) as error:
        raise RecordError(f"{path} cannot be read as a workbook: {error}. Save it anew as .xlsx, or as CSV.") from None
    sheet = book.worksheets[0]
    lines = [
        (number, [_cell(value) for value in row]) for number, row in enumerate(sheet.iter_rows(values_only=True), 1)
    ]
    how = f" of sheet {sheet.title!r}, the first of {len(book.worksheets)}" if len(book.worksheets) > 1 else ""
    book.close()
    return _named(path, lines, how)


def _named(path: Path, lines: Sequence[tuple[int, Sequence[str]]], how: str) -> tuple[list[str], Rows, str]:
    lines = [(number, [cell.strip() for cell in line]) for number, line in lines]
    lines = list(islice((line for line in lines if any(line[1])), 10**7))
    if not lines:
        raise RecordError(
            f"{path} is empty. Its first row names columns (question, answer), each further one is an item."
        )
    names = [name for name in lines[0][1] if name]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RecordError(f"{path} has two columns named {twice!r}. Give each its own name.")
    header = lines[0][1]
    for number, line in lines[1:]:
        if len(line) > len(header) and any(line[len(header) :]):
            raise RecordError(
                f"{path}, line {number} has {len(line)} cells, and the first row names {len(header)}. Put a text that holds the"
                " separator into quotation marks."
            )
    return names, [(number, dict(zip(header, line, strict=False))) for number, line in lines[1:]], how


def _cell(value: Any) -> str:
    """A cell of a workbook as people see it.

    >>> _cell(4.0), _cell(0.5), _cell(True), _cell(None)
    ('4', '0.5', 'TRUE', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)


def _column(
    path: Path, names: list[str], given: str | None, usual: Sequence[str], what: str, not_this: str | None = None
) -> str:
    if given is not None:
        if given in names:
            return given
        raise RecordError(
            f"{path} has no column {given!r}. Columns: {', '.join(names)}.{did_you_mean(given, names)} Correct --{what}."
        )
    found = {name.strip().lower(): name for name in names if name != not_this}
    for name in usual:
        if name in found:
            return found[name]
    raise RecordError(
        f"{path} has the columns {', '.join(names)}, and none of them is named as the {what}s' is ({', '.join(usual)}). Name it:"
        f" --{what} COLUMN."
    )
