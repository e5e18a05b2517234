"""The workers' part, in this process: runs what is due until nothing is, as often as a test wants."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import transaction

from delivery import jobs, queue, release
from delivery.errors import EdgeError
from delivery.models import EmailDelivery, Job, LedgerTally
from delivery.models.job import JobState
from delivery.outcome import Done, Outcome, Wait
from delivery.queue.registry import REGISTRY
from newsletter.models import Issue, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast

MOST = 200
assert jobs  # its import registers the bodies


def drain(*, twice: bool = False, but: str = "", most: int = MOST) -> list[str]:
    """Run every job that is due, and what follows from it; the names of the jobs in their order.

    `twice`: each body runs once in vain before (its worker died before the finish), and once more
    after it, with its advance applied (a wake-up that came twice). `but`: jobs of this name stay.
    """
    ran: list[str] = []
    while row := _next(but):
        assert len(ran) < most, f"no end after {ran[-10:]}"
        if twice:
            _run_in_vain(row)
        queue.run(row.pk)
        if twice:
            _run_once_more(row)
        ran.append(row.name)
    return ran


def drain_through_waits(*, rounds: int = 30) -> list[str]:
    """The same, and each wait is cut short, until no job is left."""
    ran = drain()
    for _ in range(rounds):
        if not hurry():
            return ran
        ran += drain()
    raise AssertionError(f"jobs are still waiting after {ran[-10:]}")


def hurry(name: str = "") -> int:
    """What waits, of this name or all, is due now; how many."""
    waiting = Job.objects.filter(state=JobState.QUEUED, due_at__gt=database_now())
    return (waiting.filter(name=name) if name else waiting).update(due_at=database_now())


def tell_the_tally(issue: Issue) -> None:
    """The ledger was changed behind the moves' back: its figures are what a count says now."""
    LedgerTally.objects.filter(issue=issue).delete()
    counts = EmailDelivery.objects.of(issue.pk).count_by_status()
    LedgerTally.objects.create(issue=issue, **counts)


def history(issue: Issue) -> list[str]:
    """The reasons in the issue's history, in their order."""
    return [row.reason for row in Transition.objects.of(Subject.ISSUE, issue.pk)]


def moves(issue: Issue) -> list[str]:
    """The states that the issue went through, each as often as it was entered."""
    rows = Transition.objects.of(Subject.ISSUE, issue.pk)
    return [row.new for row in rows if row.new != row.old]


def frozen(readers: int = 3, **newsletter: Any) -> Issue:
    """The weekly's issue with its audience frozen and nothing sent; its senders are queued."""
    weekly = cast.newsletter(**newsletter)
    cast.readers(weekly, readers)
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    drain(but="deliver")
    issue.refresh_from_db()
    assert issue.audience == readers, issue.blocked_reason
    return issue


def row_of(name: str) -> EmailDelivery:
    """The ledger's row of one of the cast."""
    return EmailDelivery.objects.get(address=f"{name}@example.org")


def statuses() -> dict[str, str]:
    """Who of the cast has which status."""
    rows = EmailDelivery.objects.values_list("address", "status").order_by("id")
    return {address.partition("@")[0]: status for address, status in rows}


def _next(but: str) -> Job | None:
    due = Job.objects.due(database_now()).exclude(name=but)
    return due.order_by("due_at", "id").first()


def _run_in_vain(row: Job) -> Outcome | None:
    with suppress(EdgeError):
        return REGISTRY[row.name].body(**row.args)
    return None


def _run_once_more(row: Job) -> None:
    outcome = _run_in_vain(row)
    if isinstance(outcome, Done | Wait):
        with transaction.atomic():
            outcome.advance()
