"""Mail that one person waits for: a row, a job, at least one copy."""

from __future__ import annotations

import email
import email.policy
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage

import pytest
from django.db import connection, transaction
from django.db.models import JSONField, Value
from pytest_django import Settings

from delivery import breakers, queue, transactional
from delivery.errors import EdgeError
from delivery.models import Job, Notification, Rate, TransactionalMail
from delivery.outcome import Discard, Done, Wait
from newsletter.models import (
    Issue,
    Newsletter,
    Refused,
    Subscriber,
    Subscription,
    Suppression,
    address_key,
    database_now,
)
from tests import cast
from tests.drain import drain, hurry
from tests.stand_ins.smtp import SmtpStandIn, accept_then_drop, drop, garbled, say, say_then_drop

pytestmark = pytest.mark.django_db

BOB = "bob@example.org"


@pytest.fixture
def server(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as stand_in:
        settings.EMAIL_URL = stand_in.url
        yield stand_in


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


@pytest.fixture
def bob(weekly: Newsletter) -> Subscription:
    """He asked to join and did not confirm yet."""
    return pending(weekly)


def pending(newsletter: Newsletter, name: str = "bob") -> Subscription:
    address = f"{name}@example.org"
    person, _ = Subscriber.objects.get_or_create(
        address=address, defaults={"address_key": address_key(address), "name": "Buy my pills"}
    )
    return Subscription.objects.create(
        subscriber=person, newsletter=newsletter, state="pending", consent_source="a form"
    )


def the_mail() -> TransactionalMail:
    return TransactionalMail.objects.get()


def the_job() -> Job:
    return Job.objects.get(name="mail")


def requested(subscription: Subscription) -> TransactionalMail:
    assert transactional.request_confirmation(subscription)
    return TransactionalMail.objects.latest("pk")


def parsed(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


# What is sent


def test_a_confirmation_is_mailed_once_and_settled(bob: Subscription, server: SmtpStandIn) -> None:
    requested(bob)
    assert drain() == ["mail"]
    assert server.accepted() == {BOB: 1}
    mail = the_mail()
    assert (mail.state, mail.attempts, mail.note) == ("sent", 1, "")
    assert mail.started_at is not None
    assert mail.settled_at is not None
    assert mail.created_at <= mail.started_at <= mail.settled_at


def test_it_asks_in_the_newsletters_name_with_its_address(
    bob: Subscription, server: SmtpStandIn
) -> None:
    requested(bob)
    drain()
    message = parsed(server.copies[0].data)
    assert message["Subject"] == "Please confirm: The Weekly"
    assert message["From"] == "The Weekly <ana@news.example.org>"
    assert message["To"] == BOB
    # Who never asked can also say no for good.
    assert message["List-Unsubscribe"] == f"<http://news.example.org/u/{bob.token}/>"
    for kind in ("plain", "html"):
        said = body(message, kind)
        assert f"http://news.example.org/c/{bob.token}/" in said
        assert "If it was not you, do nothing" in said
        assert "1 Main Street, Lisbon" in said


def test_it_mails_nobody_the_words_of_somebody_else(bob: Subscription, server: SmtpStandIn) -> None:
    """Whoever types an address into a form types the name too."""
    requested(bob)
    drain()
    assert b"pills" not in server.copies[0].data


def test_it_speaks_the_newsletters_language(server: SmtpStandIn) -> None:
    requested(pending(cast.newsletter(language="pt-br")))
    drain()
    message = parsed(server.copies[0].data)
    assert message["Subject"] == "Confirme, por favor: The Weekly"
    assert "Se não foi você" in body(message, "plain")


def test_it_goes_through_the_lane_for_what_is_waited_for(bob: Subscription) -> None:
    requested(bob)
    assert the_job().lane == "critical"


def test_the_mail_and_its_job_live_or_die_with_the_callers_transaction(bob: Subscription) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        transactional.request_confirmation(bob)
        raise RuntimeError
    assert not TransactionalMail.objects.exists()
    assert not Job.objects.exists()


# Once, and at least once


def test_after_it_was_sent_the_body_sends_no_more(bob: Subscription, server: SmtpStandIn) -> None:
    mail = requested(bob)
    drain()
    assert transactional.deliver(mail.pk) == Discard("the mail is sent already")
    assert transactional.deliver(mail.pk) == Discard("the mail is sent already")
    assert server.accepted() == {BOB: 1}


def test_a_crash_between_the_250_and_the_commit_makes_a_second_copy_of_the_same_message(
    bob: Subscription, server: SmtpStandIn
) -> None:
    mail = requested(bob)
    came = transactional.deliver(mail.pk)  # accepted; the worker dies before it applies the rest
    assert isinstance(came, Done)
    assert the_mail().state == "pending"
    drain()
    first, second = (copy.data for copy in server.copies)
    assert parsed(first)["Message-ID"] == parsed(second)["Message-ID"]
    assert first == second
    assert (the_mail().state, the_mail().attempts) == ("sent", 2)


@pytest.mark.parametrize("act", [accept_then_drop(), garbled(accepted=True)])
def test_what_nobody_can_tell_is_sent_again(
    bob: Subscription, server: SmtpStandIn, act: object
) -> None:
    server.on("dot", act, times=1)  # type: ignore[arg-type]
    requested(bob)
    drain()
    assert the_mail().state == "pending"
    hurry("mail")
    drain()
    assert the_mail().state == "sent"
    assert len({copy.data for copy in server.copies}) == 1
    assert server.accepted() == {BOB: 2}


def test_the_first_attempts_start_is_kept(bob: Subscription, server: SmtpStandIn) -> None:
    server.on("greeting", drop(), times=1)
    requested(bob)
    drain()
    first = the_mail().started_at
    assert first is not None
    hurry("mail")
    drain()
    assert (the_mail().state, the_mail().attempts, the_mail().started_at) == ("sent", 2, first)


def test_the_start_is_committed_before_the_network(
    bob: Subscription, server: SmtpStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def no_way_out(patience: float) -> None:
        seen.append(the_mail().started_at)
        raise EdgeError("nothing leaves today")

    mail = requested(bob)
    monkeypatch.setattr(transactional, "transport", no_way_out)
    with pytest.raises(EdgeError):
        transactional.deliver(mail.pk)
    assert seen != [None]


def test_the_wake_up_that_comes_twice_sends_once(bob: Subscription, server: SmtpStandIn) -> None:
    requested(bob)
    job = the_job()
    queue.run(job.pk)
    queue.run(job.pk)
    assert server.accepted() == {BOB: 1}


# Trouble


@pytest.mark.parametrize(
    ("phase", "act"),
    [
        ("greeting", say_then_drop("421 4.3.2 closing")),
        ("mail", say("451 4.3.0 later")),
        ("rcpt", say("450 4.2.0 greylisted")),
        ("rcpt", say("450 4.7.1 slow down")),
        ("dot", say("451 4.3.0 later")),
        ("data", drop()),
        ("mail", say("550 5.7.1 not from you")),
    ],
)
def test_what_was_not_taken_for_now_is_tried_again(
    bob: Subscription, server: SmtpStandIn, phase: str, act: object
) -> None:
    server.on(phase, act, times=1)  # type: ignore[arg-type]
    requested(bob)
    drain()
    job = the_job()
    assert (the_mail().state, job.state, job.failures) == ("pending", "queued", 1)
    assert f"the mail server did not take it ({phase})" in job.note
    assert "@" not in job.note
    hurry("mail")
    drain()
    assert (the_mail().state, the_mail().attempts) == ("sent", 2)


def test_who_is_refused_for_good_is_not_tried_again(bob: Subscription, server: SmtpStandIn) -> None:
    server.on("rcpt", say("550 5.2.2 mailbox full"))
    requested(bob)
    drain()
    mail = the_mail()
    assert (mail.state, mail.attempts) == ("failed", 1)
    assert "5.2.2 mailbox full" in mail.note
    assert the_job().state == "done"
    assert not Suppression.objects.exists()


def test_an_address_that_does_not_exist_is_suppressed(
    bob: Subscription, server: SmtpStandIn
) -> None:
    server.on("rcpt", say("550 5.1.1 no such user"))
    requested(bob)
    drain()
    assert the_mail().state == "failed"
    assert Suppression.objects.get().address_key == address_key(BOB)


def test_a_server_that_is_away_opens_the_breaker_and_then_no_attempt_is_spent(
    weekly: Newsletter,
) -> None:
    for number in range(breakers.FAILURES):
        requested(pending(weekly, f"reader{number}"))
    drain()
    late = requested(pending(weekly, "carla"))
    drain()
    late.refresh_from_db()
    assert (late.attempts, late.started_at, late.state) == (0, None, "pending")
    job = Job.objects.get(key=f"mail:{late.pk}")
    assert (job.state, job.failures) == ("queued", 0)
    assert job.due_at > database_now()


def test_one_readers_greylisting_does_not_open_the_breaker(
    weekly: Newsletter, server: SmtpStandIn
) -> None:
    server.on("rcpt", say("450 4.2.0 greylisted"))
    for number in range(breakers.FAILURES + 1):
        requested(pending(weekly, f"reader{number}"))
    drain()
    server.behave()
    requested(pending(weekly, "carla"))
    drain()
    assert server.accepted() == {"carla@example.org": 1}


@pytest.mark.parametrize(("kind", "hours"), [("confirmation", 24), ("test", 1)])
def test_past_its_end_it_is_given_up_and_told_once_a_day(
    weekly: Newsletter, server: SmtpStandIn, kind: str, hours: int
) -> None:
    server.on("rcpt", say("450 4.2.0 greylisted"))
    issue = cast.issue(weekly)
    for name in ("bob", "carla"):
        if kind == "test":
            transactional.request_test(issue, f"{name}@example.org")
        else:
            requested(pending(weekly, name))
    early = database_now() - timedelta(hours=hours) + timedelta(minutes=1)
    TransactionalMail.objects.update(created_at=early)
    drain(but="notify")
    assert set(TransactionalMail.objects.values_list("state", flat=True)) == {"pending"}
    TransactionalMail.objects.update(created_at=early - timedelta(minutes=2))
    hurry("mail")
    drain(but="notify")
    assert set(TransactionalMail.objects.values_list("state", flat=True)) == {"failed"}
    assert Notification.objects.filter(key__startswith="mail_given_up", channel="log").count() == 1


def test_a_policy_that_is_spent_ends_the_mail(bob: Subscription) -> None:
    requested(bob)
    (policy,) = transactional.MAIL
    drain()
    job = the_job()
    since = (database_now() - timedelta(seconds=policy.bound + 1)).isoformat()
    Job.objects.filter(pk=job.pk).update(troubles={"EdgeError": {"count": 3, "since": since}})
    hurry("mail")
    drain(but="notify")
    assert the_job().state == "done"
    mail = the_mail()
    assert mail.state == "failed"
    assert "given up after 4 tries" in mail.note


# Not wanted any more


def test_who_has_confirmed_meanwhile_is_not_asked(bob: Subscription, server: SmtpStandIn) -> None:
    requested(bob)
    bob.confirm(actor="reader")
    drain()
    mail = the_mail()
    assert (mail.state, mail.note) == ("dropped", "the subscription is confirmed already")
    assert server.copies == []


def test_who_has_said_no_meanwhile_is_not_asked(bob: Subscription, server: SmtpStandIn) -> None:
    requested(bob)
    bob.unsubscribe(actor="reader", reason="")
    drain()
    assert the_mail().state == "dropped"
    assert server.copies == []


@pytest.mark.parametrize("address", ["", "bobby@example.org"])
def test_an_address_that_was_erased_or_changed_gets_nothing(
    bob: Subscription, server: SmtpStandIn, address: str
) -> None:
    requested(bob)
    Subscriber.objects.update(address=address)
    drain()
    assert the_mail().state == "dropped"
    assert server.copies == []


def test_a_suppressed_address_gets_neither_question_nor_test(
    bob: Subscription, server: SmtpStandIn
) -> None:
    Suppression.objects.create(address_key=address_key(BOB), reason="complaint")
    requested(bob)
    transactional.request_test(cast.issue(bob.newsletter), BOB)
    drain()
    assert set(TransactionalMail.objects.values_list("state", "note")) == {
        ("dropped", "the address is suppressed")
    }
    assert server.copies == []


def test_a_person_without_an_address_is_not_asked(bob: Subscription) -> None:
    Subscriber.objects.update(address="")
    bob.refresh_from_db()
    assert not transactional.request_confirmation(bob)


def test_a_mail_whose_subscription_is_gone_is_discarded(bob: Subscription) -> None:
    mail = requested(bob)
    bob.delete()
    drain()
    assert the_job().state == "discarded"
    assert transactional.deliver(mail.pk) == Discard("the mail is gone")


def test_a_mail_that_cannot_be_made_fails_with_the_reason(
    bob: Subscription, server: SmtpStandIn
) -> None:
    Newsletter.objects.update(from_email="not an address")
    requested(bob)
    drain()
    assert the_mail().state == "failed"
    assert the_mail().note.startswith("the mail cannot be made: ")
    assert server.copies == []


# Nobody is flooded


def test_a_second_request_waits_for_the_first(bob: Subscription) -> None:
    requested(bob)
    assert not transactional.request_confirmation(bob)
    TransactionalMail.objects.update(created_at=database_now() - timedelta(hours=2))
    assert not transactional.request_confirmation(bob)  # it is on its way still
    assert TransactionalMail.objects.count() == 1


def test_ten_minutes_after_a_mail_was_sent_there_may_be_another(bob: Subscription) -> None:
    requested(bob)
    minutes = {"state": "sent", "created_at": database_now() - timedelta(minutes=9)}
    TransactionalMail.objects.update(**minutes)
    assert not transactional.request_confirmation(bob)
    TransactionalMail.objects.update(created_at=database_now() - timedelta(minutes=11))
    assert transactional.request_confirmation(bob)


def test_a_mail_that_was_left_behind_for_a_day_stops_no_other(bob: Subscription) -> None:
    requested(bob)
    TransactionalMail.objects.update(created_at=database_now() - timedelta(hours=25))
    assert transactional.request_confirmation(bob)


def test_one_person_is_asked_five_times_a_day_by_all_newsletters_together(
    bob: Subscription,
) -> None:
    others = [pending(cast.newsletter(slug=f"other-{number}")) for number in range(5)]
    asked = [transactional.request_confirmation(one) for one in (bob, *others)]
    assert asked == [True] * 5 + [False]
    TransactionalMail.objects.update(created_at=database_now() - timedelta(hours=25))
    assert transactional.request_confirmation(others[-1])


def test_the_limit_is_each_persons_own(bob: Subscription, weekly: Newsletter) -> None:
    requested(bob)
    assert transactional.request_confirmation(pending(weekly, "carla"))


@pytest.mark.django_db(transaction=True)
def test_of_requests_at_once_one_is_mailed(bob: Subscription) -> None:
    gate = threading.Barrier(4)
    asked: list[bool] = []

    def ask() -> None:
        gate.wait(10)
        asked.append(transactional.request_confirmation(bob))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(asked) == [False, False, False, True]
    assert TransactionalMail.objects.count() == Job.objects.count() == 1


# The rate


def test_it_has_a_turn_of_its_own_while_an_issue_takes_all(
    bob: Subscription, weekly: Newsletter, server: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_RATE = 0.1
    busy = database_now() + timedelta(seconds=5)
    Rate.objects.create(channel="smtp", next_at=busy)
    requested(bob)
    drain()
    assert server.accepted() == {BOB: 1}


def test_where_the_rate_has_nothing_left_it_waits_and_spends_no_attempt(
    bob: Subscription, weekly: Newsletter, server: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_RATE = 0.1
    for name in ("carla", "davi"):
        requested(pending(weekly, name))
    drain()
    mail = requested(bob)
    came = transactional.deliver(mail.pk)
    assert isinstance(came, Wait)
    assert 0 < came.seconds <= 1 / 0.095
    mail.refresh_from_db()
    assert (mail.state, mail.attempts, mail.started_at) == ("pending", 0, None)
    assert server.accepted() == {"carla@example.org": 1, "davi@example.org": 1}


def test_what_waits_for_the_rate_goes_out_when_its_turn_has_come(
    bob: Subscription, weekly: Newsletter, server: SmtpStandIn, settings: Settings
) -> None:
    settings.DELIVERY_RATE = 5
    for name in ("carla", "davi", "eva"):
        requested(pending(weekly, name))
    requested(bob)
    end = time.monotonic() + 10
    while TransactionalMail.objects.filter(state="pending").exists():
        assert time.monotonic() < end
        drain()
        time.sleep(0.02)
    assert server.accepted()[BOB] == 1


# The test of an issue


@pytest.fixture
def issue(weekly: Newsletter) -> Issue:
    return cast.issue(weekly)


def test_a_test_mails_the_issue_as_it_stands(issue: Issue, server: SmtpStandIn) -> None:
    transactional.request_test(issue, BOB)
    drain()
    message = parsed(server.copies[0].data)
    assert message["Subject"] == "[Test] The first issue"
    assert "http://news.example.org/u/test/" in body(message, "html")
    assert the_mail().state == "sent"


def test_a_test_of_an_issue_with_problems_is_refused_and_makes_no_row(issue: Issue) -> None:
    Newsletter.objects.update(postal_address="")
    issue.refresh_from_db()
    with pytest.raises(Refused, match="postal address"):
        transactional.request_test(issue, BOB)
    assert not TransactionalMail.objects.exists()


def test_tests_may_follow_each_other(issue: Issue, server: SmtpStandIn) -> None:
    for _ in range(3):
        transactional.request_test(issue, BOB)
    drain()
    assert server.accepted() == {BOB: 3}


def test_an_edit_does_not_take_a_test_back(issue: Issue, server: SmtpStandIn) -> None:
    issue.approve(actor="ana")
    transactional.request_test(issue, BOB)
    issue.edit(actor="ana", title="Another title")
    drain()
    assert parsed(server.copies[0].data)["Subject"] == "[Test] Another title"


@pytest.mark.parametrize("args", [{"id": 1}, {"mail_id": "abc"}, [7], "x"], ids=repr)
def test_discarding_its_job_drops_the_mail_whatever_is_wrong_with_the_job(
    bob: Subscription, args: object
) -> None:
    requested(bob)
    Job.objects.update(args=Value(args, JSONField()))
    queue.run(the_job().pk)
    assert the_job().state == "dead"
    assert queue.discard_dead(the_job(), actor="ana")
    assert the_mail().state == "dropped"
