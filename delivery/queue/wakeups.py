"""Rows in django-q2's table: a dotted name and an id, nothing else, due at a time."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import Min
from django_q.models import OrmQ
from django_q.tasks import async_task

from delivery.models import Heartbeat
from delivery.models.job import Job, Lane
from newsletter.models import database_now

from .broker import DelayedBroker


def wake(row: Job, at: datetime) -> None:
    """A row in django-q2's table, due at `at`, in the transaction of the caller."""
    Job.objects.filter(pk=row.pk).update(woken_at=at)
    async_task("delivery.queue.run", row.pk, cluster=row.lane, broker=DelayedBroker(row.lane, at))


def ask_for_beat(work: str, lane: str) -> None:
    """A letter to this very pool: one of its workers writes its heartbeat. One at a time lies there."""
    key = own_key(work, lane)
    with transaction.atomic():
        OrmQ.objects.filter(key=key).delete()
        async_task("delivery.queue.beat", work, lane, broker=DelayedBroker(key, None))


def beat(work: str, lane: str) -> None:
    """What the letter asks for."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(work=work, lane=lane, at=database_now())],
        update_conflicts=True,
        unique_fields=["work", "lane"],
        update_fields=["at"],
    )


def forget(work: str) -> None:
    """This `work` has stopped in good order: its heartbeats and letters go."""
    Heartbeat.objects.filter(work=work).delete()
    OrmQ.objects.filter(key__in=[own_key(work, lane) for lane in Lane.values]).delete()


def own_key(work: str, lane: str) -> str:
    return f"{lane}@{work}"[:100]


def reached(lane: str, now: datetime) -> datetime:
    """Up to where the lane's line was taken: who was woken before has had his turn, who was woken later waits in it."""
    line = OrmQ.objects.filter(key=lane, lock__lte=now)
    return line.aggregate(at=Min("lock"))["at"] or now
