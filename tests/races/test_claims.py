"""Several senders lease rows of one ledger at once."""

from __future__ import annotations

import time

import pytest

from delivery import breakers, release, sending, steps
from delivery.models import EmailDelivery, Lease
from delivery.outcome import Done
from delivery.sender import BATCH, Sender
from newsletter.models import Issue
from tests import cast


@pytest.fixture
def frozen(db: None) -> Issue:
    """An issue with a ledger of two batches and a half."""
    weekly = cast.newsletter()
    cast.readers(weekly, 2 * BATCH + BATCH // 2)
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    for step in (steps.await_podcast, steps.publish, steps.await_live, steps.await_live):
        outcome = step(issue.pk)
        assert isinstance(outcome, Done)
        outcome.advance()
    issue.refresh_from_db()
    return issue


def claim(issue: Issue, slot: int) -> list[int]:
    lease = Lease.acquire(f"sender:{issue.pk}:{slot}")
    assert lease
    sender = Sender(issue, lease, breakers.enter("smtp"), time.monotonic())
    sender._claim()
    return [row.id for row in sender.claimed]


def test_a_claim_takes_no_more_than_a_batch(frozen: Issue) -> None:
    """PostgreSQL once ran the LIMIT again for each row, and the first sender held the whole ledger."""
    assert [len(claim(frozen, slot)) for slot in range(4)] == [BATCH, BATCH, BATCH // 2, 0]


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
