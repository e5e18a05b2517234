"""The send, over real sockets: the SMTP stand-in is the witness of what went out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email import message_from_bytes
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from pytest_django import Settings

from delivery import breakers, queue, release, sending, stopping
from delivery.claims import unclaimed
from delivery.exchange import Exchange
from delivery.models import (
    CircuitBreaker,
    CompiledIssue,
    EmailDelivery,
    Heartbeat,
    Job,
    Lease,
    LedgerTally,
    Notification,
)
from delivery.outcome import Done, Wait
from delivery.sender import Sender
from newsletter.models import (
    Issue,
    Subscriber,
    Subscription,
    Suppression,
    Transition,
    address_key,
    database_now,
)
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, drain_through_waits, frozen, hurry, row_of, statuses
from tests.stand_ins.smtp import (
    Act,
    SmtpStandIn,
    accept_then_drop,
    drop,
    garbled,
    long_line,
    say,
    say_then_drop,
    stall,
)

pytestmark = pytest.mark.django_db
NOWHERE = "http://127.0.0.1:1/webhook"


@pytest.fixture(autouse=True)
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settings.SMTP_TIMEOUT_SECONDS = 2
        yield server


@pytest.fixture
def told(settings: Settings) -> Callable[[], list[str]]:
    """The events that were told, in their order; they are queued and go nowhere."""
    settings.DISCORD_WEBHOOK_URL = NOWHERE

    def events() -> list[str]:
        return [
            row.notice["event"] for row in Notification.objects.filter(channel="log").order_by("id")
        ]

    return events


def addresses(*names: str) -> Counter[str]:
    return Counter(f"{name}@example.org" for name in names)


def reload(issue: Issue) -> Issue:
    issue.refresh_from_db()
    return issue


# --- the freeze


def test_everybody_who_is_confirmed_is_owed_one_copy() -> None:
    issue = frozen(3)
    assert statuses() == {"bob": "pending", "carla": "pending", "davi": "pending"}
    assert (issue.state, issue.audience) == ("sending", 3)


@pytest.mark.parametrize("no", ["pending", "unsubscribed", "erased", "suppressed", "elsewhere"])
def test_who_is_not_owed_a_copy_is_not_in_the_audience(no: str) -> None:
    weekly = cast.newsletter()
    _, carla = cast.readers(weekly, 2)
    if no in ("pending", "unsubscribed"):
        Subscription.objects.filter(pk=carla.pk).update(state=no)
    elif no == "erased":
        Subscriber.objects.filter(pk=carla.subscriber_id).update(address="")
    elif no == "suppressed":
        Suppression.objects.create(address_key=carla.subscriber.address_key, reason="operator")
    else:
        other = cast.newsletter(slug="monthly")
        Subscription.objects.filter(pk=carla.pk).update(newsletter=other)
    release.start(cast.approved(weekly), actor="ana", now=True)
    drain(but="deliver")
    assert statuses() == {"bob": "pending"}


def test_the_audience_is_frozen_once() -> None:
    issue = frozen(2)
    first = CompiledIssue.objects.get().content
    assert not sending.freeze(issue, sending.compile_issue(issue), actor="ana")
    assert EmailDelivery.objects.count() == 2
    assert CompiledIssue.objects.get().content == first


def test_who_confirms_later_gets_the_next_issue() -> None:
    issue = frozen(1)
    zoe = Subscriber.objects.create(address="zoe@example.org", address_key=address_key("zoe"))
    Subscription.objects.create(
        subscriber=zoe,
        newsletter=issue.newsletter,
        state="confirmed",
        consent_source="a form",
        consent_at=database_now(),
    )
    drain()
    assert statuses() == {"bob": "sent"}


def test_a_paused_issue_is_not_frozen() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 1)
    issue = cast.approved(weekly)
    Issue.objects.filter(pk=issue.pk).update(state="published", web_url="http://x.example/")
    compiled = sending.compile_issue(issue)
    issue.pause(reason="lunch", actor="ana")
    assert not sending.freeze(issue, compiled, actor="ana")
    assert not EmailDelivery.objects.exists()


def test_what_is_sent_is_what_was_approved(smtp: SmtpStandIn) -> None:
    issue = frozen(1)
    Issue.objects.filter(pk=issue.pk).update(title="Changed behind its back", markdown="Changed")
    drain()
    message = message_from_bytes(smtp.copies[0].data)
    assert message["Subject"] == "The first issue"
    assert b"Changed" not in smtp.copies[0].data


# --- the plain way


def test_everybody_gets_one_copy_and_the_books_balance(smtp: SmtpStandIn) -> None:
    issue = frozen(40)
    drain()
    assert len(smtp.accepted()) == 40
    assert set(smtp.accepted().values()) == {1}
    assert sending.books(reload(issue)) | {"issue": ""} == {
        "issue": "",
        "state": "sent",
        "paused": False,
        "audience": 40,
        "pending": 0,
        "sending": 0,
        "sent": 40,
        "failed": 0,
        "unknown": 0,
        "skipped": 0,
        "balanced": True,
    }


def test_a_second_run_sends_nothing(smtp: SmtpStandIn) -> None:
    issue = frozen(3)
    drain(twice=True)
    release.start(issue, actor="ana")
    drain()
    assert smtp.accepted() == addresses("bob", "carla", "davi")


def test_a_copy_is_the_readers_own(smtp: SmtpStandIn) -> None:
    frozen(1)
    drain()
    copy = smtp.copies[0]
    message = message_from_bytes(copy.data)
    token = row_of("bob").subscription.token  # type: ignore[union-attr]
    assert "bob@example.org" in message["To"]
    assert message["List-Unsubscribe"] == f"<http://news.example.org/u/{token}/>"
    assert (copy.mail_from, copy.rcpt_to) == ("ana@news.example.org", ("bob@example.org",))


def test_its_columns_tell_the_plain_way() -> None:
    frozen(1)
    drain()
    row = row_of("bob")
    assert (row.status, row.attempt, row.attempts_spent, row.sender) == ("sent", 1, 0, None)
    assert row.fence and row.sending_at and row.settled_at and "queued" in row.reply


def test_a_message_has_the_same_bytes_at_each_attempt(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_RETRY_SECONDS = 0.001
    smtp.on("dot", say("451 4.3.0 later"), times=1)
    frozen(1)
    drain_through_waits()
    refused, accepted = smtp.copies
    assert (refused.accepted, accepted.accepted) == (False, True)
    assert refused.data == accepted.data


def test_connections_are_kept(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.DELIVERY_CONNECTIONS = settings.WORKERS_BULK = 1
    frozen(20)
    drain()
    assert smtp.connections == 1


# --- consent, at the last moment


def test_a_blocked_issue_is_not_sent(smtp: SmtpStandIn) -> None:
    issue = frozen(2)
    issue.block(reason="one of its jobs died", actor="release")
    drain()
    assert not smtp.copies and set(statuses().values()) == {"pending"}


def test_who_unsubscribed_after_the_freeze_is_skipped(smtp: SmtpStandIn) -> None:
    frozen(2)
    carla = row_of("carla").subscription
    assert carla and carla.unsubscribe(actor="carla", reason="one click")
    drain()
    assert statuses() == {"bob": "sent", "carla": "skipped"}
    assert smtp.accepted() == addresses("bob")


def test_who_was_suppressed_after_the_freeze_is_skipped(smtp: SmtpStandIn) -> None:
    frozen(2)
    Suppression.objects.create(address_key=row_of("carla").address_key, reason="complaint")
    drain()
    assert statuses() == {"bob": "sent", "carla": "skipped"}
    assert smtp.accepted() == addresses("bob")


def test_who_was_erased_after_the_freeze_is_skipped() -> None:
    frozen(2)
    carla = row_of("carla").subscription
    assert carla
    carla.subscriber.delete()
    drain()
    assert statuses() == {"bob": "sent", "carla": "skipped"}


def test_a_skipped_row_says_why_in_its_history() -> None:
    frozen(1)
    Suppression.objects.create(address_key=row_of("bob").address_key, reason="complaint")
    drain()
    change = Transition.objects.of(Subject.DELIVERY, row_of("bob").pk).get()
    assert (change.old, change.new) == ("pending", "skipped")
    assert "unsubscribed or suppressed" in change.reason


def test_who_unsubscribes_while_a_retry_waits_is_skipped(smtp: SmtpStandIn) -> None:
    smtp.on("rcpt", say("450 come back later"), times=1)
    frozen(1)
    drain()
    bob = row_of("bob").subscription
    assert bob and bob.unsubscribe(actor="bob", reason="one click")
    retry_now()
    drain()
    assert statuses() == {"bob": "skipped"}


def retry_now() -> None:
    EmailDelivery.objects.update(next_attempt_at=database_now() - timedelta(seconds=1))
    hurry()


# --- verdicts


@dataclass(frozen=True)
class Seen:
    phase: str
    act: Act
    status: str
    reason: str
    spent: int = 0
    dots: int = 0
    suppressed: bool = False
    paused: bool = False

    def __str__(self) -> str:
        return f"{self.reason or self.status} at {self.phase}"


SEEN = [
    Seen("dot", say("250 2.0.0 ok"), "sent", ""),
    Seen("quit", drop(), "sent", ""),
    Seen("rcpt", say("550 5.1.1 nobody"), "failed", "mailbox_unavailable", suppressed=True),
    Seen("rcpt", say("552 5.2.2 full"), "failed", "mailbox_full"),
    Seen("rcpt", say("550 5.7.1 no"), "failed", "recipient_policy_refusal"),
    Seen("rcpt", say("550 no"), "failed", "recipient_refused"),
    Seen("data", say("554 no"), "failed", "data_refused"),
    Seen("dot", say("554 5.7.1 spam"), "failed", "message_refused"),
    Seen("rcpt", say("450 4.2.0 greylisted"), "pending", "recipient_deferred", spent=1),
    Seen("rcpt", say("451 4.7.1 slow down"), "pending", "policy_deferral"),
    Seen("rcpt", say("452 4.3.2 stopping"), "pending", "system_not_accepting"),
    Seen("rcpt", say_then_drop("421 bye"), "pending", "service_closing"),
    Seen("greeting", say_then_drop("421 bye"), "pending", "service_closing"),
    Seen("greeting", drop(), "pending", "dropped"),
    Seen("mail", say("451 later"), "pending", "sender_deferred"),
    Seen("data", say("451 later"), "pending", "data_deferred"),
    Seen("dot", say("451 4.3.0 later"), "pending", "message_deferred", dots=1),
    Seen("greeting", say("554 go away"), "pending", "greeting_refused", paused=True),
    Seen("mail", say("550 who are you?"), "pending", "sender_refused", paused=True),
    Seen("dot", accept_then_drop(), "unknown", "dropped"),
    Seen("dot", drop(), "unknown", "dropped"),
    Seen("dot", garbled(accepted=True), "unknown", "garbled_reply"),
    Seen("dot", long_line(accepted=True), "unknown", "over_long_reply"),
    Seen("dot", stall(accepted=True), "unknown", "timed_out"),
]


@pytest.mark.parametrize("seen", SEEN, ids=str)
def test_what_is_seen_on_the_wire_decides_the_row(
    smtp: SmtpStandIn, settings: Settings, seen: Seen
) -> None:
    settings.SMTP_TIMEOUT_SECONDS = 0.5
    smtp.on(seen.phase, seen.act)
    issue = frozen(1)
    Job.objects.filter(key__endswith=":1").delete()
    drain(but="close")
    row = row_of("bob")
    assert (row.status, row.reason) == (seen.status, seen.reason)
    assert (row.attempts_spent, row.dot_refusals) == (seen.spent, seen.dots)
    assert Suppression.objects.exists() is seen.suppressed
    assert (reload(issue).paused_at is not None) is seen.paused


@pytest.mark.parametrize("seen", [seen for seen in SEEN if seen.status == "pending"], ids=str)
def test_what_was_not_accepted_arrives_once_the_server_behaves(
    smtp: SmtpStandIn, seen: Seen
) -> None:
    smtp.on(seen.phase, seen.act)
    issue = frozen(2)
    drain()
    smtp.behave()
    release.resume(issue, actor="ana")
    retry_now()
    drain_through_waits()
    assert reload(issue).state == "sent"
    assert smtp.accepted() == addresses("bob", "carla")


def test_an_unknown_copy_is_not_sent_again(smtp: SmtpStandIn) -> None:
    smtp.on("dot", accept_then_drop(), recipient="bob@example.org")
    issue = frozen(2)
    drain_through_waits()
    assert statuses() == {"bob": "unknown", "carla": "sent"}
    assert smtp.accepted() == addresses("bob", "carla")
    assert (reload(issue).state, sending.books(issue)["balanced"]) == ("sent", True)


def test_a_greylisted_reader_is_tried_again_and_gets_one_copy(smtp: SmtpStandIn) -> None:
    smtp.on("rcpt", say("450 come back later"), recipient="bob@example.org", times=2)
    issue = frozen(2)
    for _ in range(4):
        drain()
        retry_now()
    assert smtp.accepted() == addresses("bob", "carla")
    assert (row_of("bob").attempt, row_of("bob").attempts_spent) == (3, 2)
    assert reload(issue).state == "sent"


def test_a_sender_waits_for_the_next_retry(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.DELIVERY_RETRY_SECONDS = 1000
    smtp.on("rcpt", say("450 come back later"))
    issue = frozen(1)
    outcome = sending.deliver(issue.pk, 0)
    assert isinstance(outcome, Wait)
    assert 1 <= outcome.seconds <= 2000


def test_a_reader_who_is_never_accepted_fails_in_the_end(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_ATTEMPTS = 3
    smtp.on("rcpt", say("450 come back later"), recipient="bob@example.org")
    issue = frozen(2)
    for _ in range(4):
        drain()
        retry_now()
    assert statuses() == {"bob": "failed", "carla": "sent"}
    assert len(smtp.said("RCPT TO:<bob@")) == 3
    assert reload(issue).state == "sent"


def test_a_copy_that_the_dot_defers_five_times_fails_alone(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_RETRY_SECONDS = 0.001
    smtp.on("dot", say("451 4.3.0 later"), recipient="bob@example.org")
    issue = frozen(3)
    drain_through_waits()
    assert statuses() == {"bob": "failed", "carla": "sent", "davi": "sent"}
    assert row_of("bob").reason == "refused_at_the_dot"
    assert reload(issue).state == "sent"


def test_a_stamp_that_cannot_be_made_fails_one_row_only(smtp: SmtpStandIn) -> None:
    issue = frozen(3)
    EmailDelivery.objects.filter(address="carla@example.org").update(address="no address")
    drain()
    assert EmailDelivery.objects.get(address="no address").reason == "cannot_be_made"
    assert smtp.accepted() == addresses("bob", "davi")
    assert reload(issue).state == "sent"


# --- it is ours: pause


def test_a_refused_sender_pauses_at_once_and_is_told_once(
    smtp: SmtpStandIn, told: Callable[[], list[str]]
) -> None:
    smtp.on("mail", say("550 5.7.1 who are you?"))
    issue = frozen(5)
    drain(but="notify")
    assert "sender_refused" in reload(issue).paused_reason
    assert set(statuses().values()) == {"pending"}
    assert told().count("paused") == 1


def test_many_policy_refusals_pause_the_issue(
    smtp: SmtpStandIn, settings: Settings, told: Callable[[], list[str]]
) -> None:
    settings.DELIVERY_WINDOW = 1
    smtp.on("rcpt", say("550 5.7.1 blocked"))
    issue = frozen(20)
    drain(but="notify")
    assert "refused by policy" in reload(issue).paused_reason
    assert Counter(statuses().values()) == {"failed": 5, "pending": 15}
    assert told().count("paused") == 1


def test_a_few_policy_refusals_do_not(smtp: SmtpStandIn) -> None:
    smtp.on("rcpt", say("550 5.7.1 blocked"), times=4)
    issue = frozen(10)
    drain()
    assert reload(issue).state == "sent"


def test_a_small_share_of_policy_refusals_does_not(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.DELIVERY_WINDOW = settings.WORKERS_BULK = 1
    issue = frozen(60)
    last = EmailDelivery.objects.order_by("-id").values_list("address", flat=True)[:5]
    for address in last:
        smtp.on("rcpt", say("550 5.7.1 blocked"), recipient=address)
    drain()
    assert (reload(issue).state, sending.books(issue)["failed"]) == ("sent", 5)


# --- a server that is not there


def test_without_a_server_nothing_is_spent_and_it_is_told_once(
    smtp: SmtpStandIn, told: Callable[[], list[str]]
) -> None:
    smtp.stop()
    issue = frozen(3)
    for _ in range(4):
        drain(but="notify")
        hurry("deliver")
    assert set(statuses().values()) == {"pending"}
    assert not EmailDelivery.objects.exclude(attempts_spent=0, sender=None).exists()
    assert told().count("smtp_trouble") == 1
    assert not reload(issue).blocked_reason


def test_a_server_that_opens_few_connections_is_used_with_those(
    smtp: SmtpStandIn, told: Callable[[], list[str]]
) -> None:
    smtp.on("greeting", say_then_drop("421 4.7.0 too many connections"), times=5)
    issue = frozen(20)
    drain(but="notify")
    assert set(Job.objects.filter(name="deliver").values_list("runs", flat=True)) == {1}
    assert len(smtp.accepted()) == 20 and reload(issue).state == "sent"
    assert "smtp_trouble" not in told()


def test_when_the_server_comes_it_goes_on_by_itself(smtp: SmtpStandIn) -> None:
    smtp.stop()
    issue = frozen(3)
    drain()
    assert Job.objects.filter(name="deliver", state="queued").exists()
    smtp.start()
    drain_through_waits()
    assert smtp.accepted() == addresses("bob", "carla", "davi")
    assert reload(issue).state == "sent"


def test_a_server_that_says_nothing_after_the_mail_does_not_get_the_whole_audience(
    smtp: SmtpStandIn,
) -> None:
    """Each would be unknown: after five in a row without a word it is the channel's trouble."""
    smtp.on("dot", drop())
    frozen(60)
    drain(but="notify")
    unknown = list(statuses().values()).count("unknown")
    assert 5 <= unknown <= 4 * 8, "two senders, a window of eight each"
    assert list(statuses().values()).count("pending") == 60 - unknown


