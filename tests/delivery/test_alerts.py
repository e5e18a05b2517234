"""A job that fails too often is told once, and once more when it works again."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from django.db import connection

from delivery import alerts
from delivery.models import Alert, JobTally, Notification
from newsletter.models import database_now

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> datetime:
    return database_now()


def ran(at: datetime, done: int, name: str = "publish", /, **endings: int) -> None:
    """So many runs at that minute, by their endings; what was there is forgotten."""
    minute = at.replace(second=0, microsecond=0)
    JobTally.objects.filter(name=name).delete()
    for ending, runs in {"done": done, **endings}.items():
        JobTally.objects.create(name=name, ending=ending, at=minute, runs=runs)


def told() -> list[str]:
    """The events, in the order in which they were told."""
    rows: Iterable[Notification] = Notification.objects.filter(channel="log").order_by("id")
    return [row.notice["event"] for row in rows]


def is_raised(name: str = "publish") -> bool:
    return Alert.objects.filter(name=f"failures:{name}", raised_at__isnull=False).exists()


def test_more_than_two_in_a_hundred_is_told(now: datetime) -> None:
    ran(now, 58, retried=1, dead=1)
    alerts.check(now)
    notice = Notification.objects.get().notice
    assert (notice["event"], notice["level"]) == ("failing", "error")
    assert notice["title"] == "The job “publish” fails too often"
    assert "60 runs" in notice["lines"][0] and "2 failed" in notice["lines"][0]
    alert = Alert.objects.get()
    assert (alert.name, alert.raised_at, alert.times) == ("failures:publish", now, 1)


@pytest.mark.parametrize("ending", ["retried", "degraded", "dead"])
def test_each_of_these_endings_is_a_failure(now: datetime, ending: str) -> None:
    ran(now, 90, **{ending: 10})
    alerts.check(now)
    assert told() == ["failing"]


@pytest.mark.parametrize(
    ("done", "endings"),
    [
        (98, {"dead": 2}),  # exactly 2 %
        (45, {"dead": 4}),  # fewer than 50
        (0, {"waiting": 500, "delayed": 500}),  # expected
        (10, {"waiting": 500, "dead": 10}),  # waiting makes no crowd
        (10, {"discarded": 90}),
    ],
)
def test_this_is_no_alarm(now: datetime, done: int, endings: dict[str, int]) -> None:
    ran(now, done, **endings)
    alerts.check(now)
    assert (told(), is_raised()) == ([], False)


def test_waits_do_not_hide_failures(now: datetime) -> None:
    ran(now, 45, dead=5, waiting=10_000, delayed=10_000)
    alerts.check(now)
    assert told() == ["failing"]


def test_what_failed_before_the_window_is_over(now: datetime) -> None:
    ran(now - HOUR - timedelta(minutes=1), 50, dead=50)
    alerts.check(now)
    assert told() == []


def test_it_is_told_once_however_often_it_is_seen(now: datetime) -> None:
    ran(now, 50, dead=5)
    for minute in range(5):
        alerts.check(now + timedelta(minutes=minute))
    assert told() == ["failing"]


def test_a_share_that_wavers_around_the_threshold_is_told_once(now: datetime) -> None:
    for failed in (30, 15, 25, 19, 21, 11, 30):
        ran(now, 1000 - failed, retried=failed)
        alerts.check(now)
    assert told() == ["failing"] and is_raised()


def test_it_is_over_at_one_in_a_hundred_and_that_is_told_once(now: datetime) -> None:
    ran(now, 50, dead=5)
    alerts.check(now)
    ran(now, 99, dead=1)
    for _ in range(3):
        alerts.check(now)
    assert (told(), is_raised()) == (["failing", "recovered"], False)
    notice = Notification.objects.get(notice__event="recovered").notice
    assert (notice["title"], notice["level"]) == ("The job “publish” works again", "info")


def test_a_job_that_runs_seldom_is_well_after_an_hour_without_a_failure(now: datetime) -> None:
    ran(now, 50, dead=5)
    alerts.check(now)
    ran(now, 20, retried=1)
    alerts.check(now)
    assert is_raised()
    ran(now, 20)
    alerts.check(now)
    assert told() == ["failing", "recovered"]


def test_a_job_that_runs_no_more_is_not_an_alarm_for_ever(now: datetime) -> None:
    ran(now, 50, dead=5)
    alerts.check(now)
    alerts.check(now + 2 * HOUR)
    assert told() == ["failing", "recovered"]


def test_the_next_time_is_told_again(now: datetime) -> None:
    for done, dead in ((50, 5), (200, 0), (50, 5), (200, 0)):
        ran(now, done, dead=dead)
        alerts.check(now)
    assert told() == ["failing", "recovered"] * 2
    assert Alert.objects.get().times == 2


def test_each_job_has_an_alert_of_its_own(now: datetime) -> None:
    ran(now, 50, "publish", dead=5)
    ran(now, 5000, "notify")
    ran(now, 50, "report", degraded=5)
    alerts.check(now)
    assert (is_raised("publish"), is_raised("notify"), is_raised("report")) == (True, False, True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("dead", "events"), [(5, ["failing"]), (0, ["failing", "recovered"])])
def test_several_hosts_tell_it_once(now: datetime, dead: int, events: list[str]) -> None:
    ran(now, 50, dead=5)
    if not dead:
        alerts.check(now)
        ran(now, 50)
    gate = threading.Barrier(4)

    def host(_: int) -> None:
        try:
            gate.wait(10)
            alerts.check(now)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as hosts:
        list(hosts.map(host, range(4)))
    assert told() == events
    assert Alert.objects.get().times == 1
