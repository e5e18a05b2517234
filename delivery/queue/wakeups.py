"""Rows in django-q2's table: a dotted name and a job's id, nothing else, due at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django_q.brokers.orm import ORM
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task

from delivery.models.job import Job, Lane
from newsletter.models import database_now


def wake(row: Job, at: datetime) -> None:
    """A row in django-q2's table, due at `at`, in the transaction of the caller."""
    Job.objects.filter(pk=row.pk).update(woken_at=at)
    async_task("delivery.queue.run", row.pk, cluster=row.lane, broker=_DelayedBroker(row.lane, at))


def set_tick(dotted_name: str) -> None:
    """The one schedule that django-q2 holds: the minute tick, and one right now."""
    with transaction.atomic():
        Schedule.objects.filter(name="tick").exclude(func=dotted_name).delete()
        Schedule.objects.get_or_create(
            name="tick",
            defaults={
                "func": dotted_name,
                "schedule_type": Schedule.MINUTES,
                "minutes": 1,
                "cluster": Lane.DEFAULT,
                "next_run": database_now(),
            },
        )
    # Now, and when the leases of a `work` that was killed just before are over.
    for at in (None, database_now() + timedelta(seconds=settings.LEASE_SECONDS + 1)):
        async_task(dotted_name, cluster=Lane.DEFAULT, broker=_DelayedBroker(Lane.DEFAULT, at))


class _DelayedBroker(ORM):  # type: ignore[misc]
    """django-q2's ORM broker takes a row whose `lock` is past: a lock in the future is a delay."""

    def __init__(self, lane: str, at: datetime | None) -> None:
        super().__init__(lane)
        self._at = at

    def enqueue(self, task: str) -> int:
        lock = self._at or database_now()
        return int(OrmQ.objects.create(key=self.list_key, payload=task, lock=lock).pk)
