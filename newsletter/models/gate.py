"""Who says no, or changes an issue's standing, gets through to the row, however many senders read it.

PostgreSQL lets those who ask FOR SHARE pass those who wait for FOR UPDATE: eight senders kept a pause waiting for
60 s. Its advisory locks are first come, first served. And a statement there does not see what commits while it runs:
a sender must not mark a row by a consent that is being withdrawn. SQLite has one writer, and nothing to do here.

Whoever wants both gates takes the house's first. Claims have a lock of their own, which is never taken with these.
"""

from __future__ import annotations

from django.db import connection

from .given import Statement

SPACE, CLAIMS = 0x43415254, 0x43415255  # of our advisory locks
HOUSE = 0  # no issue has this id


def queue_for_house() -> None:
    """Wait here before a no that holds for all issues: a withdrawn consent, a suppression, a pause of everything."""
    _queue(HOUSE, False)


def queue_for_issue(issue_id: int, *, shared: bool = False) -> None:
    """Wait here before the issue's row is locked, in the transaction that locks it."""
    _queue(issue_id, shared)


def queue_for_claims(issue_id: int) -> None:
    """Wait here before rows of the issue are claimed: of two senders the second sees the first one's claim."""
    _queue(issue_id, False, CLAIMS)


def both_gates(issue_id: int) -> Statement | None:
    """What waits at both, shared: the first statement of whoever starts rows of the issue."""
    if connection.vendor != "postgresql":
        return None
    lock = "pg_advisory_xact_lock_shared(%s, %s)"
    return Statement(f"SELECT {lock}, {lock}", [SPACE, HOUSE, SPACE, issue_id])


def _queue(number: int, shared: bool, space: int = SPACE) -> None:
    if connection.vendor != "postgresql":
        return
    kind = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {kind}(%s, %s)", [space, number])
