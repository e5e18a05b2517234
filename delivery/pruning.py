"""The daily prune: what is taken away, and at which age. What no line names is kept: the ledger, issues, readers."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from newsletter.models import Transition, database_now
from newsletter.models.transition import Subject

from . import queue
from .models import (
    CircuitBreaker,
    EmailDelivery,
    Heartbeat,
    Job,
    JobTally,
    Lease,
    Notification,
    Occurrence,
    ProviderEvent,
    QuotaTally,
    TransactionalMail,
)
from .models.job import JobState
from .models.job_tally import BUCKETS
from .outcome import Done, Outcome, Wait
from .stopping import stopping

log = structlog.get_logger(__name__)

BATCH = 1000  # rows a statement
# SQLite has one writer: between two batches the others get their turn.
PAUSE = 0.02
TURN_SECONDS = 30.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # the minute of all old tallies
SUMS = ("runs", "seconds", "items", *BUCKETS)


def _delete(rows: QuerySet[Any]) -> int:
    """Take away at most a batch of them; how many."""
    found = _batch(rows)
    with transaction.atomic():
        ids = [row.pk for row in _still(rows, found).only("pk")]
        rows.model._default_manager.filter(pk__in=ids).delete()
    return len(ids)


def _merge(rows: QuerySet[JobTally]) -> int:
    """Add at most a batch of minutes up into one row for each name and ending: all sums stay what they were."""
    found = _batch(rows)
    with transaction.atomic():
        minutes = list(_still(rows, found))
        sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for row in minutes:
            sums[row.name, row.ending].update({field: getattr(row, field) for field in SUMS})
        # In an order: two prunes that add to the same rows wait for each other, and not in a ring.
        for name, ending in sorted(sums):
            old, _ = JobTally.objects.get_or_create(name=name, ending=ending, at=EPOCH)
            more = sums[name, ending]
            JobTally.objects.filter(pk=old.pk).update(**{f: F(f) + more[f] for f in SUMS})
        JobTally.objects.filter(pk__in=[row.pk for row in minutes]).delete()
    return len(minutes)


def _batch(rows: QuerySet[Any]) -> list[int]:
    """Looked for before the transaction: SQLite's one writer is not kept waiting meanwhile."""
    return list(rows.order_by().values_list("pk", flat=True)[:BATCH])


def _still(rows: QuerySet[Any], ids: list[int]) -> QuerySet[Any]:
    """Those of them that are still to go, locked: a dead job or a lease that somebody takes up just now is not."""
    return rows.order_by().filter(pk__in=ids).select_for_update(skip_locked=True)


@dataclass(frozen=True)
class Rule:
    """`rows` gives those that are older than an instant, by an index; `take` takes a batch of them away."""

    what: str
    age: timedelta
    rows: Callable[[datetime], QuerySet[Any]]
    take: Callable[[QuerySet[Any]], int] = _delete


def _jobs(*states: str) -> Callable[[datetime], QuerySet[Any]]:
    return lambda before: Job.objects.filter(finished_at__lt=before, state__in=states)


def _history(subject: Subject) -> Callable[[datetime], QuerySet[Any]]:
    return lambda before: Transition.objects.filter(subject=subject, at__lt=before)


def _leases(before: datetime) -> QuerySet[Any]:
    """Their name would start again with the first fence: not while a row in somebody's hands carries an old one."""
    rows = EmailDelivery.objects.filter(sender=OuterRef("pk"))
    return Lease.objects.over(before).filter(~Exists(rows))


DAY = timedelta(days=1)
# The history of issues and subscriptions has no age: it proves the consent, and who decided what.
TABLE = (
    Rule("jobs", 30 * DAY, _jobs(JobState.DONE, JobState.DISCARDED)),
    Rule("dead jobs", 180 * DAY, _jobs(JobState.DEAD)),  # half a year to look at a dead letter
    Rule("history of jobs", 180 * DAY, _history(Subject.JOB)),
    # A year and a bit, for the question why somebody got no copy; the row itself stays, with its last reason.
    Rule("history of deliveries", 400 * DAY, _history(Subject.DELIVERY)),
    # Beyond all that `schedules` may still call due, or it would be run again.
    Rule("occurrences", 90 * DAY, lambda before: Occurrence.objects.filter(due_utc__lt=before)),
    Rule("heartbeats", DAY, lambda before: Heartbeat.objects.filter(at__lt=before)),
    Rule(
        "notifications",
        180 * DAY,
        lambda before: Notification.objects.filter(created_at__lt=before),
    ),
    # They hold an address.
    Rule(
        "transactional mails",
        30 * DAY,
        lambda before: TransactionalMail.objects.filter(created_at__lt=before),
    ),
    # They hold an address; what they changed stays in the rows and their history.
    Rule(
        "events of providers",
        90 * DAY,
        lambda before: ProviderEvent.objects.filter(received_at__lt=before),
    ),
    Rule(
        "minutes of the tally",
        14 * DAY,
        lambda before: JobTally.objects.filter(at__gt=EPOCH, at__lt=before),
        _merge,
    ),
    # The quota looks back 24 hours.
    Rule("tally of the quota", 2 * DAY, lambda before: QuotaTally.objects.filter(at__lt=before)),
    # Whoever asks a service again makes its row again.
    Rule("breakers", 30 * DAY, lambda before: CircuitBreaker.objects.filter(changed_at__lt=before)),
    Rule("leases", 30 * DAY, _leases),
    Rule("wake-ups", DAY, queue.stale_wakeups),
    Rule("results of django-q2", 7 * DAY, queue.old_results),
    # Of their own end, as django's `clearsessions` does, but in batches.
    Rule("sessions", timedelta(), lambda before: Session.objects.filter(expire_date__lt=before)),
)


def prune(occurrence_id: int) -> Outcome:
    """Take away what is past its age, in short transactions, for TURN_SECONDS; then it goes on in another turn.

    Safe to repeat, and to run twice at once.
    """
    end = time.monotonic() + TURN_SECONDS
    now = database_now()
    taken: Counter[str] = Counter()
    for rule in TABLE:
        while count := rule.take(rule.rows(now - rule.age)):
            taken[rule.what] += count
            if time.monotonic() > end or stopping():
                return Wait(0, f"goes on: {_in_words(taken)}")
            time.sleep(PAUSE)
    note = _in_words(taken)
    return Done(note, partial(_note, occurrence_id, note))


def _note(occurrence_id: int, note: str) -> None:
    Occurrence.objects.filter(pk=occurrence_id).update(note=note[:500])


def _in_words(taken: Counter[str]) -> str:
    said = ", ".join(f"{count} {what}" for what, count in taken.items())
    return f"taken away: {said}" if said else "nothing was old enough"
