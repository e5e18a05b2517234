"""The database of a house goes away for a while, or its disk is full: `work` waits, and loses nothing.

python -m tests.chaos.away --away 60 [--database postgres] [--default-times]
"""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import time
from collections.abc import Iterator

import psycopg
from psycopg import sql

from tests.chaos import script
from tests.chaos.errand_house import (
    DEFAULT,
    SHORT,
    add_table,
    assert_each_was_done_once,
    put_errands,
    ran_again,
    start_work,
    unfinished,
)
from tests.chaos.parts import family
from tests.house import ON_POSTGRES, READERS, House, Work, a_house
from tests.stand_ins.smtp import SmtpStandIn, stall

EACH = 16  # errands in each lane
FULL = 256 * 1024  # bytes: no file of SQLite's grows beyond, and what lies beyond is not written


@contextlib.contextmanager
def database_away(house: House) -> Iterator[None]:
    """PostgreSQL ends all connections and takes no new one; SQLite's file is locked by somebody else."""
    with _refusing(house) if ON_POSTGRES else _locked(house):
        yield


@contextlib.contextmanager
def full_disk(work: Work) -> Iterator[None]:
    """For all processes of `work`, and what they fork meanwhile."""
    _limit(work, FULL)
    try:
        yield
    finally:
        # Twice: a process that was forked in between has its parent's old limit.
        _limit(work, resource.RLIM_INFINITY)
        _limit(work, resource.RLIM_INFINITY)


@contextlib.contextmanager
def a_busy_house(**settings: str) -> Iterator[tuple[House, SmtpStandIn, Work]]:
    """`work` is in the middle of an issue and of some errands in each lane."""
    with (
        SmtpStandIn(keep_data=False) as server,
        a_house(empty=False, EMAIL_URL=server.url, **settings) as house,
    ):
        server.on("dot", stall(0.2))
        add_table(house)
        put_errands(house, EACH, 0.5)
        house.manage("release", "first", "--now")
        work = start_work(house)
        house.wait_until(lambda: len(server.copies) >= READERS // 10, 40)
        yield house, server, work


def await_the_end(house: House, seconds: float) -> float:
    """Until all jobs are done and the issue is sent; how long it took."""
    began = time.monotonic()
    house.wait_until(lambda: house.state() == "sent" and not unfinished(house), seconds)
    return time.monotonic() - began


def assert_nothing_was_lost(house: House, server: SmtpStandIn) -> None:
    """Each errand had one effect, no job is dead, each reader has one copy and the books know it."""
    assert_each_was_done_once(house, 3 * EACH)
    assert set(server.accepted().values()) == {1}, "somebody has two copies"
    assert len(server.accepted()) == READERS
    assert set(house.statuses()) <= {"sent", "unknown"}


@contextlib.contextmanager
def _refusing(house: House) -> Iterator[None]:
    name = house.database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        let_in = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        server.execute(let_in.format(sql.Identifier(name), sql.SQL("false")))
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            server.execute(let_in.format(sql.Identifier(name), sql.SQL("true")))


@contextlib.contextmanager
def _locked(house: House) -> Iterator[None]:
    file = house.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


def _limit(work: Work, size: int) -> None:
    for pid in family(work.pid):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main() -> None:
    parser = script.parser("the database of a busy `work` goes away for a while")
    parser.add_argument("--away", type=float, default=60.0)
    parser.add_argument("--full-disk", action="store_true", help="SQLite's, instead")
    parser.add_argument("--default-times", action="store_true")
    options = parser.parse_args()
    script.prepare(options.database)
    with a_busy_house(**(DEFAULT if options.default_times else SHORT)) as (house, server, work):
        with full_disk(work) if options.full_disk else database_away(house):
            time.sleep(options.away)
        took = await_the_end(house, 300)
        assert work.process.poll() is None
        print(
            f"{options.database}, {options.away:g} s away: all was done {took:.1f} s after it came back; "
            f"{ran_again(house)} jobs ran again, deliveries: {house.statuses()}"
        )
        assert_nothing_was_lost(house, server)


if __name__ == "__main__":
    main()
