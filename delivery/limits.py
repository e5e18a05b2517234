"""The rate of the channel, kept by all senders together."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings

from newsletter.models import database_now

from .models import Rate

BURST_SECONDS = 0.1  # what a sender that was late may catch up


def take(channel: str, wanted: int) -> tuple[int, float]:
    """How many messages may start now, and seconds until the next may; in the transaction that starts them.

    A generic cell rate algorithm (ITU-T I.371) over one locked row: it holds across processes, hosts and restarts.
    """
    if not settings.DELIVERY_RATE or not wanted:
        return wanted, 0.0
    now = database_now()
    step = timedelta(seconds=1 / settings.DELIVERY_RATE)
    row, _ = Rate.objects.select_for_update().get_or_create(
        channel=channel, defaults={"next_at": now}
    )
    next_at = max(row.next_at, now - max(step, timedelta(seconds=BURST_SECONDS)))
    granted = 0
    while granted < wanted and next_at <= now:
        next_at += step
        granted += 1
    Rate.objects.filter(pk=row.pk).update(next_at=next_at)
    return granted, max(0.0, (next_at - now).total_seconds())
