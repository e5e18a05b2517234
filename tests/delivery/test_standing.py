"""What stops a send, what it may use up, and what a broken database makes of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import InternalError, OperationalError, connection, transaction
from pytest_django import Settings

from delivery import moves, recovery, release, sending
from delivery.ledger import move
from delivery.models import CompiledIssue, EmailDelivery, House, Job, QuotaTally, Rate
from delivery.outcome import Done, Wait
from delivery.results import Result, record
from delivery.sender import Sender
from delivery.transports.outcomes import Phase, Reply, judge
from newsletter.models import Issue, Subscription, Transition, database_now, run_together
from newsletter.models.gate import both_gates
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, drain_through_waits, frozen, history, hurry, row_of, statuses
from tests.stand_ins.smtp import SmtpStandIn, say, stall

pytestmark = pytest.mark.django_db
REFUSED = say("550 5.7.0 not from you")
NO_MAILBOX = say("550 who is that?")


@pytest.fixture(autouse=True)
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settings.SMTP_TIMEOUT_SECONDS = 2
        yield server


def crowd(count: int) -> Issue:
    """A frozen issue with so many readers."""
    issue = frozen(1)
    first = row_of("bob")
    rows = [
        EmailDelivery(
            issue=issue,
            subscription_id=first.subscription_id,
            address=f"reader{n}@example.org",
            address_key=f"key{n}",
            status="pending",
        )
        for n in range(1, count)
    ]
    EmailDelivery.objects.bulk_create(rows)
    Issue.objects.filter(pk=issue.pk).update(audience=count)
    issue.refresh_from_db()
    return issue


# --- the house


def hold() -> None:
    House.lock()
    House.objects.update(paused_at=database_now(), paused_reason="a fire", paused_by="ana")


def test_nothing_leaves_while_the_house_is_held(smtp: SmtpStandIn) -> None:
    issue = frozen(2)
    hold()
    outcome = sending.deliver(issue.pk, 0)
    assert isinstance(outcome, Done) and "a fire" in outcome.note
    assert smtp.copies == []


def test_a_hold_in_mid_send_stops_every_sender_within_its_window(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 1
    issue = crowd(20)
    starts: list[int] = []
    mark = Sender._mark_sending

    def hold_after_three(sender: Sender, *args: Any) -> Any:
        won = mark(sender, *args)
        starts.extend(row.id for row, _ in won)
        if len(starts) == 3:
            hold()
        return won

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sender, "_mark_sending", hold_after_three)
        sending.deliver(issue.pk, 0)
    assert len(smtp.copies) == 3


def test_the_statement_that_marks_reads_the_hold_itself() -> None:
    issue = frozen(1)
    hold()
    assert not EmailDelivery.objects.of(issue.pk).open_to(moves.SKIP_CANCELLED).exists()
    may_send = moves.Move("only", ("pending",), "sending", frozenset({moves.Need.MAY_SEND}))
    assert not EmailDelivery.objects.open_to(may_send).exists()
    House.objects.update(paused_at=None)
    assert EmailDelivery.objects.open_to(may_send).exists()


# --- a COMMIT whose reply is lost


@pytest.mark.django_db(transaction=True)
def test_rows_that_a_lost_commit_marked_are_sent_and_not_unknown(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 2
    issue = frozen(5)
    lost: list[int] = []
    mark, commit = Sender._mark_sending, connection.commit

    def lose_the_second(sender: Sender, *args: Any) -> Any:
        won = mark(sender, *args)
        if won and len(smtp.copies) >= 2 and not lost:
            lost.extend(row.id for row, _ in won)

            def commit_and_break() -> None:
                setattr(connection, "commit", commit)  # noqa: B010
                commit()
                raise OperationalError("the server closed the connection unexpectedly")

            setattr(connection, "commit", commit_and_break)  # noqa: B010
        return won

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sender, "_mark_sending", lose_the_second)
        patch.setattr("delivery.patience.PAUSE", 0.01)
        sending.deliver(issue.pk, 0)
    recovery.recover()
    assert lost
    assert set(statuses().values()) == {"sent"}
    assert set(smtp.accepted().values()) == {1}
    assert set(EmailDelivery.objects.values_list("attempt", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_rows_whose_commit_failed_are_marked_again_in_the_same_turn(smtp: SmtpStandIn) -> None:
    issue = frozen(3)
    away = iter([True])

    def database(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found = execute(sql, params, many, context)
        if params and params[0] == "sending" and next(away, False):
            raise OperationalError("the disk is full")
        return found

    with connection.execute_wrapper(database), pytest.MonkeyPatch.context() as patch:
        patch.setattr("delivery.patience.PAUSE", 0.01)
        sending.deliver(issue.pk, 0)
    assert statuses() == {"bob": "sent", "carla": "sent", "davi": "sent"}


@pytest.mark.django_db(transaction=True)
def test_a_database_that_may_only_be_read_for_a_while_makes_nothing_unknown(
    smtp: SmtpStandIn,
) -> None:
    issue = frozen(2)
    away = iter([True, True, True])

    def database(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if params and params[0] == "sent" and next(away, False):
            raise InternalError("cannot execute UPDATE in a read-only transaction")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(database), pytest.MonkeyPatch.context() as patch:
        patch.setattr("delivery.patience.PAUSE", 0.01)
        sending.deliver(issue.pk, 0)
    assert statuses() == {"bob": "sent", "carla": "sent"}


def test_a_process_that_was_stopped_past_its_lease_begins_nothing(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    issue = frozen(2)
    claim = Sender._claim

    def sleep_for_long(sender: Sender) -> None:
        claim(sender)
        sender.renewed_at -= settings.LEASE_SECONDS / 3 - 1
        renewed = sender._renew

        def late() -> None:
            renewed()
            sender.renewed_at -= settings.LEASE_SECONDS * 2

        sender._renew = late  # type: ignore[method-assign]
        sender.renewed_at -= settings.LEASE_SECONDS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sender, "_claim", sleep_for_long)
        patch.setattr(Sender, "_renewal_is_due", lambda sender: False)
        sending.deliver(issue.pk, 0)
    assert smtp.copies == []
    assert statuses() == {"bob": "pending", "carla": "pending"}
    drain_through_waits()
    assert smtp.accepted() == Counter({"bob@example.org": 1, "carla@example.org": 1})


def test_rows_that_wait_for_a_connection_past_the_turn_go_back(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW, settings.DELIVERY_CONNECTIONS = 8, 1
    settings.SENDER_SECONDS = 0.3
    smtp.on("dot", stall(0.25))
    issue = frozen(6)
    outcome = sending.deliver(issue.pk, 0)
    assert isinstance(outcome, Wait) and outcome.seconds == 0
    found = Counter(statuses().values())
    assert found["sent"] == len(smtp.copies) < 4
    assert set(found) == {"sent", "pending"}
    assert not EmailDelivery.objects.filter(attempts_spent__gt=0).exists()


# --- the first answers


def test_a_list_of_which_many_are_refused_pauses_among_its_first(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 1
    smtp.on("rcpt", NO_MAILBOX)
    issue = crowd(60)
    drain()
    issue.refresh_from_db()
    assert issue.paused_at
    assert "11 of the first 11 were refused for good" in issue.paused_reason
    assert Counter(statuses().values()) == {"failed": 11, "pending": 49}


def test_after_the_resume_the_first_are_counted_anew(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.DELIVERY_WINDOW = 1
    smtp.on("rcpt", NO_MAILBOX, times=12)
    issue = crowd(30)
    drain()
    assert release.resume(issue, actor="ana")
    drain()
    issue.refresh_from_db()
    assert (issue.state, issue.paused_at) == ("sent", None)


def test_an_answer_that_is_written_twice_counts_once(smtp: SmtpStandIn) -> None:
    issue = frozen(1)
    sending.deliver(issue.pk, 0)
    row = row_of("bob")
    again = Result(row.pk, row.attempt, judge(Phase.DOT, Reply(250, "", "queued")))
    assert record(issue, [again]) == []
    assert CompiledIssue.objects.get().results == 1


def test_past_the_first_two_hundred_nobody_counts(smtp: SmtpStandIn) -> None:
    issue = crowd(30)
    CompiledIssue.objects.update(results=200)
    smtp.on("rcpt", NO_MAILBOX)
    drain()
    issue.refresh_from_db()
    assert issue.state == "sent"


# --- the quota of a day


def test_the_quota_of_a_day_is_kept_and_the_rest_waits(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_DAILY_QUOTA = 4
    issue = frozen(6)
    outcome = sending.deliver(issue.pk, 0)
    assert isinstance(outcome, Wait) and "quota" in outcome.note
    assert len(smtp.copies) == 3  # 95 % of it: the last is for mail that somebody waits for
    assert QuotaTally.objects.get().started == 3


def test_the_quota_holds_in_any_24_hours(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.DELIVERY_DAILY_QUOTA = 100
    issue = frozen(6)
    now = database_now()
    QuotaTally.objects.create(channel="smtp", at=now - timedelta(hours=24, minutes=9), started=93)
    QuotaTally.objects.create(channel="smtp", at=now - timedelta(hours=24, minutes=11), started=90)
    sending.deliver(issue.pk, 0)
    assert len(smtp.copies) == 2


def test_without_a_quota_nothing_is_counted(smtp: SmtpStandIn) -> None:
    frozen(2)
    drain()
    assert not QuotaTally.objects.exists() and not Rate.objects.exists()


# --- one row that is deferred for ever


def test_a_row_that_is_deferred_by_policy_goes_behind_the_others(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 1
    smtp.on("rcpt", say("450 4.7.1 later"), recipient="bob@example.org")
    issue = frozen(4)
    for _ in range(3):
        drain()
        hurry()
    found = statuses()
    assert [found[name] for name in ("carla", "davi", "eva")] == ["sent"] * 3
    assert (found["bob"], row_of("bob").attempts_spent) == ("pending", 0)
    issue.refresh_from_db()
    assert issue.state == "sending"


# --- after the close


def reopen(name: str) -> None:
    row = EmailDelivery.objects.filter(address=f"{name}@example.org")
    row.update(status="unknown")
    with transaction.atomic():
        now = database_now()
        assert move(moves.RESEND, row, actor="ana", reason="", note="asked", resent_at=now)


def test_a_copy_that_is_owed_again_after_the_close_is_sent_and_the_state_stays(
    smtp: SmtpStandIn,
) -> None:
    issue = frozen(3)
    drain()
    closed = history(issue)
    reopen("bob")
    assert recovery.recover()["woken"] >= 1
    drain()
    issue.refresh_from_db()
    assert (issue.state, statuses()["bob"]) == ("sent", "sent")
    assert smtp.accepted()["bob@example.org"] == 2
    assert history(issue) == closed
    assert sending.books(issue)["balanced"]


def test_what_is_owed_after_the_close_can_be_paused_and_resumed(smtp: SmtpStandIn) -> None:
    issue = frozen(2)
    drain()
    reopen("bob")
    assert issue.pause(reason="by ana", actor="ana")
    recovery.recover()
    drain()
    assert statuses()["bob"] == "pending"
    assert release.resume(issue, actor="ana")
    drain()
    issue.refresh_from_db()
    assert (issue.state, statuses()["bob"]) == ("sent", "sent")


def test_a_resend_that_is_blocked_goes_on_when_an_operator_tries_again(smtp: SmtpStandIn) -> None:
    issue = frozen(2)
    drain()
    reopen("bob")
    assert issue.block(reason="it died three times", actor="release")
    assert recovery.recover()["woken"] == 0
    release.start(issue, actor="ana")
    drain()
    assert statuses()["bob"] == "sent"


def test_what_is_owed_again_expires_by_its_own_clock(smtp: SmtpStandIn) -> None:
    issue = frozen(2)
    drain()
    long_ago = database_now() - timedelta(hours=90)
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=long_ago)
    reopen("bob")
    assert recovery.recover()["expired"] == 0
    EmailDelivery.objects.update(resent_at=long_ago)
    assert recovery.recover()["expired"] == 1
    assert statuses()["bob"] == "failed"


# --- cancel


def test_what_a_cancel_does_not_reach_is_skipped_by_the_tick(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    issue = frozen(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "REQUEST_SECONDS", 0.0)
        release.cancel(issue, actor="ana")
    assert set(statuses().values()) == {"pending"}
    assert recovery.recover()["skipped"] == 3
    assert set(statuses().values()) == {"skipped"}
    assert not Job.objects.unfinished().filter(name="deliver").exists()
    told = Transition.objects.of(Subject.DELIVERY, row_of("bob").pk).get()
    assert (told.new, told.reason) == ("skipped", "cancelled")


# --- consent


@pytest.mark.django_db(transaction=True)
def test_a_no_waits_for_the_marks_that_are_being_made_and_the_next_mark_sees_it() -> None:
    """PostgreSQL: a statement does not see what commits while it runs."""
    weekly = cast.newsletter()
    subscription = cast.readers(weekly, 1)[0]
    said = threading.Event()

    def say_no() -> None:
        Subscription.objects.get(pk=subscription.pk).unsubscribe(actor="reader", reason="no")
        said.set()
        connection.close()

    with transaction.atomic():
        run_together([both_gates(0)])
        Issue.objects.update(paused_at=None)  # SQLite: we are its one writer
        reader = threading.Thread(target=say_no)
        reader.start()
        assert not said.wait(0.3)
    assert said.wait(10)
    reader.join(10)
