"""What a crash left behind, and what is done about it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pytest_django import Settings

from delivery import recovery, release, sending
from delivery.models import EmailDelivery, Job, Lease
from delivery.models.email_delivery import DeliveryStatus
from newsletter.models import Issue, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, frozen, row_of, statuses

pytestmark = pytest.mark.django_db


@pytest.fixture
def issue() -> Issue:
    return frozen(4)


def sender(number: int = 0) -> Lease:
    lease = Lease.acquire(f"sender:{number}")
    assert lease
    return lease


def die(lease: Lease) -> None:
    """Killed, and the lease is over."""
    Lease.objects.filter(pk=lease.pk).update(expires_at=database_now() - timedelta(seconds=1))


def hold(lease: Lease, *names: str) -> None:
    """The sender has these rows on the wire."""
    values = {"status": "sending", "attempt": 1, "sending_at": database_now()}
    rows = EmailDelivery.objects.filter(address__in=[f"{name}@example.org" for name in names])
    assert rows.update(sender=lease, fence=lease.fence, **values) == len(names)


def settle_all(status: str = "sent") -> None:
    EmailDelivery.objects.update(status=status, settled_at=database_now())


def test_a_dead_senders_copies_on_the_wire_are_unknown(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob", "carla")
    die(lease)
    assert recovery.recover()["unknown"] == 2
    assert statuses() == {
        "bob": "unknown",
        "carla": "unknown",
        "davi": "pending",
        "eva": "pending",
    }


def test_what_became_unknown_is_told_in_its_history(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob")
    die(lease)
    recovery.recover()
    row = row_of("bob")
    change = Transition.objects.of(Subject.DELIVERY, row.pk).get()
    assert (change.old, change.new, change.actor) == ("sending", "unknown", "recovery")
    assert row.reason == "sender_lost"


def test_an_unknown_copy_is_never_sent_again_by_itself(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob")
    die(lease)
    for _ in range(3):
        recovery.recover()
    assert row_of("bob").attempt == 1
    assert row_of("bob").status == "unknown"


def test_a_living_senders_rows_are_left_alone(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob")
    assert recovery.recover()["unknown"] == 0
    assert row_of("bob").status == "sending"


def test_rows_of_an_earlier_owner_of_a_lease_that_is_held_are_found(issue: Issue) -> None:
    dead = sender()
    hold(dead, "bob")
    die(dead)
    alive = sender()
    hold(alive, "davi")
    assert recovery.recover()["unknown"] == 1
    assert row_of("davi").status == "sending"


def test_a_sender_that_released_its_lease_in_mid_send_left_unknowns(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob")
    lease.release()
    assert recovery.recover()["unknown"] == 1


def test_it_is_safe_to_repeat(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob", "carla")
    die(lease)
    recovery.recover()
    before = list(EmailDelivery.objects.order_by("id").values())
    jobs = Job.objects.count()
    assert not any(recovery.recover().values())
    assert list(EmailDelivery.objects.order_by("id").values()) == before
    assert Job.objects.count() == jobs


def test_pending_rows_expire_72_hours_after_the_freeze(issue: Issue) -> None:
    settle_all()
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(status="pending")
    then = database_now() - timedelta(hours=72, minutes=1)
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=then)
    assert recovery.recover()["expired"] == 1
    row = row_of("bob")
    assert (row.status, row.reason) == ("failed", "expired")
    assert Transition.objects.of(Subject.DELIVERY, row.pk).get().reason == "expired"


def test_nothing_expires_before(issue: Issue) -> None:
    then = database_now() - timedelta(hours=71)
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=then)
    assert recovery.recover()["expired"] == 0


def test_a_paused_issue_expires_too(issue: Issue) -> None:
    issue.pause(reason="lunch", actor="ana")
    then = database_now() - timedelta(hours=80)
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=then)
    assert recovery.recover()["expired"] == 4


def test_a_copy_on_the_wire_does_not_expire(issue: Issue) -> None:
    hold(sender(), "bob")
    then = database_now() - timedelta(hours=80)
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=then)
    assert recovery.recover()["expired"] == 3
    assert row_of("bob").status == DeliveryStatus.SENDING


def test_the_hours_are_a_setting(issue: Issue, settings: Settings) -> None:
    settings.DELIVERY_EXPIRY_HOURS = 1
    then = database_now() - timedelta(hours=2)
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=then)
    assert recovery.recover()["expired"] == 4


def test_a_ledger_without_a_sender_gets_its_senders_back(issue: Issue) -> None:
    Job.objects.all().delete()
    assert recovery.recover()["woken"] == 1
    assert {job.name for job in Job.objects.unfinished()} == {"deliver"}


def test_a_ledger_with_nothing_open_gets_its_close(issue: Issue) -> None:
    Job.objects.all().delete()
    settle_all()
    assert recovery.recover()["woken"] == 1
    assert drain() == ["close", "report"]
    issue.refresh_from_db()
    assert issue.state == "sent"


@pytest.mark.parametrize(
    ("state", "job"),
    [
        ("awaiting_podcast", "await_podcast"),
        ("publishing", "publish"),
        ("published", "await_live"),
    ],
)
def test_a_run_whose_job_is_gone_gets_it_back(state: str, job: str) -> None:
    issue = cast.approved(cast.newsletter())
    Issue.objects.filter(pk=issue.pk).update(state=state)
    assert recovery.recover()["woken"] == 1
    assert Job.objects.unfinished().get().name == job


def test_a_run_that_has_its_job_is_left_alone() -> None:
    issue = cast.approved(cast.newsletter())
    release.start(issue, actor="ana", now=True)
    Job.objects.update(due_at=database_now() + timedelta(hours=1))
    assert recovery.recover()["woken"] == 0
    assert not Job.objects.due(database_now()).exists()


@pytest.mark.parametrize("hindrance", ["paused", "blocked"])
def test_a_run_that_is_paused_or_blocked_is_left_alone(issue: Issue, hindrance: str) -> None:
    Job.objects.all().delete()
    hold_up = issue.pause if hindrance == "paused" else issue.block
    hold_up(reason="lunch", actor="ana")
    assert recovery.recover()["woken"] == 0


def test_a_draft_needs_nothing() -> None:
    cast.issue(cast.newsletter())
    assert not any(recovery.recover().values())


def test_the_books_balance_after_it(issue: Issue) -> None:
    lease = sender()
    hold(lease, "bob", "carla")
    die(lease)
    recovery.recover()
    assert sending.books(issue)["balanced"]
