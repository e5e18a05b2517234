"""Lanes are held and let go by operators; a held lane's jobs stay queued."""

from __future__ import annotations

import structlog
from django.db import transaction

from delivery.models import Job, LanePause
from newsletter.models import database_now

from .wakeups import wake

log = structlog.get_logger(__name__)

AT_ONCE = 1000  # jobs woken by a resume; the sweep wakes the rest


def is_paused(lane: str) -> bool:
    return LanePause.objects.filter(lane=lane).exists()


def paused_lanes() -> set[str]:
    return set(LanePause.objects.values_list("lane", flat=True))


def pause_lane(lane: str, *, actor: str, reason: str) -> bool:
    """Start no job of the lane any more; those that run come to their end. False where it was paused before."""
    _, created = LanePause.objects.get_or_create(
        lane=lane,
        defaults={"actor": actor[:150], "reason": reason[:500], "since": database_now()},
    )
    if created:
        log.info("lane.paused", lane=lane, actor=actor)
    return created


def resume_lane(lane: str, *, actor: str) -> bool:
    """Let it go on, and wake what is due; False where it was not paused."""
    with transaction.atomic():
        if not LanePause.objects.filter(lane=lane).delete()[0]:
            return False
        now = database_now()
        due = Job.objects.due(now).filter(lane=lane).order_by("due_at")
        for row in due[:AT_ONCE]:
            wake(row, now)
    log.info("lane.resumed", lane=lane, actor=actor)
    return True
