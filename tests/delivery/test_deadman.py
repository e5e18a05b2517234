"""The dead-man's switch: told when the issue is closed, tried again where it does not answer, given up aloud."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network

import pytest
from django.db import transaction
from pytest_django import Settings

from delivery import deadman, sending
from delivery.models import CircuitBreaker, EmailDelivery, Job, Notification
from delivery.outcome import Discard, Done
from newsletter.models import Issue, database_now
from tests.drain import drain, frozen, hurry
from tests.stand_ins.http import HttpStandIn, Reply, drop, redirect, reply
from tests.stand_ins.smtp import SmtpStandIn

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        yield server


@pytest.fixture
def switch(settings: Settings) -> Iterator[HttpStandIn]:
    with HttpStandIn(reply(200, "OK")) as server:
        settings.DEADMAN_URL = server.url("/a-secret")
        yield server


def closed() -> Issue:
    issue = frozen(2)
    drain()
    issue.refresh_from_db()
    assert issue.state == "sent"
    return issue


def the_job() -> Job:
    return Job.objects.get(name="ping_deadman")


def told() -> list[Notification]:
    return list(Notification.objects.filter(key__startswith="deadman_not_told:", channel="log"))


def test_it_is_told_once_when_the_issue_is_closed(switch: HttpStandIn) -> None:
    closed()
    assert [(asked.method, asked.path) for asked in switch.requests] == [("GET", "/a-secret")]
    assert (the_job().state, told()) == ("done", [])


def test_it_is_not_told_before(switch: HttpStandIn) -> None:
    frozen(2)
    assert switch.requests == [] and not Job.objects.filter(name="ping_deadman").exists()


def test_a_close_that_was_taken_back_tells_nobody(switch: HttpStandIn) -> None:
    issue = frozen(2)
    EmailDelivery.objects.update(status="sent", settled_at=database_now())
    outcome = sending.close(issue)
    assert isinstance(outcome, Done)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        outcome.advance()
        assert the_job().issue_id == issue.pk
        raise ZeroDivisionError
    assert not Job.objects.filter(name="ping_deadman").exists()


def test_without_an_address_there_is_nothing_to_tell() -> None:
    closed()
    assert not Job.objects.filter(name="ping_deadman").exists()


def test_an_address_that_was_taken_away_meanwhile_is_not_missed(
    switch: HttpStandIn, settings: Settings
) -> None:
    issue = closed()
    settings.DEADMAN_URL = ""
    assert isinstance(deadman.ping(issue.pk), Discard)


def test_only_a_closed_issue_is_told(switch: HttpStandIn) -> None:
    assert isinstance(deadman.ping(frozen(2).pk), Discard)
    assert isinstance(deadman.ping(0), Discard)
    assert switch.requests == []


def test_twice_does_no_harm(switch: HttpStandIn) -> None:
    issue = closed()
    assert (
        deadman.ping(issue.pk) == deadman.ping(issue.pk) == Done("the dead-man's switch was told")
    )


@pytest.mark.parametrize("answer", [reply(503), reply(429), drop()])
def test_it_is_tried_again_where_it_does_not_answer(settings: Settings, answer: Reply) -> None:
    with HttpStandIn(answer, reply(200)) as server:
        settings.DEADMAN_URL = server.url("/a-secret")
        issue = closed()
        assert (the_job().state, the_job().failures) == ("queued", 1)
        hurry("ping_deadman")
        drain()
    assert (the_job().state, len(server.requests), told()) == ("done", 2, [])
    issue.refresh_from_db()
    assert issue.state == "sent"


def test_after_six_hours_it_is_given_up_and_told(settings: Settings) -> None:
    settings.DEADMAN_URL = "http://127.0.0.1:1/a-secret"
    closed()
    began = database_now() - timedelta(hours=6)
    Job.objects.filter(name="ping_deadman").update(
        troubles={"EdgeError": {"count": 20, "since": began.isoformat()}}
    )
    hurry("ping_deadman")
    drain()
    assert the_job().state == "done"
    assert [row.notice["level"] for row in told()] == ["warning"]
    assert "127.0.0.1 refused the connection" in told()[0].notice["lines"][0]


def test_an_address_that_is_wrong_is_told_at_once(settings: Settings) -> None:
    with HttpStandIn(reply(404)) as server:
        settings.DEADMAN_URL = server.url("/a-secret")
        closed()
    assert (the_job().state, len(server.requests), len(told())) == ("done", 1, 1)


def test_an_open_breaker_delays_it_and_spends_no_attempt(switch: HttpStandIn) -> None:
    now = database_now()
    CircuitBreaker.objects.create(
        name="deadman",
        state="open",
        opened=1,
        reason="it is down",
        until=now + timedelta(minutes=5),
        changed_at=now,
    )
    closed()
    assert (the_job().state, the_job().failures, switch.requests) == ("queued", 0, [])


@pytest.mark.parametrize(
    "answer",
    [reply(404), reply(503), drop(), redirect("http://127.0.0.2/a-secret")],
    ids=["gone", "busy", "drops", "redirects inward"],
)
def test_its_address_is_in_no_log_and_no_note(
    settings: Settings, caplog: pytest.LogCaptureFixture, answer: Reply
) -> None:
    caplog.set_level(logging.DEBUG)
    settings.ALLOW_PRIVATE_URLS = (ip_network("127.0.0.1/32"),)
    with HttpStandIn(answer) as server:
        settings.DEADMAN_URL = server.url("/a-secret?key=a-secret")
        closed()
    row = the_job()
    kept = [row.note, row.error, str(row.troubles), *(str(one.notice) for one in told())]
    assert len(server.requests) == 1 and row.note
    assert "a-secret" not in "".join([*kept, caplog.text])
