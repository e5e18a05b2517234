"""Notices: at most once for each event and channel, and never in the way of a release."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from email import message_from_bytes

import pytest
from django.db import connection, transaction
from django.db.models import QuerySet
from pytest_django import Settings

from delivery import notifying
from delivery.models import Job, Notification
from delivery.outcome import Discard
from newsletter.models import Issue
from tests import cast
from tests.drain import drain, frozen
from tests.stand_ins.http import HttpStandIn, Reply, drop, reply
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
