"""django-q2's ORM broker with what a lane needs: delays, a pool's own letters, and no poison.

A row whose `lock` is past is taken, and one in the future is a delay: its own lease is the same column.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import structlog
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from newsletter.models import database_now

log = structlog.get_logger(__name__)

PARTS = {"id", "name", "func", "args", "kwargs"}  # of a task, as its worker reads them


class LaneBroker(ORM):  # type: ignore[misc]
    """Takes the lane's rows, oldest first, and before them those for this very pool (`own`, its heartbeats)."""

    def __init__(self, lane: str, own: str = "") -> None:
        super().__init__(lane)
        self._own = own

    def dequeue(self) -> list[tuple[int, str]] | None:
        """As django-q2 asks: (id, payload) of what was won; None after a pause where there is nothing."""
        now = database_now()
        for key in filter(None, (self._own, self.list_key)):
            due = self.get_connection().filter(key=key, lock__lt=now).order_by("lock")
            won = [row for row in due[: Conf.BULK] if self._take(row)]
            if won:
                return [(row.pk, row.payload) for row in won if self._is_sound(row)]
        time.sleep(Conf.POLL)
        return None

    def timeout(self, task: OrmQ) -> datetime:
        return database_now() + timedelta(seconds=Conf.RETRY)

    def _take(self, row: OrmQ) -> bool:
        mine = self.get_connection().filter(id=row.pk, lock=row.lock)
        return bool(mine.update(lock=self.timeout(row)))

    def _is_sound(self, row: OrmQ) -> bool:
        """A payload that cannot be unpickled kills django-q2's pusher, again and again; one that another SECRET_KEY
        signed is of no use either. Our rows know what is to be done: the sweep wakes it anew."""
        try:
            task = SignedPackage.loads(row.payload)
            if set(task) >= PARTS:
                return True
            raise TypeError
        except Exception as error:  # noqa: BLE001 - whatever pickle can raise
            log.warning("wakeup.unreadable", error=type(error).__name__)
            self.delete(row.pk)
            return False


class DelayedBroker(ORM):  # type: ignore[misc]
    """For one row that is due at a time."""

    def __init__(self, key: str, at: datetime | None) -> None:
        super().__init__(key)
        self._at = at

    def enqueue(self, task: str) -> int:
        lock = self._at or database_now()
        return int(OrmQ.objects.create(key=self.list_key, payload=task, lock=lock).pk)