def test_what_expires_is_settled_in_portions(
    smtp: SmtpStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SETTLED_AT_ONCE", 2)
    issue = frozen(5)
    Issue.objects.update(audience_frozen_at=database_now() - timedelta(hours=73))
    assert sending.expire(reload(issue)) == 5
    assert set(statuses().values()) == {"failed"}
    assert Transition.objects.filter(subject=Subject.DELIVERY, reason="expired").count() == 5


def test_each_host_that_lives_has_its_senders(smtp: SmtpStandIn) -> None:
    for work in ("one:1", "two:2"):
        queue.beat(work, "bulk")
    frozen(3)
    assert Job.objects.filter(name="deliver").count() == 4


def test_a_host_that_is_gone_has_none(smtp: SmtpStandIn) -> None:
    for work in ("one:1", "two:2"):
        queue.beat(work, "bulk")
    Heartbeat.objects.filter(work="two:2").update(at=database_now() - timedelta(minutes=5))
    frozen(3)
    assert Job.objects.filter(name="deliver").count() == 2


def test_after_a_trouble_one_row_is_tried_before_the_window_is_filled(smtp: SmtpStandIn) -> None:
    smtp.stop()
    frozen(30)
    for _ in range(4):
        drain(but="notify")
        hurry("deliver")
    CircuitBreaker.objects.update(until=database_now() - timedelta(seconds=1))
    smtp.on("dot", drop())
    smtp.start()
    hurry("deliver")
    drain(but="notify")
    assert list(statuses().values()).count("unknown") == 1
    assert CircuitBreaker.objects.get().opened == 2


def test_a_server_that_is_away_for_long_does_not_kill_the_job(smtp: SmtpStandIn) -> None:
    smtp.stop()
    frozen(1)
    for _ in range(12):
        drain()
        hurry("deliver")
    assert set(Job.objects.filter(name="deliver").values_list("state", flat=True)) == {"queued"}


# --- in mid-run


@contextmanager
def a_sender_at_work(issue: Issue, *slots: int) -> Iterator[list[Any]]:
    """Senders in threads, each with a connection of its own; joined at the end."""
    outcomes: list[Any] = []

    def work(slot: int) -> None:
        try:
            outcomes.append(sending.deliver(issue.pk, slot))
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(slot,)) for slot in slots or (0,)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        for thread in threads:
            thread.join(30)


