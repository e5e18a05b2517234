"""What a crash left behind, every minute and at start: nothing that is due lies untouched."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction

from newsletter.models import Issue, Transition, database_now, update_returning
from newsletter.models.issue import IssueState as S
from newsletter.models.transition import Subject

from . import clock, queue, sending
from .models import EmailDelivery, Job, Lease
from .models.email_delivery import OPEN, DeliveryStatus
from .models.job import JobState
from .steps import enqueue_step

log = structlog.get_logger(__name__)


def recover() -> dict[str, int]:
    """Dead workers' jobs, dead senders' rows, expired rows, runs without a job: how many of each. Safe to repeat.

    Nothing where the clock was set since the last tick: the leases of the living look over, or endless, until they
    have renewed them. The next tick goes on.
    """
    if seconds := clock.jump():
        log.warning("recovery.waits", jump=round(seconds, 1))
        return dict.fromkeys(("jobs", "unknown", "freed", "expired", "woken"), 0)
    _end_impossible_leases()
    found = {
        "jobs": queue.recover(),
        "unknown": _tell_unknown(),
        "freed": _free(),
        "expired": sum(sending.expire(issue) for issue in Issue.objects.filter(state=S.SENDING)),
        "woken": sum(_go_on(issue) for issue in Issue.objects.running().unhindered()),
    }
    if any(found.values()):
        log.info("recovered", **found)
    return found


def _end_impossible_leases() -> None:
    """Nobody takes a lease for so long: its holder died before the clock was set back. Who lives has renewed his."""
    now = database_now()
    far = now + timedelta(seconds=3 * settings.LEASE_SECONDS + 60)
    Job.objects.filter(state=JobState.RUNNING, lease_until__gt=far).update(lease_until=now)
    Lease.objects.filter(expires_at__gt=far).update(expires_at=now)


def _tell_unknown() -> int:
    """sending -> unknown where the sender's lease is over: nobody can tell, and it is never resent by itself."""
    reason = "its sender died or was lost while the row was on the wire"
    with transaction.atomic():
        won = update_returning(
            EmailDelivery.objects.filter(status=DeliveryStatus.SENDING).orphaned(),
            status=DeliveryStatus.UNKNOWN,
            reason="sender_lost",
            settled_at=database_now(),
        )
        ids = (id for (id,) in won)
        Transition.objects.record(Subject.DELIVERY, ids, "sending", "unknown", reason, "recovery")
    return len(won)


def _free() -> int:
    """Rows that a dead sender had claimed and not begun are anybody's."""
    return EmailDelivery.objects.pending().orphaned().update(sender=None, fence=None)


def _go_on(issue: Issue) -> bool:
    """A run whose job is gone gets it back; a ledger with nothing open gets its close."""
    if issue.state != S.SENDING or _has_open_rows(issue):
        return enqueue_step(issue, hurry=False)
    return queue.ensure("close", key=f"close:{issue.pk}", issue_id=issue.pk, id=issue.pk)


def _has_open_rows(issue: Issue) -> bool:
    return EmailDelivery.objects.of(issue.pk).filter(status__in=OPEN).exists()
