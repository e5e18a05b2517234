"""The rows of an import in a temporary table of this connection, so that no process holds a million in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from django.db import connection

STAGED_AT_ONCE = 1000

CREATE = """
CREATE TEMPORARY TABLE import_{name} (
    {more} line bigint NOT NULL, address_key text NOT NULL, address text NOT NULL, name text NOT NULL,
    token text NOT NULL
)
"""
PLACE = {
    "sqlite": "place integer PRIMARY KEY, first_line bigint NOT NULL,",
    "postgresql": "place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, first_line bigint NOT NULL,",
}
# In the order of the keys, which are spread evenly: new rows meet the unique index of the keys page by page, and two
# imports of the same people wait for each other in one order.
SORT = """
INSERT INTO import_sorted (first_line, line, address_key, address, name, token)
SELECT min(line) OVER (PARTITION BY address_key {collate}), line, address_key, address, name, token
FROM import_staged ORDER BY address_key {collate}, line
"""
COLLATE = {"sqlite": "", "postgresql": 'COLLATE "C"'}


class StagedRow(NamedTuple):
    line: int
    address_key: str
    address: str
    name: str
    token: str


@contextmanager
def staged(rows: Iterable[StagedRow]) -> Iterator[int]:
    """Put the rows into the table `import_sorted`; gives their number.

    Its columns: place (from 1), first_line (of the same key), line, address_key, address, name, token.
    On SQLite nothing here takes the database's write lock; a temporary table is a file of the connection's own.
    """
    try:
        with connection.cursor() as cursor:
            _drop(cursor)
            cursor.execute(CREATE.format(name="staged", more=""))
            cursor.execute(CREATE.format(name="sorted", more=PLACE[connection.vendor]))
            for batch in _batches(rows):
                _stage(cursor, batch)
            cursor.execute(SORT.format(collate=COLLATE[connection.vendor]))
            number = cursor.rowcount
            cursor.execute("DROP TABLE import_staged")
            cursor.execute("ANALYZE import_sorted")
        yield number
    finally:
        with connection.cursor() as cursor:
            _drop(cursor)


def _batches(rows: Iterable[StagedRow]) -> Iterator[list[StagedRow]]:
    rest = iter(rows)
    while batch := list(islice(rest, STAGED_AT_ONCE)):
        yield batch


def _stage(cursor: Any, batch: list[StagedRow]) -> None:
    if connection.vendor == "postgresql":
        with cursor.copy("COPY import_staged FROM STDIN") as copy:
            for row in batch:
                copy.write_row(row)
        return
    # One statement is one transaction of the temporary file: executemany would make one of each row.
    values = ", ".join(["(%s, %s, %s, %s, %s)"] * len(batch))
    cells = [cell for row in batch for cell in row]
    cursor.execute(f"INSERT INTO import_staged VALUES {values}", cells)  # noqa: S608


def _drop(cursor: Any) -> None:
    for name in ("import_staged", "import_sorted"):
        cursor.execute(f"DROP TABLE IF EXISTS {name}")
