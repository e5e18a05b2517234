"""The rate of the channel, kept by all senders of all hosts together.

Two rows share it: the issues' and the reserved one, for mail that one person waits for. In any window of T seconds at
most DELIVERY_RATE * T + burst messages start, with burst = 2 + DELIVERY_RATE * BURST_SECONDS: one of each row after a
silence, and what a sender that was late catches up.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from newsletter.models import database_now

from .models import Rate

RESERVED = 0.05  # of the rate, for mail that one person waits for
BURST_SECONDS = 0.1  # what a sender that was late may catch up


def take(channel: str, wanted: int) -> tuple[int, float]:
    """How many messages of an issue may start now, and seconds until the next may.

    Call it in the transaction that starts them.
    """
    return _take(channel, 1 - RESERVED, wanted)


def take_reserved(channel: str) -> float:
    """0: one message that somebody waits for may start now. Else seconds until it is worth asking again.

    The reserved share is taken first, then what the issues leave free.
    """
    with transaction.atomic():
        granted, reserved_wait = _take(f"{channel}:reserved", RESERVED, 1)
        if granted:
            return 0.0
        granted, wait = _take(channel, 1 - RESERVED, 1)
        return 0.0 if granted else min(wait, reserved_wait)


def _take(row_name: str, share: float, wanted: int) -> tuple[int, float]:
    """A generic cell rate algorithm (ITU-T I.371) over one locked row: it holds across processes and restarts."""
    if not settings.DELIVERY_RATE or not wanted:
        return wanted, 0.0
    new: dict[str, Any] = {"next_at": database_now}  # called only where there is no row yet
    row, _ = Rate.objects.select_for_update().get_or_create(channel=row_name, defaults=new)
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