@pytest.fixture(params=[0, 200], ids=["later", "among the first"])
def answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first 200 of an issue results and next starts go together, in another statement."""
    monkeypatch.setattr("delivery.sender.FIRST", request.param)


@pytest.mark.usefixtures("answers")
@pytest.mark.django_db(transaction=True)
def test_a_pause_lets_only_what_is_on_the_wire_go_out(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 3
    smtp.on("dot", stall(0.05))
    issue = frozen(60)
    with a_sender_at_work(issue):
        smtp.wait_for(10)
        with transaction.atomic():
            issue.pause(reason="lunch", actor="ana")
            begun = EmailDelivery.objects.filter(attempt__gt=0).count()
    assert len(smtp.copies) == begun
    counts = Counter(statuses().values())
    assert counts == {"sent": len(smtp.copies), "pending": 60 - len(smtp.copies)}


@pytest.mark.usefixtures("answers")
@pytest.mark.django_db(transaction=True)
def test_after_a_pause_everybody_gets_the_one_copy_that_they_are_owed(
    smtp: SmtpStandIn,
) -> None:
    smtp.on("dot", stall(0.05))
    issue = frozen(40)
    with a_sender_at_work(issue):
        smtp.wait_for(10)
        issue.pause(reason="lunch", actor="ana")
    smtp.behave()
    release.resume(issue, actor="ana")
    drain()
    assert len(smtp.accepted()) == 40
    assert set(smtp.accepted().values()) == {1}
    assert reload(issue).state == "sent"


@pytest.mark.usefixtures("answers")
@pytest.mark.django_db(transaction=True)
def test_a_cancel_lets_only_what_is_on_the_wire_go_out(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 3
    smtp.on("dot", stall(0.05))
    issue = frozen(60)
    with a_sender_at_work(issue):
        smtp.wait_for(10)
        with transaction.atomic():
            release.cancel(issue, actor="ana")
            begun = EmailDelivery.objects.filter(attempt__gt=0).count()
    assert len(smtp.copies) == begun
    counts = Counter(statuses().values())
    assert counts == {"sent": len(smtp.copies), "skipped": 60 - len(smtp.copies)}
    assert sending.books(reload(issue))["balanced"]


@pytest.mark.usefixtures("answers")
@pytest.mark.django_db(transaction=True)
def test_who_unsubscribes_while_others_are_mailed_is_skipped(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 1
    smtp.on("dot", stall(0.05))
    issue = frozen(20)
    with a_sender_at_work(issue):
        smtp.wait_for(3)
        last = EmailDelivery.objects.select_related("subscription").latest("id")
        assert last.subscription and last.subscription.unsubscribe(actor="he", reason="one click")
    last.refresh_from_db()
    assert last.status == "skipped"
    assert smtp.accepted()[last.address] == 0


@pytest.mark.usefixtures("answers")
@pytest.mark.django_db(transaction=True)
def test_no_more_rows_are_sending_than_the_window_has_room_for(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_CONNECTIONS, settings.DELIVERY_WINDOW = 8, 3
    smtp.on("dot", stall(0.03))
    issue = frozen(45)
    most = 0
    with a_sender_at_work(issue) as outcomes:
        while not outcomes:
            most = max(most, EmailDelivery.objects.filter(status="sending").count())
            time.sleep(0.005)
    assert most == 3
    assert sum(smtp.accepted().values()) == 45


@pytest.mark.usefixtures("answers")
@pytest.mark.django_db(transaction=True)
def test_two_senders_at_once_send_nothing_twice(smtp: SmtpStandIn) -> None:
    smtp.on("dot", stall(0.005))
    issue = frozen(300)
    with a_sender_at_work(issue, 0, 1):
        pass
    assert len(smtp.accepted()) == 300
    assert set(smtp.accepted().values()) == {1}
    assert set(statuses().values()) == {"sent"}


@pytest.mark.django_db(transaction=True)
def test_a_result_that_was_seen_is_written_also_when_the_database_was_away(
    smtp: SmtpStandIn,
) -> None:
    issue = frozen(2)
    away = iter([True, True])

    def database(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        booking = "EXECUTE carteiro_accept" in sql or (
            sql.startswith("UPDATE") and params[0] == "sent"
        )
        if booking and next(away, False):
            raise OperationalError("the server closed the connection")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(database):
        sending.deliver(issue.pk, 0)
    assert next(away, None) is None, "it was never away"
    assert statuses() == {"bob": "sent", "carla": "sent"}
    assert smtp.accepted() == addresses("bob", "carla")


# --- after the first answers


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers to the first of the issue were counted by now: results and next starts go together."""
    monkeypatch.setattr("delivery.sender.FIRST", 0)


