"""Jobs that fail too often: raised once, cleared once, whoever looks and however often."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from newsletter.models import database_now, update_returning

from . import health, notifying
from .models import Alert

ALERT_WINDOW = timedelta(hours=1)
ALERT_RUNS = 50  # of fewer a share says nothing
RAISED_ABOVE = 0.02
CLEARED_AT = 0.01  # in between nothing changes: a share around 2 % is told once
PREFIX = "failures:"


def check(now: datetime | None = None) -> None:
    """Raise and clear the alerts of all jobs. Safe on any number of hosts at once; `now` is database_now().

    Cleared is what has at most 1 % of failures in the window. Where it ran fewer than 100 times that means none: a
    job that runs seldom stays raised for an hour after its last failure, and one that runs no more is cleared then.
    """
    now = now or database_now()
    raised = set(Alert.objects.exclude(raised_at=None).values_list("name", flat=True))
    shares = health.failures(now - ALERT_WINDOW)
    for job, share in shares.items():
        if PREFIX + job not in raised and _is_failing(share):
            _raise(job, share, now)
    for name in raised:
        job = name.removeprefix(PREFIX)
        share = shares.get(job, health.Share(0, 0))
        if share.failures <= share.runs * CLEARED_AT:
            _clear(job, share)


def _is_failing(share: health.Share) -> bool:
    return share.runs >= ALERT_RUNS and share.failures > share.runs * RAISED_ABOVE


def _raise(job: str, share: health.Share, now: datetime) -> None:
    """Clear -> raised, for one of all who see it."""
    with transaction.atomic():
        Alert.objects.bulk_create([Alert(name=PREFIX + job)], ignore_conflicts=True)
        won = update_returning(
            Alert.objects.filter(name=PREFIX + job, raised_at=None),
            ("times",),
            raised_at=now,
            times=F("times") + 1,
            detail=_in_words(share),
        )
        if won:
            notifying.tell(
                "failing",
                f"The job “{job}” fails too often",
                _in_words(share),
                "Why stands in its rows: in the admin under Jobs, and in the log of `work` (job.dead, job.finished).",
                level="error",
                once=f"{job}:{won[0][0]}",
            )


def _clear(job: str, share: health.Share) -> None:
    """Raised -> clear, for one of all who see it."""
    with transaction.atomic():
        raised = Alert.objects.filter(name=PREFIX + job).exclude(raised_at=None)
        won = update_returning(raised, ("times",), raised_at=None, detail=_in_words(share))
        if won:
            notifying.tell(
                "recovered",
                f"The job “{job}” works again",
                _in_words(share),
                once=f"{job}:{won[0][0]}",
            )


def _in_words(share: health.Share) -> str:
    minutes = ALERT_WINDOW // timedelta(minutes=1)
    return (
        f"Of its {share.runs} runs in the last {minutes} minutes {share.failures} failed "
        "(retried, degraded, crashed or dead)."
    )
