"""Whether the clock was set, and what follows from it: leases and due times go by the database's.

A host's monotonic clock is never set. Each minute tick notes both: until the next they go equally far, or somebody
set the clock. A host that slept looks the same, and is: its monotonic clock stood still, and so did all who work here.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from newsletter.models import Issue, database_now
from newsletter.models.issue import IssueState

from . import notifying, queue
from .models import CircuitBreaker, EmailDelivery, Heartbeat, Job, Rate
from .models.heartbeat import TICK
from .models.job import JobState

log = structlog.get_logger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Reading(NamedTuple):
    """Both clocks at one moment; `took` is how far apart they may have been read, in seconds."""

    at: datetime
    monotonic: float
    took: float


def jump() -> float:
    """Seconds by which the clock was set since this host's last tick: > 0 ahead, < 0 back.

    0.0 where it was not, or where nobody can tell: the first tick of a host, or of a boot.
    """
    last = _last_tick().first()
    return _between(last, _read()) if last else 0.0


def note() -> float:
    """Note both clocks, for the next tick; what was the jump.

    It is told. Back, what waits for a time of the old clock is moved with it; ahead, it is due earlier than it was
    meant, which nothing minds.
    """
    with transaction.atomic():
        # Locked: of two ticks at once on this host one sees the jump.
        last = _last_tick().select_for_update().first()
        now = _read()
        seconds = _between(last, now) if last else 0.0
        Heartbeat.objects.update_or_create(
            work=_host(),
            lane=TICK,
            defaults={"at": now.at, "monotonic": now.monotonic, "boot": _boot()},
        )
        if seconds:
            _tell(seconds, now.at)
        if seconds < 0:
            _move_back(now.at, timedelta(seconds=seconds))
    return seconds


def _last_tick() -> QuerySet[Heartbeat]:
    return Heartbeat.objects.filter(work=_host(), lane=TICK)


def _between(last: Heartbeat, now: Reading) -> float:
    if last.monotonic is None or last.boot != _boot() or now.monotonic < last.monotonic:
        return 0.0
    seconds = (now.at - last.at).total_seconds() - (now.monotonic - last.monotonic)
    # Who lives renews his lease in that time: less of a jump takes nobody's.
    return seconds if abs(seconds) > settings.LEASE_SECONDS / 3 else 0.0


def _read() -> Reading:
    """The best of three: on a busy machine this process may be put to sleep between the two clocks."""
    return min((_read_once() for _ in range(3)), key=lambda reading: reading.took)


def _read_once() -> Reading:
    before = time.monotonic()
    at = database_now()
    after = time.monotonic()
    return Reading(at, after, after - before)


def _host() -> str:
    return socket.gethostname()[:100]


def _boot() -> str:
    with suppress(OSError):
        return BOOT_ID.read_text().strip()[:36]
    return ""


def _tell(seconds: float, now: datetime) -> None:
    log.warning("clock.jumped", seconds=round(seconds, 1))
    notifying.tell(
        "clock_jumped",
        f"The clock jumped by {seconds:+,.0f} s",
        "Since the last minute the database's clock and this host's went apart: one was set, or this host slept.",
        "Nobody's work was taken from him for a minute. Schedules go by the new time: look whether it is right.",
        level="warning",
        once=f"{now:%Y-%m-%d %H}",
    )


def _move_back(now: datetime, by: timedelta) -> None:
    """All that is still to come, by the jump. Two hosts on one database may both do it, and then something comes
    early: each job looks itself at whether its time has come."""
    queued = Job.objects.filter(state=JobState.QUEUED)
    sending = Issue.objects.filter(state=IssueState.SENDING).values("pk")
    waiting: tuple[tuple[QuerySet[Any], str], ...] = (
        (queued, "due_at"),
        (queued, "woken_at"),
        (EmailDelivery.objects.pending().filter(issue__in=sending), "next_attempt_at"),
        (CircuitBreaker.objects.all(), "until"),
        (Rate.objects.all(), "next_at"),
    )
    for rows, field in waiting:
        rows.filter(**{f"{field}__gt": now}).update(**{field: F(field) + by})
    queue.move_wakeups(now, by)
