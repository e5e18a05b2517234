"""What the children of a host do: send, sweep, act. Each runs in a process of its own, forked from one that has
imported everything and holds no connection."""

from __future__ import annotations

import mmap
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from delivery import breakers, patience, queue, recovery, sender, sending, stopping
from delivery.errors import EdgeError
from delivery.models import Job
from delivery.outcome import Done, Wait
from newsletter.models import database_now
from tests.chaos.ledger.failpoints import Failpoints

LONGEST = 0.1  # seconds: a wait is cut short
SWEEP = 0.3
AWAY = (OperationalError, InterfaceError)

Tell = Callable[..., None]


def shorten(values: dict[str, Any]) -> None:
    """The plan's settings, and the times that are no settings."""
    sender.BATCH, sender.FIRST = values["BATCH"], values["FIRST"]
    for name, value in values.items():
        setattr(settings, name, value)
    breakers.PROBE_SECONDS = 0.1
    patience.PAUSE = 0.05


def send(issue_id: int, slot: int, failpoints: Failpoints) -> None:
    """A sender: one turn after the other, as the job runner does it, until it is asked to stop."""
    stopping._flag = mmap.mmap(-1, 1)  # the processes of a `work` share it; here each has its own
    signal.signal(signal.SIGTERM, lambda *_: stopping.stop())
    failpoints.install()
    while not stopping.stopping():
        pause = _turn(issue_id, slot, failpoints.tell)
        _tell_durability(failpoints.tell)
        time.sleep(min(pause, LONGEST))


def sweep(failpoints: Failpoints) -> None:
    """The clerk: the minute tick's recovery, and every job but the senders'."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        for work in (recovery.recover, _do_jobs):
            try:
                work()
            except AWAY:
                connection.close()
            except Exception:  # noqa: BLE001 - it goes to the oracle
                failpoints.tell(trouble=traceback.format_exc()[-2000:])
        time.sleep(SWEEP)


def _turn(issue_id: int, slot: int, tell: Tell) -> float:
    """Seconds until the next."""
    try:
        outcome = sending.deliver(issue_id, slot)
        if isinstance(outcome, Done | Wait):
            with transaction.atomic():
                Job(issue_id=issue_id).lock_issue()
                outcome.advance()
        return outcome.seconds if isinstance(outcome, Wait) else LONGEST
    except EdgeError:
        return LONGEST
    except DatabaseError:
        connection.close()
    except Exception:  # noqa: BLE001 - it goes to the oracle
        tell(trouble=traceback.format_exc()[-2000:])
        connection.close()
    return LONGEST / 2


def _tell_durability(tell: Tell) -> None:
    """What the connection of this turn would survive: SQLite's `synchronous`, PostgreSQL's `synchronous_commit`."""
    ask, right = "PRAGMA synchronous", 2
    if connection.vendor == "postgresql":
        ask, right = "SHOW synchronous_commit", "on"  # type: ignore[assignment]
    try:
        with connection.cursor() as cursor:
            cursor.execute(ask)
            found = cursor.fetchone()[0]
    except DatabaseError:
        connection.close()
        return
    if found != right:
        tell(soft=str(found))


def _do_jobs() -> None:
    while row := Job.objects.due(database_now()).exclude(name="deliver").order_by("id").first():
        queue.run(row.pk)
