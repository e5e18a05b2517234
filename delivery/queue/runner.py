"""What django-q2 calls: claim the row, run the body, apply what it returned."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from delivery.errors import EdgeError
from delivery.models.job import Job, JobState
from delivery.outcome import Discard, Done, Outcome, Retry, Wait
from delivery.stopping import stopping
from newsletter.models import database_now

from .registry import REGISTRY
from .rows import ensure
from .wakeups import wake

log = structlog.get_logger(__name__)

MAX_FAILURES = 8
BACKOFF_FIRST, BACKOFF_CAP = 5.0, 600.0


def run(job_id: int) -> None:
    """What django-q2 calls: claim the job, run its body, apply what it returns. Safe to call twice."""
    row = Job.objects.filter(pk=job_id).first()
    if row is None:
        return
    if stopping():
        if row.state == JobState.QUEUED:
            wake(row, row.due_at)  # for the next `work`: django-q2 runs all that it has prefetched
        return
    if not row.claim():
        return
    with structlog.contextvars.bound_contextvars(job=row.name, job_id=row.pk, issue=row.issue_id):
        with _renewed(row):
            outcome = _perform(row)
        _apply(row, outcome)


def _perform(row: Job) -> Outcome:
    job_type = REGISTRY.get(row.name)
    if job_type is None:
        return Discard(f"there is no job named {row.name} in this version")
    try:
        return job_type.body(**row.args)
    except EdgeError as error:
        return Retry(error.message, error.retry_after)
    except Exception as error:  # the row keeps its class; its text may hold an address
        log.exception("job.failed", failures=row.failures + 1)
        return Retry(f"{type(error).__name__} in {row.name}")


def _apply(row: Job, outcome: Outcome) -> None:
    """Outcome, finish and what is to be enqueued next: one transaction, if the token still holds."""
    try:
        with transaction.atomic():
            row.lock_issue()
            held = _finish(row, outcome)
    except DatabaseError:
        # The row stays `running`; its lease ends, and the sweep queues it again.
        log.exception("job.finish_failed")
        return
    event = "job.finished" if held else "job.lost_its_lease"
    log.info(event, outcome=type(outcome).__name__.lower(), note=outcome.note)


def _finish(row: Job, outcome: Outcome) -> bool:
    match outcome:
        case Done(note, advance):
            held = row.finish(JobState.DONE, note)
            if held:
                advance()
                _run_again(row)
        case Wait(seconds, note, advance):
            held = _requeue(row, seconds, note, failures=0)
            if held:
                advance()
        case Retry():
            held = _fail(row, outcome)
        case Discard(note):
            held = row.finish(JobState.DISCARDED, note)
    return held


def _fail(row: Job, outcome: Retry) -> bool:
    failures = row.failures + 1
    if outcome.endless or failures < MAX_FAILURES:
        seconds = max(outcome.seconds or 0, backoff(failures))
        return _requeue(row, seconds, outcome.note, failures=failures)
    return _bury(row, outcome.note)


def _bury(row: Job, note: str) -> bool:
    if not row.finish(JobState.DEAD, note):
        return False
    job_type = REGISTRY.get(row.name)
    if job_type and job_type.gave_up:
        job_type.gave_up(row, note)
    return True


def backoff(failures: int) -> float:
    """Seconds before the next try: exponential with full jitter and a cap."""
    cap = min(BACKOFF_CAP, BACKOFF_FIRST * 2 ** min(failures, 10))
    return random.uniform(1, cap)  # noqa: S311


def _requeue(row: Job, seconds: float, note: str, *, failures: int) -> bool:
    due = database_now() + timedelta(seconds=seconds)
    if not row.requeue(due, note, failures=failures):
        return False
    if _wanted_again(row):  # only now: the row is ours, and locked
        due = database_now()
        Job.objects.filter(pk=row.pk).update(due_at=due)
    wake(row, due)
    return True


def _wanted_again(row: Job) -> bool:
    return bool(Job.objects.filter(pk=row.pk, again=True).update(again=False))


def _run_again(row: Job) -> None:
    if _wanted_again(row):
        ensure(row.name, key=row.key, issue_id=row.issue_id, **row.args)


@contextmanager
def _renewed(row: Job) -> Iterator[None]:
    """Renew the job's lease from a thread, for as long as the body works."""
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(row, stop), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def _keep(row: Job, stop: threading.Event) -> None:
    try:
        while not stop.wait(settings.LEASE_SECONDS / 3):
            try:
                if not row.renew():
                    return
            except DatabaseError:
                log.warning("job.renewal_failed")
                connection.close()
    finally:
        connection.close()
