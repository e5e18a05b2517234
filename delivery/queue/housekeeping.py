"""What django-q2 leaves in its tables, and what lies there at the wrong hour once the clock was set."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, QuerySet
from django_q.models import OrmQ, Task


def stale_wakeups(before: datetime) -> QuerySet[Any]:
    """Wake-ups that were due before then and that nobody took: of a `work` that is gone, of a lane of another name.

    The sweep makes a new one for each job that still waits; one for a job that is gone ends with its first taker.
    """
    rows: QuerySet[Any] = OrmQ.objects.filter(lock__lt=before)
    return rows


def old_results(before: datetime) -> QuerySet[Any]:
    """What django-q2 keeps of its own of tasks that ended before then."""
    rows: QuerySet[Any] = Task.objects.filter(stopped__lt=before)
    return rows


def move_wakeups(now: datetime, by: timedelta) -> None:
    """Move all that is still to come by so much; in the caller's transaction."""
    OrmQ.objects.filter(lock__gt=now).update(lock=F("lock") + by)
