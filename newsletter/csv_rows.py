"""The rows of a CSV file of people: read as a stream, each with its line, a bad one told and left out."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import BinaryIO, NamedTuple

DELIMITERS = ",;\t|"
MAX_LINES_A_ROW = 10
LONGEST_LINE = 1_000_000  # characters; a file without line ends must not be held in memory

# What a spreadsheet would take for a formula; the export guards it by an apostrophe, the import takes that off.
FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
GUARDED = re.compile(r"'+[=+\-@\t\r＝＋－＠]")
UNDECODED = re.compile(
    "[\udc80-\udcff]"
)  # what "surrogateescape" makes of bytes that are not UTF-8

Tell = Callable[[int, str], object]


class ImportRefused(Exception):
    """The file as a whole cannot be read; the message says why and what to do."""


class Row(NamedTuple):
    line: int
    email: str
    name: str
    state: str


def rows(file: BinaryIO, tell: Tell) -> Iterator[Row]:
    """The rows that are not empty, from where the file stands; `tell` hears of a row that cannot be read.

    The first line names the columns: `email`, and optional `name` and `state`; comma, semicolon, tab or pipe
    between; UTF-8 with or without BOM. ImportRefused where it is something else.
    """
    with closing(_lines(file)) as lines:
        yield from _rows(lines, tell)


def guard(cell: str) -> str:
    """The cell, as no spreadsheet takes it for a formula."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def one_line(name: str) -> str:
    """Without control characters, and with single spaces."""
    if not name.isprintable():
        name = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(name.split())


def _rows(lines: Iterator[str], tell: Tell) -> Iterator[Row]:
    number, first = next(((n, line) for n, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not first:
        raise ImportRefused("The file is empty: it needs a first line with the column `email`.")
    columns, delimiter = _header(first)
    email, name, state = (_last(columns, wanted) for wanted in ("email", "name", "state"))
    ahead: deque[str] = deque()
    while line := ahead.popleft() if ahead else next(lines, ""):
        number += 1
        at = number
        try:
            cells, more = _cells(line, ahead, lines, delimiter)
        except csv.Error as error:
            tell(at, f"cannot be read: {error}")
            continue
        number += more
        if any(cell.strip() for cell in cells):
            yield Row(at, _cell(cells, email), _cell(cells, name), _cell(cells, state))


def _lines(file: BinaryIO) -> Generator[str, None, None]:
    """With their ends, whichever they are. What is over LONGEST_LINE is cut there."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    number = 0
    try:
        while line := text.readline(LONGEST_LINE):
            number += 1
            if not line.isascii() and UNDECODED.search(line):
                raise ImportRefused(
                    f"Line {number} is not UTF-8. Save the file as UTF-8 (in Excel: “CSV UTF-8”) and try again."
                )
            yield line
            while len(line) == LONGEST_LINE and not line.endswith(("\n", "\r")):
                line = text.readline(LONGEST_LINE)
    except OSError as error:
        raise ImportRefused(
            f"It cannot be read after line {number}: {error.strerror or error}. Nobody was added; try again."
        ) from None
    finally:
        text.detach()


def _header(line: str) -> tuple[list[str], str]:
    """The columns, and the delimiter that makes one of them `email`."""
    read = {delimiter: _names(line, delimiter) for delimiter in DELIMITERS}
    for delimiter, names in read.items():
        if names.count("email") > 1:
            raise ImportRefused("Two columns are named `email`: which one holds the addresses?")
        if "email" in names:
            return names, delimiter
    names = max(read.values(), key=lambda cells: len(cells))
    raise ImportRefused(
        f"The first line has no column `email`. It has: {', '.join(names)[:200]}. "
        "Name the column with the addresses `email`, and an optional one `name`."
    )


def _names(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]


def _last(columns: list[str], wanted: str) -> int | None:
    return max((at for at, name in enumerate(columns) if name == wanted), default=None)


def _cell(cells: list[str], at: int | None) -> str:
    if at is None or at >= len(cells):
        return ""
    cell = cells[at]
    return cell[1:] if GUARDED.match(cell) else cell


def _cells(
    line: str, ahead: deque[str], lines: Iterator[str], delimiter: str
) -> tuple[list[str], int]:
    """The cells of the row that begins with the line, and how many more lines it took."""
    if len(line) == LONGEST_LINE:
        raise csv.Error("the line is too long")
    if '"' not in line:
        return next(csv.reader((line,), delimiter=delimiter, skipinitialspace=True)), 0
    # A quotation mark that is never closed would swallow the rows after it, and their readers, in silence.
    ahead.extend(islice(lines, MAX_LINES_A_ROW - 1 - len(ahead)))
    window = [line, *ahead, ""]
    reader = csv.reader(window, delimiter=delimiter, skipinitialspace=True)
    cells = next(reader)
    swallowed = any("@" in cell and ("\n" in cell or "\r" in cell) for cell in cells)
    if swallowed or reader.line_num == len(window):
        raise csv.Error("a quotation mark is not closed")
    for _ in range(reader.line_num - 1):
        ahead.popleft()
    return cells, reader.line_num - 1
