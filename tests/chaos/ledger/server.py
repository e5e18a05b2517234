"""The database's server, past all of our code: its connections end, or all of it."""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
from contextlib import suppress

import psycopg

from tests.house import ON_POSTGRES, House

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, sqlite3.OperationalError)
OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)


def strike(what: str, house: House) -> None:
    """PostgreSQL only. A restart is a crash: of a killed backend the server ends them all and reads its log."""
    with suppress(*AWAY):
        if what == "terminate":
            house.query(
                f"SELECT pg_terminate_backend(pid) FROM (SELECT pid {OTHERS} ORDER BY random() LIMIT 1) one"
            )
        elif what == "terminate_all":
            house.query(f"SELECT pg_terminate_backend(pid) {OTHERS}")
        else:
            with psycopg.connect(house.database_url) as own:
                os.kill(own.info.backend_pid, signal.SIGKILL)


def columns(house: House, table: str) -> list[str]:
    return _columns(house.database_url, table, house)


@functools.lru_cache(maxsize=32)
def _columns(url: str, table: str, house: House) -> list[str]:
    ask = f"SELECT name FROM pragma_table_info('{table}')"
    if ON_POSTGRES:
        ask = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
    return [str(name) for (name,) in house.query(ask)]
