"""Databases of any size in a minute: rows that the commands made, multiplied by SQL."""

from __future__ import annotations

import contextlib
import sqlite3

from tests.house import ON_POSTGRES, House, newsletter_command, write_subscribers

ISSUE_BYTES = 10_000  # of a copy on the wire, headers and all
TOLERANCE = 0.02
SERIES = (
    "(WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count}) "
    "SELECT n FROM series) series"
)
# Keys are hashes and tokens are random: an index meets them in no order, and that is what it costs.
RANDOM = (
    "encode(sha256((random()::text || n)::bytea), 'hex')"
    if ON_POSTGRES
    else "lower(hex(randomblob(32)))"
)


def furnish(house: House, readers: int) -> None:
    """`weekly`, so many readers and the approved issue `first`, a copy of which has ISSUE_BYTES."""
    write_subscribers(house.folder / "one.csv", 1)
    house.manage_all(
        newsletter_command("weekly"),
        ["import_subscribers", str(house.folder / "one.csv"), "--newsletter", "weekly"],
    )
    write_issue(house)
    house.manage_all(
        ["load_issue", str(house.folder / "first.md"), "--newsletter", "weekly", "--approve"]
    )
    add_readers(house, readers - 1)


def write_issue(house: House) -> None:
    """first.md and copy.eml, one copy of it as it goes over the wire, in the house's folder."""
    program = house.program("-m", "tests.bench.sized_issue", str(house.folder), str(ISSUE_BYTES))
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    size = len((house.folder / "copy.eml").read_bytes())
    assert abs(size - ISSUE_BYTES) <= TOLERANCE * ISSUE_BYTES, f"a copy has {size} bytes"


def add_readers(house: House, count: int) -> None:
    """Confirmed subscribers of `weekly`, as its first one is."""
    if count <= 0:
        return
    multiply(
        house,
        "newsletter_subscriber",
        SERIES.format(count=count),
        address="'person' || n || '@example.org'",
        name="'Person ' || n",
        address_key=RANDOM,
    )
    people = "(SELECT id AS person, id AS n FROM newsletter_subscriber ORDER BY id) people"
    multiply(
        house,
        "newsletter_subscription",
        people,
        "person <> first.subscriber_id",
        subscriber_id="person",
        token=f"substr({RANDOM}, 1, 43)",
    )
    settle(house)


def multiply(
    house: House, table: str, others: str, where: str = "1 = 1", key: str = "id", **values: str
) -> None:
    """Insert the table's first row again for each row of `others`, the columns in `values` by those expressions."""
    kept = [name for name in columns(house, table) if name != "id"]
    chosen = ", ".join(values.get(name, f"first.{name}") for name in kept)
    execute(
        house,
        f"INSERT INTO {table} ({', '.join(kept)}) SELECT {chosen} FROM {table} first, {others} "
        f"WHERE first.{key} = (SELECT min({key}) FROM {table}) AND {where}",
    )


def columns(house: House, table: str) -> list[str]:
    if ON_POSTGRES:
        found = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
    else:
        found = f"SELECT name FROM pragma_table_info('{table}')"
    return [str(name) for (name,) in house.query(found)]


def execute(house: House, statement: str) -> None:
    """One statement; SQLite gets memory for its indexes and need not wait for the disk."""
    if ON_POSTGRES:
        house.change(statement)
        return
    file = house.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        for pragma in ("synchronous = OFF", "cache_size = -1000000", "temp_store = MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        database.execute(statement)


def settle(house: House) -> None:
    """What a server would have done by itself meanwhile: statistics, or an empty journal."""
    execute(house, "VACUUM ANALYZE" if ON_POSTGRES else "PRAGMA wal_checkpoint(TRUNCATE)")
