"""What came of an attempt, and to which row it may still be written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from delivery import release, results
from delivery.models import EmailDelivery, Lease
from delivery.models.email_delivery import DeliveryStatus
from delivery.results import Result
from delivery.transports.outcomes import Outcome, Phase, Reply, Verdict, judge
from newsletter.models import Issue, Suppression, Transition, database_now
from newsletter.models.transition import Subject
from tests.drain import frozen, row_of

pytestmark = pytest.mark.django_db

SENT = judge(Phase.DOT, Reply(250, "", "queued"))
NO_SUCH_USER = judge(Phase.RCPT, Reply(550, "5.1.1", "no such user"))
GREYLISTED = judge(Phase.RCPT, Reply(450, "", "come back later"))
DEFERRED = judge(Phase.DOT, Reply(451, "", "try again"))
DROPPED = judge(Phase.DOT, None, "dropped")
BROKEN = judge(Phase.CONNECT, None, "connect_failed")


@pytest.fixture
def issue() -> Issue:
    return frozen(2)


def on_the_wire(name: str, **over: Any) -> EmailDelivery:
    """The row of one of the cast as a sender has marked it."""
    lease = Lease.acquire("sender:1:0") or Lease.objects.get(name="sender:1:0")
    row = row_of(name)
    values: dict[str, Any] = {
        "status": DeliveryStatus.SENDING,
        "attempt": row.attempt + 1,
        "sending_at": database_now(),
        "sender": lease,
        "fence": lease.fence,
    }
    EmailDelivery.objects.filter(pk=row.pk).update(**{**values, **over})
    row.refresh_from_db()
    return row


def record(row: EmailDelivery, outcome: Outcome, *, attempt: int | None = None) -> EmailDelivery:
    issue = Issue.objects.get(pk=row.issue_id)
    number = row.attempt if attempt is None else attempt
    results.record(issue, [Result(row.pk, number, outcome)])
    row.refresh_from_db()
    return row


def told(row: EmailDelivery) -> list[tuple[str, str]]:
    rows = Transition.objects.of(Subject.DELIVERY, row.pk)
    return [(row.old, row.new) for row in rows]


def test_a_sent_row_is_settled_and_in_nobodys_hands(issue: Issue) -> None:
    row = record(on_the_wire("bob"), SENT)
    assert (row.status, row.sender, row.reason) == ("sent", None, "")
    assert row.settled_at and "queued" in row.reply


def test_the_plain_way_writes_no_history(issue: Issue) -> None:
    assert told(record(on_the_wire("bob"), SENT)) == []


def test_a_refused_row_is_failed_with_its_reason_and_told(issue: Issue) -> None:
    row = record(on_the_wire("bob"), NO_SUCH_USER)
    assert (row.status, row.reason) == ("failed", "mailbox_unavailable")
    assert told(row) == [("sending", "failed")]


def test_an_address_that_does_not_exist_is_suppressed_once(issue: Issue) -> None:
    row = on_the_wire("bob")
    record(record(row, NO_SUCH_USER), NO_SUCH_USER)
    assert Suppression.objects.get().address_key == row.address_key


def test_a_lost_reply_is_unknown(issue: Issue) -> None:
    row = record(on_the_wire("bob"), DROPPED)
    assert (row.status, row.reason) == ("unknown", "dropped")


def test_a_greylisted_row_has_spent_an_attempt_and_waits(issue: Issue, settings: Settings) -> None:
    settings.DELIVERY_RETRY_SECONDS = 300
    row = record(on_the_wire("bob"), GREYLISTED)
    assert (row.status, row.attempts_spent, row.sender, row.fence) == ("pending", 1, None, None)
    assert row.next_attempt_at
    wait = row.next_attempt_at - database_now()
    assert timedelta(0) < wait <= timedelta(seconds=600)


def test_no_wait_is_longer_than_six_hours(settings: Settings) -> None:
    settings.DELIVERY_RETRY_SECONDS = 3600
    assert max(results._full_jitter(9) for _ in range(100)) <= 6 * 3600


def test_spent_attempts_fail_the_row(issue: Issue, settings: Settings) -> None:
    row = on_the_wire("bob", attempts_spent=settings.DELIVERY_ATTEMPTS - 1)
    row = record(row, GREYLISTED)
    assert (row.status, row.reason) == ("failed", "attempts_spent")


def test_a_broken_channel_spends_nothing_and_the_row_is_due_at_once(issue: Issue) -> None:
    row = record(on_the_wire("bob"), BROKEN)
    assert (row.status, row.attempts_spent, row.dot_refusals) == ("pending", 0, 0)
    assert row.next_attempt_at is None


def test_a_deferral_at_the_dot_is_counted(issue: Issue) -> None:
    row = record(on_the_wire("bob"), DEFERRED)
    assert (row.status, row.dot_refusals, row.attempts_spent) == ("pending", 1, 0)


def test_the_fifth_deferral_at_the_dot_fails_the_row(issue: Issue) -> None:
    row = record(on_the_wire("bob", dot_refusals=4), DEFERRED)
    assert (row.status, row.reason) == ("failed", "refused_at_the_dot")


@pytest.mark.parametrize("outcome", [SENT, NO_SUCH_USER, DROPPED, GREYLISTED, DEFERRED, BROKEN])
def test_a_second_record_changes_nothing(issue: Issue, outcome: Outcome) -> None:
    row = record(on_the_wire("bob"), outcome)
    before, history = EmailDelivery.objects.filter(pk=row.pk).values().get(), told(row)
    record(row, outcome)
    assert EmailDelivery.objects.filter(pk=row.pk).values().get() == before
    assert told(row) == history


@pytest.mark.parametrize("outcome", [SENT, DROPPED, GREYLISTED, DEFERRED, NO_SUCH_USER])
def test_a_result_of_another_attempt_matches_nothing(issue: Issue, outcome: Outcome) -> None:
    row = on_the_wire("bob")
    record(row, outcome, attempt=row.attempt - 1)
    assert row.status == "sending"


@pytest.mark.parametrize("status", ["sent", "skipped"])
@pytest.mark.parametrize("outcome", [SENT, DROPPED, GREYLISTED, DEFERRED, NO_SUCH_USER])
def test_what_is_sent_or_skipped_stays_so(issue: Issue, status: str, outcome: Outcome) -> None:
    row = on_the_wire("bob", status=status)
    assert record(row, outcome).status == status


def test_a_result_for_a_row_that_does_not_exist_is_nobodys(issue: Issue) -> None:
    results.record(issue, [Result(10**9, 1, SENT), Result(10**9, 1, GREYLISTED)])
    assert not EmailDelivery.objects.exclude(status="pending").exists()


@pytest.mark.parametrize("status", ["unknown", "failed"])
def test_a_late_acceptance_makes_it_sent(issue: Issue, status: str) -> None:
    row = record(on_the_wire("bob", status=status), SENT)
    assert row.status == "sent"
    assert told(row) == [(status, "sent")]


def test_a_late_refusal_settles_what_was_unknown(issue: Issue) -> None:
    row = record(on_the_wire("bob", status="unknown"), NO_SUCH_USER)
    assert row.status == "failed"


def test_a_late_refusal_does_not_touch_what_failed(issue: Issue) -> None:
    row = record(on_the_wire("bob", status="failed", reason="expired"), NO_SUCH_USER)
    assert row.reason == "expired"


@pytest.mark.parametrize("outcome", [GREYLISTED, BROKEN])
def test_the_holder_of_an_unknown_attempt_gives_it_back(issue: Issue, outcome: Outcome) -> None:
    row = record(on_the_wire("bob", status="unknown", settled_at=database_now()), outcome)
    assert (row.status, row.sender, row.settled_at) == ("pending", None, None)
    assert told(row) == [("unknown", "pending")]


def test_another_holders_word_does_not_give_an_unknown_back(issue: Issue) -> None:
    row = on_the_wire("bob", status="unknown")
    assert record(row, BROKEN, attempt=row.attempt + 1).status == "unknown"


@pytest.mark.parametrize("outcome", [GREYLISTED, DEFERRED, BROKEN])
def test_a_copy_that_was_not_accepted_is_skipped_once_the_issue_is_cancelled(
    issue: Issue, outcome: Outcome
) -> None:
    row = on_the_wire("bob")
    release.cancel(issue, actor="ana")
    row = record(row, outcome)
    assert (row.status, row.reason) == ("skipped", "cancelled")


def test_a_copy_that_was_accepted_is_sent_also_where_the_issue_is_cancelled(issue: Issue) -> None:
    row = on_the_wire("bob")
    release.cancel(issue, actor="ana")
    assert record(row, SENT).status == "sent"


def test_after_the_close_a_copy_that_was_not_accepted_is_owed_again(issue: Issue) -> None:
    row = on_the_wire("bob", status="unknown")
    Issue.objects.filter(pk=issue.pk).update(state="sent")
    assert record(row, BROKEN).status == "pending"


@pytest.mark.parametrize("status", ["pending", "skipped"])
def test_an_acceptance_that_comes_too_late_is_noted_and_changes_nothing(
    issue: Issue, status: str
) -> None:
    row = on_the_wire("bob", status=status)
    assert record(row, SENT).status == status
    assert told(row) == [(status, status)]


def test_the_waits_for_a_recipient_have_full_jitter(settings: Settings) -> None:
    settings.DELIVERY_RETRY_SECONDS = 300
    waits = sorted(results._full_jitter(1) for _ in range(500))
    assert waits[0] < 60
    assert 1140 < waits[-1] < 1200


def test_a_pause_gives_the_row_back(issue: Issue) -> None:
    refused = judge(Phase.MAIL, Reply(550, "", "who are you?"))
    assert refused.verdict is Verdict.PAUSE
    row = record(on_the_wire("bob"), refused)
    assert (row.status, row.attempts_spent) == ("pending", 0)


def test_a_long_foreign_reply_fits(issue: Issue) -> None:
    outcome = Outcome(Verdict.FAILED, "recipient_refused", "x" * 2000, Phase.RCPT)
    assert len(record(on_the_wire("bob"), outcome).reply) == 500