@pytest.mark.usefixtures("later")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fails", [False, True], ids=["", "and its commit fails"])
def test_a_reader_who_leaves_meanwhile_is_skipped_and_the_others_go_on(
    smtp: SmtpStandIn, settings: Settings, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was won is committed, and is adopted should the second transaction fail."""
    settings.DELIVERY_WINDOW = 3
    smtp.on("dot", stall(0.05))
    issue = frozen(30)
    skip, away = Sender._skip_unwilling, iter([fails])

    def cut(self: Sender, *args: Any) -> None:
        skip(self, *args)
        if next(away, False):
            raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(Sender, "_skip_unwilling", cut)
    monkeypatch.setattr("delivery.patience.PAUSE", 0.01)
    with a_sender_at_work(issue):
        smtp.wait_for(3)
        last = EmailDelivery.objects.of(issue.pk).order_by("-id").select_related("subscription")[1]
        assert last.subscription
        last.subscription.unsubscribe(reason="enough", actor="reader")
    assert next(away, None) is None, "nobody was skipped"
    found = EmailDelivery.objects.of(issue.pk).count_by_status()
    assert (found["sent"], found["skipped"]) == (29, 1)
    assert LedgerTally.objects.figures(issue.pk) == found
    assert set(smtp.accepted().values()) == {1}
    attempts = EmailDelivery.objects.filter(status="sent").values_list("attempt", flat=True)
    assert set(attempts) == {1}


@pytest.mark.usefixtures("later")
@pytest.mark.django_db(transaction=True)
def test_a_result_that_came_late_is_booked_beside_the_others(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    """The recovery called the row unknown, and its holder lived."""
    settings.DELIVERY_WINDOW = 2
    smtp.on("dot", stall(0.1))
    issue = frozen(12)
    with a_sender_at_work(issue):
        smtp.wait_for(2)
        with transaction.atomic():
            one = EmailDelivery.objects.select_for_update().filter(status="sending").first()
            assert one
            EmailDelivery.objects.filter(pk=one.pk).update(status="unknown", settled_at=Now())
    assert EmailDelivery.objects.of(issue.pk).count_by_status()["sent"] == 12
    assert set(smtp.accepted().values()) == {1}
    said = Transition.objects.of(Subject.DELIVERY, one.pk).get()
    assert (said.old, said.new, said.reason) == ("unknown", "sent", "late result of that attempt")


@pytest.mark.usefixtures("later")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "its reply lost"])
def test_a_commit_in_mid_issue_that_fails_costs_nothing(
    smtp: SmtpStandIn, settings: Settings, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DELIVERY_WINDOW = 2
    issue = frozen(12)
    run, away = Exchange.run, iter([False, False, True, False, True])

    def cut(self: Exchange, *args: Any) -> Any:
        fails = next(away, False)
        if fails and not lost:
            raise OperationalError("the server closed the connection unexpectedly")
        won = run(self, *args)
        if fails:
            raise OperationalError("the server closed the connection unexpectedly")
        return won

    monkeypatch.setattr(Exchange, "run", cut)
    monkeypatch.setattr("delivery.patience.PAUSE", 0.01)
    sending.deliver(issue.pk, 0)
    assert next(away, None) is None, "it never failed"
    found = EmailDelivery.objects.of(issue.pk).count_by_status()
    assert found["sent"] == 12 and LedgerTally.objects.figures(issue.pk) == found
    assert set(smtp.accepted().values()) == {1}
    assert set(EmailDelivery.objects.values_list("attempt", flat=True)) == {1}


@pytest.mark.usefixtures("later")
def test_copies_that_cannot_be_made_keep_nobody_waiting(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    """The sender waited half a second for the wire after each, though it had its result already."""
    settings.DELIVERY_WINDOW = 1
    issue = frozen(12)
    EmailDelivery.objects.update(address="no address")
    began = time.monotonic()
    sending.deliver(issue.pk, 0)
    assert time.monotonic() - began < 3
    assert set(statuses().values()) == {"failed"} and smtp.copies == []


# --- turns


def test_a_turn_ends_in_time_and_is_continued(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.SENDER_SECONDS, settings.DELIVERY_WINDOW = 0.1, 1
    smtp.on("dot", stall(0.03))
    issue = frozen(12)
    outcome = sending.deliver(issue.pk, 0)
    assert isinstance(outcome, Wait) and outcome.seconds == 0
    assert 0 < len(smtp.copies) < 12
    assert not EmailDelivery.objects.filter(status="sending").exists()
    smtp.behave()
    drain()
    assert set(smtp.accepted().values()) == {1}
    assert reload(issue).state == "sent"


def test_a_host_that_stops_starts_no_message(smtp: SmtpStandIn) -> None:
    issue = frozen(3)
    stopping.stop()
    try:
        outcome = sending.deliver(issue.pk, 0)
    finally:
        stopping.reset()
    assert isinstance(outcome, Wait)
    assert smtp.copies == []
    assert unclaimed(issue.pk).count() == 3


def test_a_sender_whose_lease_is_over_starts_nothing(smtp: SmtpStandIn) -> None:
    issue = frozen(3)
    lease = Lease.acquire(f"sender:{issue.pk}:0")
    assert lease
    Lease.objects.update(expires_at=database_now() - timedelta(seconds=1))
    Sender(issue, lease, breakers.enter("smtp"), time.monotonic()).run()
    assert smtp.copies == []


@pytest.mark.django_db(transaction=True)
def test_a_sender_that_lost_its_lease_starts_nothing_more(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_WINDOW = 1
    smtp.on("dot", stall(0.05))
    issue = frozen(20)
    with a_sender_at_work(issue):
        smtp.wait_for(3)
        Lease.objects.update(expires_at=database_now() - timedelta(seconds=1))
        successor = Lease.acquire(f"sender:{issue.pk}:0")
        assert successor
        waiting = EmailDelivery.objects.pending().count()
    left = EmailDelivery.objects.pending().count()
    assert left >= waiting - 1, "more than was being marked while we looked"
    assert len(smtp.copies) == 20 - left


def test_a_slot_that_another_holds_is_waited_for() -> None:
    issue = frozen(1)
    Lease.acquire(f"sender:{issue.pk}:0")
    assert isinstance(sending.deliver(issue.pk, 0), Wait)


@pytest.mark.parametrize("state", ["draft", "approved", "paused"])
def test_there_is_nothing_to_send_unless_the_issue_is_sending(
    smtp: SmtpStandIn, state: str
) -> None:
    if state == "paused":
        issue = frozen(1)
        issue.pause(reason="lunch", actor="ana")
    else:
        make = cast.issue if state == "draft" else cast.approved
        issue = make(cast.newsletter())
    assert isinstance(sending.deliver(issue.pk, 0), Done)
    assert smtp.copies == []


def test_with_a_rate_a_sender_that_has_nothing_left_ends_at_once(
    smtp: SmtpStandIn, settings: Settings
) -> None:
    """It once waited for its turn to be over: the last reader had said no, and nobody forgot the rate's wait."""
    settings.DELIVERY_RATE, settings.SENDER_SECONDS = 5, 30
    issue = frozen(1)
    Subscription.objects.get().unsubscribe(reason="test", actor="bob")
    began = time.monotonic()
    sending.deliver(issue.pk, 0)
    assert time.monotonic() - began < settings.SENDER_SECONDS / 2
    assert statuses() == {"bob": "skipped"}


def test_the_rate_is_kept(smtp: SmtpStandIn, settings: Settings) -> None:
    settings.DELIVERY_RATE = 40
    frozen(13)
    drain()
    times = [copy.at for copy in smtp.copies]
    assert len(times) == 13
    assert times[-1] - times[0] >= (13 - 1 - 5) / 40
