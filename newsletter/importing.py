"""Subscribers from a CSV file: good rows get in, each bad one is reported with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from django.db import transaction
from django.db.models import Q

from newsletter.models import (
    AddressKey,
    Newsletter,
    Subscriber,
    Subscription,
    Suppression,
    address_key,
    database_now,
    normalise_address,
)

BATCH = 1000
DELIMITERS = ",;\t|"
NAME_LENGTH = 200
MAX_LINES_A_ROW = 10


class ImportRefused(Exception):
    """The file as a whole cannot be read; the message says why and what to do."""


@dataclass
class Report:
    """What an import did. `problems` are (line, what is wrong)."""

    rows: int = 0
    added: int = 0
    already: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    line: int
    address: str
    key: str
    name: str


def import_subscribers(
    data: bytes, newsletter: Newsletter, *, source: str, progress: Callable[[int], object] = id
) -> Report:
    """Confirm the file's addresses for the newsletter, with `source` as their consent's. Safe to repeat.

    Columns: `email`, and optional `name`; comma, semicolon, tab or pipe between; UTF-8 with or without BOM.
    """
    report = Report()
    AddressKey.check_unchanged()
    rows = _checked(_records(_decode(data), report), report)
    while batch := list(islice(rows, BATCH)):
        _add(batch, newsletter, source, report)
        progress(report.rows)
    return report


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ImportRefused(
            f"Line {line} is not UTF-8. Save the file as UTF-8 (in Excel: “CSV UTF-8”) and try again."
        ) from None
    if not text.strip():
        raise ImportRefused("The file is empty: it needs a first line with the column `email`.")
    return text


def _records(text: str, report: Report) -> Iterator[tuple[int, dict[str, str]]]:
    lines = list(io.StringIO(text, newline=""))
    at = next(number for number, line in enumerate(lines) if line.strip())
    header, delimiter = _header(lines[at])
    at += 1
    while at < len(lines):
        line = at + 1
        try:
            cells, height = _row(lines, at, delimiter)
        except csv.Error as error:
            at += 1
            report.rows += 1
            report.problems.append((line, f"cannot be read: {error}"))
            continue
        at += height
        if any(cell.strip() for cell in cells):
            yield line, dict(zip(header, cells, strict=False))


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


def _row(lines: list[str], at: int, delimiter: str) -> tuple[list[str], int]:
    """The cells of the row that begins there, and its number of lines.

    A quotation mark that is never closed would swallow the rows after it, and their readers, in silence.
    """
    window = [*lines[at : at + MAX_LINES_A_ROW], ""]
    reader = csv.reader(window, delimiter=delimiter, skipinitialspace=True)
    cells = next(reader)
    swallowed = any("@" in cell and ("\n" in cell or "\r" in cell) for cell in cells)
    if swallowed or reader.line_num == len(window):
        raise csv.Error("a quotation mark is not closed")
    return cells, reader.line_num


def _checked(records: Iterable[tuple[int, dict[str, str]]], report: Report) -> Iterator[Row]:
    seen: dict[str, int] = {}
    for line, record in records:
        report.rows += 1
        try:
            address = normalise_address(record.get("email", ""))
        except ValueError as error:
            report.problems.append((line, f"is not an address: {error}"))
            continue
        key = address_key(address)
        if first := seen.get(key):
            report.problems.append((line, f"is the same address as line {first}"))
            continue
        seen[key] = line
        yield Row(line, address, key, _one_line(record.get("name", "")))


def _one_line(name: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(printable.split())[:NAME_LENGTH]


def _add(batch: list[Row], newsletter: Newsletter, source: str, report: Report) -> None:
    """One transaction a batch: what was reported as added is added."""
    with transaction.atomic():
        # Two imports at once take turns: each sees what the other has added.
        Newsletter.objects.select_for_update(no_key=True).get(pk=newsletter.pk)
        suppressed = set(
            Suppression.objects.filter(address_key__in=[row.key for row in batch]).values_list(
                "address_key", flat=True
            )
        )
        welcome = [row for row in batch if row.key not in suppressed]
        report.problems += [
            (row.line, "is suppressed: it must not be mailed")
            for row in batch
            if row.key in suppressed
        ]
        _subscribe(welcome, _subscribers(welcome), newsletter, source, report)


def _subscribers(batch: list[Row]) -> dict[str, int]:
    Subscriber.objects.bulk_create(
        (Subscriber(address=r.address, address_key=r.key, name=r.name) for r in batch),
        ignore_conflicts=True,
    )
    rows = Subscriber.objects.filter(address_key__in=[row.key for row in batch])
    return dict(rows.values_list("address_key", "id"))


def _subscribe(
    batch: list[Row], ids: dict[str, int], newsletter: Newsletter, source: str, report: Report
) -> None:
    before = dict(
        Subscription.objects.filter(
            Q(subscriber_id__in=ids.values()), newsletter=newsletter
        ).values_list("subscriber_id", "state")
    )
    now = database_now()
    new = []
    for row in batch:
        state = before.get(ids[row.key])
        if state == "confirmed":
            report.already += 1
        elif state is not None:
            report.problems.append((row.line, f"is {state} here: an import does not change that"))
        else:
            new.append(
                Subscription(
                    subscriber_id=ids[row.key],
                    newsletter=newsletter,
                    state="confirmed",
                    consent_source=source,
                    consent_at=now,
                )
            )
    Subscription.objects.bulk_create(new)
    report.added += len(new)
