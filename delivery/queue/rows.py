"""Jobs come into being, are hurried, discarded and taken back from the dead: their rows, beside a wake-up for each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q

from delivery.models.job import MAX_CRASHES, Job, JobState, Lane
from delivery.models.job_tally import Ending
from delivery.signals import job_died, job_discarded
from newsletter.models import database_now

from . import tally
from .lanes import paused_lanes
from .registry import REGISTRY
from .wakeups import reached, wake

WAKE_AGAIN_AFTER = timedelta(seconds=40)  # and a minute to the next sweep: P10 has 120 in all
BATCH, MOST_BATCHES = 200, 50  # of the forgotten, in a transaction and in a sweep


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


def retry_dead(row: Job, *, actor: str) -> bool:
    """dead -> queued, by an operator; its body looks at the state again. False where it is not dead, or another of
    its key is on its way."""
    try:
        with transaction.atomic():
            now = database_now()
            won = Job.objects.filter(pk=row.pk, state=JobState.DEAD).update(
                state=JobState.QUEUED, due_at=now, troubles={}, crashes=0, finished_at=None
            )
            if won:
                row.record(JobState.DEAD, JobState.QUEUED, "tried again by an operator", actor)
                wake(row, now)
            return bool(won)
    except IntegrityError:  # one unfinished job a key
        return False


def discard_dead(row: Job, *, actor: str) -> bool:
    """dead -> discarded, by an operator; False where it is not dead any more."""
    with transaction.atomic():
        won = Job.objects.filter(pk=row.pk, state=JobState.DEAD).update(state=JobState.DISCARDED)
        if won:
            row.record(JobState.DEAD, JobState.DISCARDED, "discarded by an operator", actor)
            job_discarded.send(Job, row=row, actor=actor)
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
    tally.count(row, Ending.CRASHED, (now - (row.started_at or now)).total_seconds(), 0)
    if again:
        wake(row, now)
    else:
        tell_death(row, f"its worker died {MAX_CRASHES} times")
    return True


def tell_death(row: Job, reason: str) -> None:
    """In the transaction in which it became dead: told once, by its type or as a dead letter."""
    job_type = REGISTRY.get(row.name)
    if job_type and job_type.gave_up:
        job_type.gave_up(row, reason)
    else:
        job_died.send(Job, row=row, reason=reason)


def _wake_forgotten() -> int:
    """A wake-up is lost with a killed pusher, a rotated key, a purged table."""
    paused = paused_lanes()
    return sum(_wake_forgotten_of(lane) for lane in Lane.values if lane not in paused)


def _wake_forgotten_of(lane: str) -> int:
    stale = database_now() - WAKE_AGAIN_AFTER
    # Behind a backlog a wake-up is late, not lost: a second one would make the backlog longer.
    before = min(stale, reached(lane, stale))
    forgotten = Job.objects.filter(
        Q(woken_at=None) | Q(woken_at__lt=before),
        state=JobState.QUEUED,
        due_at__lte=stale,
        lane=lane,
    )
    touched = 0
    for _ in range(MOST_BATCHES):
        with transaction.atomic():
            now = database_now()
            # Locked: of two hosts that sweep at once one wakes it.
            free = forgotten.select_for_update(skip_locked=True)
            batch = list(free.order_by("due_at")[:BATCH])
            for row in batch:
                wake(row, now)
        touched += len(batch)
        if len(batch) < BATCH:
            break
    return touched
