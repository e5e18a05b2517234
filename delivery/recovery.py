"""What a crash left behind, every minute and at start: nothing that is due lies untouched."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from newsletter.models import Issue, database_now
from newsletter.models.issue import IssueState as S

from . import clock, moves, queue, sending
from .ledger import move
from .models import EmailDelivery, House, Job, Lease
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
        return dict.fromkeys(("jobs", "unknown", "skipped", "expired", "woken"), 0)
    _end_impossible_leases()
    mailed = list(_with_open_rows())
    found = {
        "jobs": queue.recover(),
        "unknown": _tell_unknown(),
        "skipped": _skip_cancelled(),
        "expired": sum(sending.expire(issue) for issue in mailed),
        "woken": _wake(mailed),
    }
    if any(found.values()):
        log.info("recovered", **found)
    return found


def wake() -> int:
    """Want all that runs to go on, as after a pause of everything; how many got a job."""
    return _wake(list(_with_open_rows()))


def _end_impossible_leases() -> None:
    """Nobody takes a lease for so long: its holder died before the clock was set back. Who lives has renewed his."""
    now = database_now()
    far = now + timedelta(seconds=3 * settings.LEASE_SECONDS + 60)
    Job.objects.filter(state=JobState.RUNNING, lease_until__gt=far).update(lease_until=now)
    Lease.objects.filter(expires_at__gt=far).update(expires_at=now)


def _tell_unknown() -> int:
    """sending -> unknown where the sender's lease is over: nobody can tell, and it is never resent by itself."""
    note = "its sender died or was lost while the row was on the wire"
    with transaction.atomic():
        rows = EmailDelivery.objects.filter(sender__isnull=False)
        # Its sender stays on the row: whom an operator may ask.
        lost = move(
            moves.LOSE,
            rows,
            reason="sender_lost",
            note=note,
            actor="recovery",
            sender=F("sender"),
        )
    return len(lost)


def _skip_cancelled() -> int:
    """What a cancel in a request had no time for."""
    pending = EmailDelivery.objects.pending().filter(issue_id=OuterRef("pk"))
    issues = Issue.objects.filter(Exists(pending), state=S.CANCELLED)
    return sum(sending.skip_cancelled(issue, "recovery") for issue in issues)


def _with_open_rows() -> QuerySet[Issue]:
    """Mailed issues that still owe copies: the ones that are sending, and those where a copy is resent."""
    pending = EmailDelivery.objects.pending().filter(issue_id=OuterRef("pk"))
    resent = Issue.objects.filter(Exists(pending), state=S.SENT)
    return Issue.objects.filter(state=S.SENDING) | resent


def _wake(mailed: list[Issue]) -> int:
    """The runs, and the closed issues that owe a copy again, wherever nothing holds them."""
    if House.read().is_held:
        return 0
    closed = [issue for issue in mailed if issue.state == S.SENT and issue.may_send]
    return sum(_go_on(issue) for issue in [*Issue.objects.running().unhindered(), *closed])


def _go_on(issue: Issue) -> bool:
    """A run whose job is gone gets it back; a ledger with nothing open gets its close."""
    if issue.state != S.SENDING or sending.owes(issue):
        return enqueue_step(issue, hurry=False)
    return queue.ensure("close", key=f"close:{issue.pk}", issue_id=issue.pk, id=issue.pk)
