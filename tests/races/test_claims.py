"""Several senders lease rows of one ledger at once."""

from __future__ import annotations

import time

import pytest
from django.conf import settings

from delivery import breakers, release, sending, steps
from delivery.models import EmailDelivery, Lease
from delivery.outcome import Done
from delivery.sender import BATCH, FIRST_WINDOWS, Sender
from newsletter.models import Issue
from tests import cast


@pytest.fixture
def frozen(db: None) -> Issue:
    """An issue with a ledger of two first batches and a half."""
    weekly = cast.newsletter()
    cast.readers(weekly, 2 * first() + first() // 2)
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    for step in (steps.await_podcast, steps.publish, steps.await_live, steps.await_live):
        outcome = step(issue.pk)
        assert isinstance(outcome, Done)
        outcome.advance()
    issue.refresh_from_db()
    return issue


def first() -> int:
    return FIRST_WINDOWS * int(settings.DELIVERY_WINDOW)


def claim(issue: Issue, slot: int) -> list[int]:
    lease = Lease.acquire(f"sender:{issue.pk}:{slot}")
    assert lease
    sender = Sender(issue, lease, breakers.enter("smtp"), time.monotonic())
    sender._claim()
    return [row.id for row in sender.claimed]


def test_a_claim_takes_no_more_than_a_batch(frozen: Issue) -> None:
    """PostgreSQL once ran the LIMIT again for each row, and the first sender held the whole ledger."""
    assert [len(claim(frozen, slot)) for slot in range(4)] == [first(), first(), first() // 2, 0]


def test_claims_grow_to_a_batch(frozen: Issue) -> None:
    """So a small list is shared by all senders, and a big one is claimed in few statements."""
    lease = Lease.acquire(f"sender:{frozen.pk}:0")
    assert lease
    sender = Sender(frozen, lease, breakers.enter("smtp"), time.monotonic())
    sender._claim()
    sender.claimed.clear()
    sender._claim()
    assert len(sender.claimed) == first() + first() // 2
    for _ in range(9):
        sender.claimed.clear()
        EmailDelivery.objects.update(sender=None)
        sender._claim()
    assert sender.batch == BATCH


def test_no_row_is_claimed_by_two(frozen: Issue) -> None:
    claims = [claim(frozen, slot) for slot in range(3)]
    ids = [id for ids in claims for id in ids]
    assert len(ids) == len(set(ids)) == EmailDelivery.objects.of(frozen.pk).count()


def test_a_lost_lease_claims_nothing(frozen: Issue) -> None:
    lease = Lease.acquire(f"sender:{frozen.pk}:0")
    assert lease
    sender = Sender(frozen, lease, breakers.enter("smtp"), time.monotonic())
    lease.release()
    sender._claim()
    assert (list(sender.claimed), sender.held) == ([], False)
    assert sending.books(frozen)["pending"] == frozen.audience
