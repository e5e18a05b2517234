"""The rate and the quota a day of the channel, kept by all senders of all hosts together.

Two rows share it: the issues' and the reserved one, for mail that one person waits for. In any window of T seconds at
most DELIVERY_RATE * T + burst messages start, with burst = 2 + DELIVERY_RATE * BURST_SECONDS: one of each row after a
silence, and what a sender that was late catches up.

The quota holds in any 24 hours, not from midnight to midnight: what was started is counted by the ten minutes, and the
oldest ten leave the count whole. The issues leave the last of it to the reserved mail.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Min, Sum

from newsletter.models import database_now

from .models import QuotaTally, Rate

RESERVED = 0.05  # of the rate, for mail that one person waits for
BURST_SECONDS = 0.1  # what a sender that was late may catch up
DAY = timedelta(days=1)
TALLY = timedelta(minutes=10)


def take(channel: str, wanted: int) -> tuple[int, float]:
    """How many messages of an issue may start now, and seconds until the next may.

    Call it in the transaction that starts them.
    """
    if not wanted:
        return 0, 0.0
    allowed, wait = _left_today(channel, wanted, 1 - RESERVED)
    granted, pause = _take(channel, 1 - RESERVED, allowed) if allowed else (0, wait)
    _count(channel, granted)
    return granted, pause


def take_reserved(channel: str) -> float:
    """0: one message that somebody waits for may start now. Else seconds until it is worth asking again.

    The reserved share is taken first, then what the issues leave free.
    """
    with transaction.atomic():
        allowed, quota_wait = _left_today(channel, 1, 1.0)
        if not allowed:
            return quota_wait
        granted, reserved_wait = _take(f"{channel}:reserved", RESERVED, 1)
        wait = 0.0
        if not granted:
            granted, wait = _take(channel, 1 - RESERVED, 1)
        _count(channel, granted)
        return 0.0 if granted else min(wait, reserved_wait)


def _left_today(channel: str, wanted: int, share: float) -> tuple[int, float]:
    """How many of the quota are left for this share of it, and seconds until some are again."""
    quota = settings.DELIVERY_DAILY_QUOTA
    if not quota:
        return wanted, 0.0
    _row(channel)  # locked: of two senders the second sees what the first took
    now = database_now()
    today = QuotaTally.objects.filter(channel=channel, at__gt=now - DAY - TALLY)
    counted = today.aggregate(started=Sum("started", default=0), oldest=Min("at"))
    left = max(0, max(1, math.floor(quota * share)) - counted["started"])
    if left:
        return min(wanted, left), 0.0
    oldest: datetime = counted["oldest"] or now
    return 0, max(1.0, (oldest + DAY + TALLY - now).total_seconds())


def _count(channel: str, started: int) -> None:
    if not settings.DELIVERY_DAILY_QUOTA or not started:
        return
    now = database_now()
    at = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)
    row, _ = QuotaTally.objects.get_or_create(channel=channel, at=at)
    QuotaTally.objects.filter(pk=row.pk).update(started=F("started") + started)


def _row(name: str) -> Rate:
    """The channel's row, locked."""
    new: dict[str, Any] = {"next_at": database_now}  # called only where there is no row yet
    return Rate.objects.select_for_update().get_or_create(channel=name, defaults=new)[0]


def _take(row_name: str, share: float, wanted: int) -> tuple[int, float]:
    """A generic cell rate algorithm (ITU-T I.371) over one locked row: it holds across processes and restarts."""
    if not settings.DELIVERY_RATE or not wanted:
        return wanted, 0.0
    row = _row(row_name)
    now = database_now()  # after the lock: who waited for it has an old time
    # Rounded up: a microsecond too few, and a fast channel is over its rate.
    step = timedelta(microseconds=math.ceil(1_000_000 / (settings.DELIVERY_RATE * share)))
    # Never further ahead than a step, unless the clock went back or the rate was lower then.
    next_at = min(max(row.next_at, now - timedelta(seconds=BURST_SECONDS)), now + step)
    granted = 0
    while granted < wanted and next_at <= now:
        next_at += step
        granted += 1
    Rate.objects.filter(pk=row.pk).update(next_at=next_at)
    return granted, max(0.0, (next_at - now).total_seconds())
