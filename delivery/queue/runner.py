"""What django-q2 calls: claim the row, run the body, apply what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

import structlog
from django.conf import settings
from django.db import Error, connection, transaction

from delivery.models.job import Job, JobState
from delivery.models.job_tally import Ending
from delivery.outcome import Outcome
from delivery.patience import until_written
from delivery.redaction import in_words
from delivery.stopping import stopping

from . import endings, tally
from .lanes import is_paused
from .registry import REGISTRY, JobType
from .wakeups import wake

log = structlog.get_logger(__name__)


class Gone(Exception):
    """Its name is not registered in this version."""


class Mismatch(Exception):
    """Its arguments do not fit the body in this version."""


def run(job_id: int) -> None:
    """What django-q2 calls: claim the job, run its body, apply what it returns or raises. Safe to call twice."""
    row = Job.objects.filter(pk=job_id).first()
    if row is None or row.state != JobState.QUEUED:
        return
    if stopping():
        wake(row, row.due_at)  # for the next `work`: django-q2 runs all that it has prefetched
        return
    if is_paused(row.lane):
        return  # resuming the lane wakes it
    if not row.claim():
        return
    about = {"job": row.name, "job_id": row.pk, "issue": row.issue_id, "lane": row.lane}
    with structlog.contextvars.bound_contextvars(**about, attempt=row.runs):
        began = time.monotonic()
        with _renewed(row):
            came = _perform(row)
        _apply(row, came, time.monotonic() - began)


def _perform(row: Job) -> Outcome | Exception:
    try:
        return _checked(row).body(**row.args)
    except Exception as error:  # noqa: BLE001 - the policies decide about each
        return error
    except SystemExit:  # django-q2's time-out: it ends this worker, and the row counts a crash
        log.error("job.timed_out")
        raise


def _checked(row: Job) -> JobType:
    job_type = REGISTRY.get(row.name)
    if job_type is None:
        raise Gone(
            f"this version has no job named {row.name}. Discard it, or run the version that has it"
        )
    if wrong := job_type.mismatch(row):
        raise Mismatch(
            f"its arguments are of another version ({wrong}). Run that version and try it again, or discard it "
            "and ask anew for what it was to do"
        )
    return job_type


def _apply(row: Job, came: Outcome | Exception, seconds: float) -> None:
    """Outcome, finish and what is to be enqueued next: one transaction, if the token still holds."""
    if not isinstance(came, Exception):
        try:
            _log(_commit(row, came, seconds), came, seconds)
            return
        except Exception as error:  # noqa: BLE001
            # Nothing of it was written, or only the word of it was lost: then the token does not hold any more.
            # The advance is not repeated with what it has changed in memory: the body runs again.
            came = error
    try:
        failure = came
        ending = until_written(
            lambda: _commit(row, failure, seconds), settings.JOB_TIMEOUT_SECONDS / 3
        )
    except Exception as error:
        # The row stays `running`; its lease ends, and the sweep queues it again.
        log.exception("job.finish_failed", reason=in_words(error))
        return
    _log(ending, came, seconds)


def _commit(row: Job, came: Outcome | Exception, seconds: float) -> Ending | None:
    row = copy(row)  # it may be tried again
    with transaction.atomic():
        row.lock_issue()
        if isinstance(came, Exception):  # noqa: SIM108 - mypy follows an if
            ending = endings.fail(row, came)
        else:
            ending = endings.finish(row, came)
        if ending:
            tally.count(row, ending, seconds, getattr(came, "items", 0))
        return ending


def _log(ending: Ending | None, came: Outcome | Exception, seconds: float) -> None:
    said: dict[str, object] = {"seconds": round(seconds, 3)}
    said["note"] = in_words(came) if isinstance(came, Exception) else came.note
    if ending is None:
        log.warning("job.lost_its_lease", **said)
    elif ending == Ending.DEAD:
        log.error("job.dead", **said, exc_info=came if isinstance(came, Exception) else None)
    else:
        level = log.warning if ending in (Ending.RETRIED, Ending.DEGRADED) else log.info
        level("job.finished", outcome=ending.value, **said)


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
            except Error:
                log.warning("job.renewal_failed")
                connection.close()
    finally:
        connection.close()
