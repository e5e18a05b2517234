"""Notices: at most once for each event and channel, and never in the way of a release."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from pytest_django import Settings

from delivery import notifying
from delivery.http import Limits
from delivery.models import CircuitBreaker, Job, Notification
from delivery.outcome import Discard
from newsletter.models import Issue, database_now
from tests import cast
from tests.drain import drain, frozen, hurry
from tests.stand_ins.http import HttpStandIn, Reply, drip, drop, redirect, reply
from tests.stand_ins.smtp import SmtpStandIn, accept_then_drop, say

pytestmark = pytest.mark.django_db


@pytest.fixture
def issue() -> Issue:
    return cast.issue(cast.newsletter())


@pytest.fixture
def discord(settings: Settings) -> Iterator[HttpStandIn]:
    with HttpStandIn(reply(204)) as server:
        settings.DISCORD_WEBHOOK_URL = server.url("/a-secret")
        yield server


@pytest.fixture
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settings.SMTP_TIMEOUT_SECONDS = 2
        yield server


@pytest.fixture
def operators(settings: Settings, smtp: SmtpStandIn) -> SmtpStandIn:
    settings.NOTIFY_EMAIL = ("rita@example.org", "ugo@example.org")
    return smtp


def tell(issue: Issue, once: str = "") -> None:
    notifying.tell("blocked", "It is blocked", "for a reason", issue=issue, once=once)


def sent_out() -> QuerySet[Notification]:
    """All but the log, which is told at once."""
    return Notification.objects.exclude(channel="log")


def states() -> dict[str, str]:
    return dict(sent_out().values_list("channel", "state"))


def test_without_a_channel_it_stands_in_the_log_and_on_the_issues_page(issue: Issue) -> None:
    tell(issue)
    tell(issue)
    assert Notification.objects.get().channel == "log"
    assert Notification.objects.get().state == "sent" and not Job.objects.exists()


def test_each_configured_channel_gets_a_notice(issue: Issue, settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = settings.SLACK_WEBHOOK_URL = "http://127.0.0.1:1/"
    settings.NOTIFY_EMAIL = ("rita@example.org", "ugo@example.org")
    tell(issue)
    assert list(states()) == ["discord", "slack", "email:0", "email:1"]
    assert Job.objects.filter(name="notify").count() == 4


def test_a_notice_is_told(discord: HttpStandIn, issue: Issue) -> None:
    tell(issue)
    drain()
    told = discord.requests[0].json()["embeds"][0]
    assert (told["title"], told["description"]) == ("It is blocked", "for a reason")
    assert told["url"].endswith(f"/admin/newsletter/issue/{issue.pk}/change/")
    assert states() == {"discord": "sent"}


def test_the_same_event_is_told_once(discord: HttpStandIn, issue: Issue) -> None:
    tell(issue)
    tell(issue)
    drain()
    tell(issue)
    drain(twice=True)
    assert len(discord.requests) == 1


def test_another_occasion_of_the_event_is_told_too(discord: HttpStandIn, issue: Issue) -> None:
    tell(issue, once="monday")
    tell(issue, once="tuesday")
    drain()
    assert len(discord.requests) == 2


def test_another_issues_event_is_told_too(discord: HttpStandIn, issue: Issue) -> None:
    tell(issue)
    tell(cast.issue(issue.newsletter, slug="second"))
    drain()
    assert len(discord.requests) == 2


def test_a_notice_goes_with_the_change_that_it_tells(discord: HttpStandIn, issue: Issue) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tell(issue)
        raise ZeroDivisionError
    assert drain() == []


def test_a_notice_whose_worker_died_in_mid_send_is_never_resent(
    discord: HttpStandIn, issue: Issue
) -> None:
    tell(issue)
    sent_out().update(state="sending")
    drain()
    assert discord.requests == []
    assert states() == {"discord": "sending"}


def test_a_finish_that_was_lost_does_not_tell_it_twice(discord: HttpStandIn, issue: Issue) -> None:
    tell(issue)
    row = sent_out().get()
    notifying.deliver(row.pk)
    assert isinstance(notifying.deliver(row.pk), Discard)
    assert len(discord.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_tell_it_once(discord: HttpStandIn, issue: Issue) -> None:
    tell(issue)
    row = sent_out().get()
    gate = threading.Barrier(3)

    def work() -> None:
        gate.wait(10)
        notifying.deliver(row.pk)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(discord.requests) == 1


@pytest.mark.parametrize("answer", [reply(500), reply(404), reply(429), drop()])
def test_a_notice_that_was_not_taken_is_given_up(
    issue: Issue, settings: Settings, answer: Reply
) -> None:
    with HttpStandIn(answer) as server:
        settings.DISCORD_WEBHOOK_URL = server.url("/a-secret")
        tell(issue)
        drain()
        drain()
    assert states() == {"discord": "failed"}
    assert len(server.requests) == 1


def test_the_webhooks_secret_is_not_in_the_note(issue: Issue, settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = "http://127.0.0.1:1/a-secret"
    tell(issue)
    drain()
    assert sent_out().get().note and "a-secret" not in sent_out().get().note
    assert "a-secret" not in Job.objects.get(name="notify").note


def test_one_channel_that_is_down_does_not_silence_another(
    discord: HttpStandIn, issue: Issue, settings: Settings
) -> None:
    settings.SLACK_WEBHOOK_URL = "http://127.0.0.1:1/"
    tell(issue)
    drain()
    assert states() == {"discord": "sent", "slack": "failed"}


def test_a_webhook_that_is_down_never_changes_the_release(
    settings: Settings, smtp: SmtpStandIn
) -> None:
    settings.DISCORD_WEBHOOK_URL = settings.SLACK_WEBHOOK_URL = "http://127.0.0.1:1/"
    issue = frozen(3)
    drain()
    issue.refresh_from_db()
    assert (issue.state, issue.blocked_reason) == ("sent", "")
    assert sum(smtp.accepted().values()) == 3


def test_an_email_notice_goes_to_each_operator(operators: SmtpStandIn, issue: Issue) -> None:
    tell(issue)
    drain()
    assert set(operators.accepted()) == {"rita@example.org", "ugo@example.org"}
    message = message_from_bytes(operators.copies[0].data)
    assert (message["Subject"], message["From"]) == ("It is blocked", "ana@news.example.org")
    assert states() == {"email:0": "sent", "email:1": "sent"}


def test_an_email_notice_that_was_refused_is_given_up(operators: SmtpStandIn, issue: Issue) -> None:
    operators.on("rcpt", say("550 5.1.1 nobody"), recipient="rita@example.org")
    tell(issue)
    drain()
    assert states() == {"email:0": "failed", "email:1": "sent"}


def test_an_email_notice_whose_reply_was_lost_is_never_resent(
    operators: SmtpStandIn, issue: Issue
) -> None:
    operators.on("dot", accept_then_drop())
    tell(issue)
    drain(twice=True)
    assert set(operators.accepted().values()) == {1}


def test_an_operator_who_was_taken_off_the_list_gets_nothing(
    operators: SmtpStandIn, issue: Issue, settings: Settings
) -> None:
    tell(issue)
    settings.NOTIFY_EMAIL = ("rita@example.org",)
    drain()
    assert states() == {"email:0": "sent", "email:1": "failed"}
    assert set(operators.accepted()) == {"rita@example.org"}


def test_a_notice_about_no_newsletter_comes_from_its_reader(
    operators: SmtpStandIn, settings: Settings
) -> None:
    notifying.tell("restored", "The database is behind")
    drain()
    assert {copy.mail_from for copy in operators.copies} == set(settings.NOTIFY_EMAIL)


def test_a_fault_of_ours_is_seen_and_not_resent(issue: Issue, settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = "http://127.0.0.1:1/"
    tell(issue)
    row = sent_out().get()
    Notification.objects.filter(pk=row.pk).update(notice={})
    drain()
    row.refresh_from_db()
    assert (row.state, row.note) == ("failed", "a fault of ours: KeyError")


# A webhook that does harm.


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (reply(204, delay=60), "127.0.0.1 did not answer in full within 2 seconds"),
        (drip(b"." * 1000, 0.2), "127.0.0.1 did not answer in full within 2 seconds"),
        (reply(body=b"." * 10_000_000), "127.0.0.1 sent more than 1,000,000 bytes"),
        (
            redirect("http://10.0.0.1/a-secret"),
            "127.0.0.1 redirects a POST, which is not followed: enter the address that it points to",
        ),
        (
            reply(404, "no webhook a-secret"),
            "Discord's webhook: 127.0.0.1 answered with status 404; check its address and permissions",
        ),
    ],
    ids=["hangs", "drips", "10 MB", "redirects inward", "is gone"],
)
def test_a_webhook_that_does_harm_fails_alone_and_tells_no_secret(
    issue: Issue,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Reply,
    note: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(notifying, "WEBHOOK", Limits(total_seconds=2, max_bytes=1_000_000))
    with HttpStandIn(answer) as harm, HttpStandIn(reply(200, "ok")) as slack:
        settings.DISCORD_WEBHOOK_URL = harm.url("/a-secret")
        settings.SLACK_WEBHOOK_URL = slack.url("/a-secret")
        tell(issue)
        drain()
    assert states() == {"discord": "failed", "slack": "sent"}
    assert sent_out().get(channel="discord").note == note
    assert len(harm.requests) == 1
    assert "a-secret" not in caplog.text
    assert not Job.objects.filter(note__contains="a-secret").exists()


def test_a_webhook_that_leads_inward_is_not_asked(
    discord: HttpStandIn, issue: Issue, settings: Settings
) -> None:
    settings.ALLOW_PRIVATE_URLS = ()
    tell(issue)
    drain()
    assert (states(), discord.requests) == ({"discord": "failed"}, [])
    assert "127.0.0.1" in sent_out().get().note


# A channel that is left alone for a while.


def opened(name: str = "discord") -> None:
    now = database_now()
    CircuitBreaker.objects.create(
        name=name,
        state="open",
        failures=5,
        opened=1,
        reason="it is down",
        until=now + timedelta(hours=1),
        changed_at=now,
    )


def is_due_for_a_probe() -> None:
    CircuitBreaker.objects.update(until=database_now() - timedelta(seconds=1))


def the_job() -> Job:
    return Job.objects.filter(name="notify").latest("id")


def test_a_channel_that_is_down_is_left_alone(issue: Issue, settings: Settings) -> None:
    with HttpStandIn(reply(503)) as server:
        settings.DISCORD_WEBHOOK_URL = server.url("/a-secret")
        for n in range(8):
            tell(issue, once=str(n))
            drain()
    assert len(server.requests) == 5
    assert sorted(states_of("discord")) == ["failed"] * 5 + ["pending"] * 3


def states_of(channel: str) -> list[str]:
    return list(Notification.objects.filter(channel=channel).values_list("state", flat=True))


def test_a_notice_that_waits_is_told_once_when_its_channel_answers(
    discord: HttpStandIn, issue: Issue
) -> None:
    opened()
    tell(issue)
    drain()
    assert (states(), the_job().state, the_job().failures) == ({"discord": "pending"}, "queued", 0)
    is_due_for_a_probe()
    hurry("notify")
    drain()
    assert states() == {"discord": "sent"}
    assert len(discord.requests) == 1


def test_another_channel_does_not_wait_with_it(
    discord: HttpStandIn, issue: Issue, settings: Settings
) -> None:
    settings.SLACK_WEBHOOK_URL = discord.url("/slack")
    opened("slack")
    tell(issue)
    drain()
    assert states() == {"discord": "sent", "slack": "pending"}


def test_after_a_day_it_is_given_up_and_nobody_is_troubled(
    discord: HttpStandIn, issue: Issue
) -> None:
    opened()
    CircuitBreaker.objects.update(until=database_now() + timedelta(days=9))
    tell(issue)
    drain()
    assert the_job().due_at - database_now() <= timedelta(hours=24)
    day_ago = database_now() - timedelta(hours=24)
    Job.objects.update(troubles={"BreakerOpen": {"count": 0, "since": day_ago.isoformat()}})
    hurry("notify")
    told = Notification.objects.count()
    drain()
    assert states() == {"discord": "failed"}
    assert sent_out().get().note.startswith("given up: discord does not answer (it is down)")
    assert (the_job().state, discord.requests) == ("done", [])
    assert Notification.objects.count() == told


@pytest.mark.parametrize(
    ("phase", "answer", "failures"),
    [
        ("rcpt", say("550 5.1.1 nobody"), 0),
        ("rcpt", say("450 4.2.1 not now"), 0),
        ("mail", say("550 not from you"), 0),
        ("greeting", say("421 too busy"), 2),
        ("dot", accept_then_drop(), 2),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_mail_server_that_does_not_answer_counts_for_its_breaker(
    operators: SmtpStandIn, issue: Issue, phase: str, answer: Any, failures: int
) -> None:
    operators.on(phase, answer)
    tell(issue)
    drain()
    found = CircuitBreaker.objects.filter(name="smtp").values_list("failures", flat=True)
    assert list(found) == ([failures] if failures else [])


def test_a_fault_of_ours_does_not_count_for_the_channel(issue: Issue, settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = "http://127.0.0.1:1/"
    tell(issue)
    sent_out().update(notice={})
    drain()
    assert not CircuitBreaker.objects.exists()


def test_a_database_that_goes_away_before_the_mark_loses_no_notice(
    discord: HttpStandIn, issue: Issue
) -> None:
    def away(execute: Any, sql: str, *args: Any) -> Any:
        if "delivery_circuitbreaker" in sql:
            raise OperationalError("gone")
        return execute(sql, *args)

    tell(issue)
    with connection.execute_wrapper(away):
        drain()
    assert (states(), the_job().state) == ({"discord": "pending"}, "queued")
    hurry("notify")
    drain()
    assert (states(), len(discord.requests)) == ({"discord": "sent"}, 1)
