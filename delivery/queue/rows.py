"""Jobs come into being, are hurried, discarded and taken back from the dead: their rows, beside a wake-up for each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from delivery.models.job import MAX_CRASHES, Job, JobState
from newsletter.models import database_now

from .registry import REGISTRY
from .wakeups import wake

WAKE_AGAIN_AFTER = timedelta(seconds=60)


def enqueue(name: str, *, key: str, issue_id: int | None = None, **args: Any) -> bool:
    """Want this done now: the unfinished job of this key is hurried, or runs once more; else there is a new one (True).

    Call it in the transaction of the change that causes the work.
    """
    with transaction.atomic():
        while not ensure(name, key=key, issue_id=issue_id, **args):
            if _hurry(key):
                return False
        return True


def ensure(
    name: str, *, key: str, issue_id: int | None = None, delay: float = 0, **args: Any
) -> bool:
    """Insert the job where none of this key is unfinished; True where it was inserted. `delay` is in seconds."""
    with transaction.atomic():
        due = database_now() + timedelta(seconds=delay)
        row = Job(
            key=key, name=name, args=args, issue_id=issue_id, due_at=due, lane=REGISTRY[name].lane
        )
        if Job.objects.filter(key=key).unfinished().exists():
            return False
        Job.objects.bulk_create([row], ignore_conflicts=True)  # the constraint decides a race
        created = Job.objects.filter(key=key).unfinished().first()
        if created is None or created.woken_at is not None:
            return False
        wake(created, due)
        return True


def retry_dead(row: Job) -> bool:
    """dead -> queued, by an operator."""
    with transaction.atomic():
        if Job.objects.filter(key=row.key).unfinished().exists():
            return False
        now = database_now()
        won = Job.objects.filter(pk=row.pk, state=JobState.DEAD).update(
            state=JobState.QUEUED, due_at=now, failures=0, crashes=0, finished_at=None
        )
        if won:
            row.record(JobState.DEAD, JobState.QUEUED, "queued again by an operator")
            wake(row, now)
        return bool(won)


def recover() -> int:
    """Queue again what a dead worker held, and wake workers for what was forgotten; the number of jobs touched."""
    return _recover_abandoned() + _wake_forgotten()


def discard(issue_id: int, reason: str) -> None:
    """queued -> discarded for an issue's steps that are not wanted any more; a running one finds out by itself."""
    Job.objects.filter(issue_id=issue_id, state=JobState.QUEUED).exclude(name="notify").update(
        state=JobState.DISCARDED, note=reason, finished_at=database_now()
    )


def _hurry(key: str) -> bool:
    """Due now, or once more after this run; False where it has finished meanwhile.

    Locked: a worker that claims or finishes it just now would miss the change that it is wanted for.
    """
    row = Job.objects.filter(key=key).unfinished().select_for_update().first()
    if row is None:
        return False
    now = database_now()
    if row.state == JobState.RUNNING:
        Job.objects.filter(pk=row.pk).update(again=True)
    elif row.due_at > now:
        Job.objects.filter(pk=row.pk).update(due_at=now)
        wake(row, now)
    return True


def _recover_abandoned() -> int:
    touched = 0
    for row in Job.objects.abandoned()[:1000]:
        with transaction.atomic():
            row.lock_issue()
            touched += _take_back(row)
    return touched


def _take_back(row: Job) -> bool:
    now = database_now()
    again = row.crashes + 1 < MAX_CRASHES
    won = (
        Job.objects.abandoned()
        .filter(pk=row.pk, token=row.token)
        .update(
            state=JobState.QUEUED if again else JobState.DEAD,
            crashes=F("crashes") + 1,
            token="",
            lease_until=None,
            due_at=now,
            finished_at=None if again else now,
            note="its worker died" if again else f"its worker died {MAX_CRASHES} times",
        )
    )
    if not won:
        return False
    row.record("running", "queued" if again else "dead", "its worker died or was lost")
    job_type = REGISTRY.get(row.name)
    if again:
        wake(row, now)
    elif job_type and job_type.gave_up:
        job_type.gave_up(row, f"its worker died {MAX_CRASHES} times")
    return True


def _wake_forgotten() -> int:
    """A wake-up is lost with a killed pusher, a rotated key, a purged table."""
    stale = database_now() - WAKE_AGAIN_AFTER
    forgotten = Job.objects.filter(
        Q(woken_at=None) | Q(woken_at__lte=stale), state=JobState.QUEUED, due_at__lte=stale
    )[:1000]
    touched = 0
    for row in forgotten:
        with transaction.atomic():
            wake(row, database_now())
        touched += 1
    return touched
