"""Several senders read ahead in one ledger."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.conf import settings

from delivery import breakers, release, sending, steps
from delivery.claims import lease_name
from delivery.models import EmailDelivery, Lease
from delivery.outcome import Done
from delivery.sender import BATCH, FIRST_WINDOWS, Sender
from newsletter.models import Issue, database_now
from tests import cast
from tests.races import together


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


def a_sender(issue: Issue, slot: int) -> Sender:
    lease = Lease.acquire(lease_name(issue.pk, slot))
    assert lease
    return Sender(issue, lease, breakers.enter("smtp"), time.monotonic())


def claim(issue: Issue, slot: int) -> list[int]:
    sender = a_sender(issue, slot)
    sender._claim()
    return [row.id for row in sender.claimed]


def test_a_claim_takes_no_more_than_a_batch(frozen: Issue) -> None:
    assert [len(claim(frozen, slot)) for slot in range(4)] == [first(), first(), first() // 2, 0]


def test_claims_grow_to_a_batch(frozen: Issue) -> None:
    """So a small list is shared by all senders, and a big one is claimed in few statements."""
    sender = a_sender(frozen, 0)
    sender._claim()
    sender.claimed.clear()
    sender._claim()
    assert len(sender.claimed) == first() + first() // 2
    for _ in range(9):
        sender.claimed.clear()
        sender._claim()
    assert sender.batch == BATCH


def test_no_row_is_claimed_by_two(frozen: Issue) -> None:
    claims = [claim(frozen, slot) for slot in range(3)]
    ids = [id for ids in claims for id in ids]
    assert len(ids) == len(set(ids)) == EmailDelivery.objects.of(frozen.pk).count()


@pytest.mark.django_db(transaction=True)
def test_no_row_is_claimed_by_two_at_once(frozen: Issue) -> None:
    slots, found = iter(range(3)), []
    for thread in together(3, lambda: found.append(claim(frozen, next(slots)))):
        thread.join(20)
    ids = [id for ids in found for id in ids]
    assert len(ids) == len(set(ids)) == EmailDelivery.objects.of(frozen.pk).count()


def test_a_claim_ends_with_its_lease(frozen: Issue) -> None:
    first = a_sender(frozen, 0)
    first._claim()
    first.lease.release()
    assert a_sender(frozen, 0).lease.pk == first.lease.pk, "acquired anew, it begins without"
    assert claim(frozen, 1) == [row.id for row in first.claimed]


def test_a_claim_of_one_who_died_ends_with_its_lease(frozen: Issue) -> None:
    first = a_sender(frozen, 0)
    first._claim()
    Lease.objects.update(expires_at=database_now() - timedelta(seconds=1))
    assert a_sender(frozen, 0).lease.pk == first.lease.pk
    assert claim(frozen, 1) == [row.id for row in first.claimed]


def test_a_claim_is_only_so_wide(frozen: Issue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that came back lie far apart: what lies between is not hidden from others."""
    monkeypatch.setattr("delivery.claims.WIDEST", 5)
    assert [len(claim(frozen, slot)) for slot in range(3)] == [5, 5, 5]


def test_a_row_that_is_not_due_is_not_claimed(frozen: Issue) -> None:
    late = EmailDelivery.objects.of(frozen.pk).order_by("id")[:3]
    EmailDelivery.objects.filter(pk__in=[row.pk for row in late]).update(
        next_attempt_at=database_now() + timedelta(hours=1)
    )
    assert not {row.pk for row in late} & set(claim(frozen, 0))


def test_a_lost_lease_claims_nothing(frozen: Issue) -> None:
    sender = a_sender(frozen, 0)
    sender.lease.release()
    sender._claim()
    assert (list(sender.claimed), sender.held) == ([], False)
    assert sending.books(frozen)["pending"] == frozen.audience
