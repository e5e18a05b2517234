"""Who changes an issue's standing gets through to its row, however many senders read it."""

from __future__ import annotations

from django.db import connection

SPACE = 0x43415254  # of our advisory locks


def queue_for_issue(issue_id: int, *, shared: bool = False) -> None:
    """Wait here before the issue's row is locked, in the transaction that locks it.

    PostgreSQL lets those who ask FOR SHARE pass those who wait for FOR UPDATE: eight senders kept a pause waiting for
    60 s. Its advisory locks are first come, first served. SQLite has one writer, and nothing to do here.
    """
    if connection.vendor != "postgresql":
        return
    kind = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {kind}(%s, %s)", [SPACE, issue_id])
