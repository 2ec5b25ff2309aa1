"""CSV, TSV and XLSX -> one line per row, each cell behind the name of its column: `Name: Anna; Role: Nurse`.

A row that a search finds alone can so be understood alone.
"""

from __future__ import annotations

import csv
import datetime
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from types import ModuleType
from typing import Any

from crossrag.errors import LoadError

from .archives import OFFICE_HINT, check_archive
from .decoding import decode
from .parsed import Parsed, join_pages, needed, title_or_nothing
from .repair import clean_text

_DELIMITERS = ",;\t|"
_LONGEST_CELL = 8 * 2**20


def parse_csv(data: bytes, *, fields: Sequence[str] = ()) -> Parsed:
    """Rows of a CSV or TSV file; the delimiter is the one that cuts its first rows most evenly.

    Args:
        data: Text in any encoding.
        fields: Columns to keep, in this order; all where the table has none of them.
    """
    text = clean_text(decode(data))
    csv.field_size_limit(max(_LONGEST_CELL, csv.field_size_limit()))  # one for the whole process
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        return Parsed(text="\n".join(_lines(rows, fields)))
    except csv.Error as error:
        raise LoadError(f"is no table that can be read: {error}", hint="Export it again as CSV") from None


def _delimiter(text: str) -> str:
    sample = text[:16_384].split("\n")
    lines = sample[:20] if len(sample) < 21 else sample[: min(20, len(sample) - 1)]

    def evenness(delimiter: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        return (len(set(widths)) == 1 and widths[0] > 1, max(widths, default=0))

    try:
        return max(_DELIMITERS, key=evenness)
    except csv.Error:
        return ","


def _lines(rows: Iterable[Sequence[str]], fields: Sequence[str]) -> Iterator[str]:
    """One line per row that has any text; the first row names the columns if it looks like names."""
    cleaned = ([" ".join(cell.split()) for cell in row] for row in rows)
    filled = (row for row in cleaned if any(row))
    first = next(filled, [])
    names = first if _are_names(first) else []
    second = next(filled, []) if names else first
    if names and not second:
        yield "; ".join(filter(None, names))  # nothing but names: they are the text
    chosen = _chosen(names, fields)
    yield from filter(None, (_line(row, names, chosen) for row in chain([second], filled)))


def _are_names(row: Sequence[str]) -> bool:
    cells = [cell for cell in row if cell]
    return (
        len(cells) > 1
        and len(set(cells)) == len(cells)
        and all(len(cell) <= 80 and not cell[0].isdigit() and cell[0] not in "-+.$€£" for cell in cells)
    )


def _chosen(names: Sequence[str], fields: Sequence[str]) -> list[int] | None:
    return [names.index(field) for field in fields if field in names] or None


def _line(row: Sequence[str], names: Sequence[str], chosen: Sequence[int] | None) -> str:
    cells = []
    for index in range(len(row)) if chosen is None else chosen:
        cell = row[index] if index < len(row) else ""
        if cell:
            name = names[index] if index < len(names) else ""
            cells.append(f"{name}: {cell}" if name else cell)
    return "; ".join(cells)


def parse_workbook(data: bytes, *, fields: Sequence[str] = ()) -> Parsed:
    """Sheets of an Excel workbook, with the values that were last computed; each sheet is a page by its name.

    Raises:
        LoadError: It is none, it would unpack to too much, or `crossrag[office]` is not installed.
    """
    check_archive(data, holds="xl/", kind="Excel workbook")
    openpyxl = needed("openpyxl", package="openpyxl", extra="office")
    try:
        book = _opened(openpyxl, data)
        names, pages = [], []
        for sheet in book.worksheets:
            names.append(f"sheet {clean_text(sheet.title)}")
            sheet.reset_dimensions()  # what a file says of its size is often wrong
            rows = ([_cell(value) for value in row] for row in sheet.iter_rows(values_only=True))
            pages.append("\n".join(_lines(rows, fields)))
        title = title_or_nothing(book.properties.title)
    except (LoadError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a broken workbook raises whatever its damage leads to
        reason = clean_text(str(error))[:120] or type(error).__name__
        raise LoadError(f"is no Excel workbook that can be read: {reason}", hint=OFFICE_HINT) from None
    text, starts = join_pages(pages)
    return Parsed(text=text, title=title, page_starts=starts, page_names=tuple(names) if starts else ())


def _opened(openpyxl: ModuleType, data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and checks that it does not know and nobody needs
        return openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return clean_text(str(value))
