"""Writes all tables into one XLSX file: those for readers first, then the rows behind them with full numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milepost.report.tables_to_read import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

# The file's own limits.
SHEET_NAME, CELL_TEXT = 31, 32_767
# A spreadsheet takes text with such a beginning for a formula, at the latest when somebody edits it.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def write_workbook(path: Path, tables: Sequence[Table], data: Mapping[str, Sequence[DataclassInstance]]) -> None:
    """Write a sheet for each table and for each list of rows; the same content gives the same bytes.

    Args:
        path: The file.
        tables: Tables for readers; all their cells are text.
        data: Rows by the name of their sheet; numbers stay numbers, null is an empty cell.
    """
    import xlsxwriter

    path.parent.mkdir(parents=True, exist_ok=True)
    # Text is text: a model's name must not become a formula or a link.
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        book.set_properties({"created": datetime(2000, 1, 1, tzinfo=UTC), "comments": "Made by Milepost"})
        bold, quoted = book.add_format({"bold": True}), book.add_format({"quote_prefix": True})
        names: set[str] = set()
        for table in tables:
            sheet = _add_sheet(book, table.name, names)
            _write_lines(sheet, [table.header, *table.lines], bold, quoted)
            for place, note in enumerate(table.notes, len(table.lines) + 2):
                _write(sheet, place, 0, note, quoted)
        for name, rows in data.items():
            sheet = _add_sheet(book, f"{name}.csv", names)
            header = [field.name for field in fields(rows[0])] if rows else ["no rows"]
            _write_lines(sheet, [header, *map(astuple, rows)], bold, quoted)


def _add_sheet(book: Workbook, name: str, taken: set[str]) -> Worksheet:
    """Add a sheet, with its name changed where the file format does not allow it."""
    plain = "".join("-" if sign in "[]:*?/\\'" else sign for sign in name)
    number, unique = 1, plain[:SHEET_NAME]
    while unique.lower() in taken:
        number += 1
        unique = f"{plain[: SHEET_NAME - 4]} {number}"
    taken.add(unique.lower())
    sheet: Worksheet = book.add_worksheet(unique)
    return sheet


def _write_lines(sheet: Worksheet, lines: Sequence[Sequence[Any]], bold: Format, quoted: Format) -> None:
    for row, line in enumerate(lines):
        for column, value in enumerate(line):
            _write(sheet, row, column, value, quoted if row else bold)
    sheet.freeze_panes(1, 1)
    if len(lines) > 1:
        sheet.autofilter(0, 0, len(lines) - 1, len(lines[0]) - 1)
    for column, cells in enumerate(zip(*lines, strict=True)):
        sheet.set_column(column, column, min(40, 2 + max(len(_shown(cell)) for cell in cells)))


def _write(sheet: Worksheet, row: int, column: int, value: Any, style: Format) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float):
        sheet.write_number(row, column, value)
    elif value:
        plain = row and not value.startswith(FORMULA_SIGNS)
        sheet.write_string(row, column, value[:CELL_TEXT], None if plain else style)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
