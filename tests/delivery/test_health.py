"""Alive, ready, and the numbers of the house: what probes, metrics and the operations page are told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from delivery import health
from delivery.models import EmailDelivery, Heartbeat, Job, JobTally, LanePause
from delivery.models.heartbeat import TICK
from delivery.models.job import Lane
from delivery.views import health as views
from newsletter.models import Issue, database_now
from tests import cast

ROOT = Path(__file__).resolve().parent.parent.parent
READY = {"database": "ok", "workers": "ok", "tick": "ok", "due": "ok", "held": "ok"}
PROBE = """
import json, os, sys, time
import django
from django.test import Client
django.setup()
began = time.monotonic()
answer = Client(headers={"host": "news.example.org", "authorization": "Bearer a-token"}).get(sys.argv[1])
print(json.dumps([answer.status_code, answer.content.decode(), time.monotonic() - began]))
"""


def house_at_work(ago: float = 0) -> datetime:
    """All lanes and the tick beat, so many seconds ago; the database's time."""
    now = database_now()
    for lane in (*Lane.values, TICK):
        Heartbeat.objects.create(work="oak:7", lane=lane, at=now - timedelta(seconds=ago))
    return now


def due(seconds_ago: float, lane: str = "default", number: int = 1) -> None:
    at = database_now() - timedelta(seconds=seconds_ago)
    Job.objects.bulk_create(
        Job(key=f"{lane}:{seconds_ago}:{n}", name="notify", lane=lane, due_at=at)
        for n in range(number)
    )


def pause(lane: str) -> None:
    LanePause.objects.create(lane=lane, actor="ana", reason="a look", since=database_now())


def tally(at: datetime, name: str = "publish", ending: str = "done", **over: Any) -> None:
    values = {"runs": 1, "to_250_ms": over.get("runs", 1), **over}
    JobTally.objects.create(
        name=name, ending=ending, at=at.replace(second=0, microsecond=0), **values
    )


def ledger(issue: Issue, **statuses: int) -> None:
    rows = [
        EmailDelivery(issue=issue, address_key=f"{status}{n}", status=status)
        for status, number in statuses.items()
        for n in range(number)
    ]
    EmailDelivery.objects.bulk_create(rows, batch_size=1000)


def closed(issue: Issue, days_ago: float) -> None:
    at = database_now() - timedelta(days=days_ago)
    Issue.objects.filter(pk=issue.pk).update(
        state="sent", closed_at=at, audience_frozen_at=at, audience=1
    )


# Alive


def test_it_is_alive_without_database_session_or_cache() -> None:
    answer = Client().get("/health")
    assert (answer.status_code, answer.content) == (200, b"ok\n")
    assert "no-store" in answer["Cache-Control"] and not answer.cookies
    assert "Cookie" not in answer.get("Vary", "")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_a_probe_changes_nothing(path: str) -> None:
    assert Client().post(path).status_code == 405


def test_a_probe_is_not_sent_to_https(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/health").status_code == 200
    assert Client().post("/ready").status_code == 405
    assert Client().get("/metrics").status_code == 301


def test_a_probe_names_a_host_that_is_answered(settings: Settings) -> None:
    def answer() -> int:
        return Client(headers={"host": "10.0.0.5:8000"}).get("/health").status_code

    assert answer() == 400
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "10.0.0.5"]
    assert answer() == 200


# Ready


@pytest.mark.django_db(transaction=True)
def test_it_is_ready_where_work_gets_done(client: Client) -> None:
    house_at_work()
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "checks": READY})
    assert "no-store" in answer["Cache-Control"] and not answer.cookies


@pytest.mark.django_db(transaction=True)
def test_it_is_not_ready_where_nobody_works(client: Client) -> None:
    due(300)
    answer = client.get("/ready")
    words = {"workers": "silent: critical, default, bulk", "tick": "late", "due": "late: default"}
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["checks"] == READY | words


@pytest.mark.django_db
@pytest.mark.parametrize("lane", Lane.values)
def test_a_lane_without_a_heartbeat_is_named(lane: str) -> None:
    house_at_work()
    Heartbeat.objects.filter(lane=lane).delete()
    assert health.readiness() == READY | {"workers": f"silent: {lane}"}


@pytest.mark.django_db
def test_an_old_heartbeat_is_none(settings: Settings) -> None:
    house_at_work(ago=settings.WATCHDOG_SECONDS + settings.SENDER_SECONDS + 5)
    assert health.readiness()["workers"] == "silent: critical, default, bulk"


@pytest.mark.django_db
def test_any_work_will_do() -> None:
    house_at_work(ago=3600)
    for lane in Lane.values:
        Heartbeat.objects.create(work="elm:9", lane=lane, at=database_now())
    assert health.readiness()["workers"] == "ok"


@pytest.mark.django_db
@pytest.mark.parametrize(("ago", "word"), [(140, "ok"), (160, "late")])
def test_the_tick_comes_each_minute(ago: float, word: str) -> None:
    house_at_work()
    at = database_now() - timedelta(seconds=ago)
    Heartbeat.objects.filter(lane=TICK).update(at=at)
    assert health.readiness()["tick"] == word


@pytest.mark.django_db
@pytest.mark.parametrize(("ago", "word"), [(110, "ok"), (130, "late: bulk"), (-600, "ok")])
def test_due_work_is_not_left_lying(ago: float, word: str) -> None:
    house_at_work()
    due(ago, "bulk")
    assert health.readiness()["due"] == word


@pytest.mark.django_db
def test_the_work_of_a_paused_lane_may_lie() -> None:
    house_at_work()
    due(600, "bulk")
    pause("bulk")
    assert health.readiness()["due"] == "ok"


@pytest.mark.django_db
def test_a_probe_costs_a_handful_of_queries(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    house_at_work()
    due(10, "bulk", 100)
    with django_assert_max_num_queries(6):
        health.readiness()


@pytest.mark.django_db
def test_the_queries_go_by_their_indexes() -> None:
    now = house_at_work()
    crowd(now)
    plan = plans(health.readiness)
    # Both hold what is queued, and nothing else; PostgreSQL takes the one that earlier tests have bloated less.
    assert ("job_lane" in plan or "job_due" in plan) and not whole_tables(plan)
    plan = plans(lambda: [health.deliveries(now), health.send_rate(now), health.failures(now)])
    assert "delivery_books" in plan and not whole_tables(plan)
    plan = plans(lambda: [health.throughput(now, 2), health.percentiles("publish", now)])
    assert plan and not whole_tables(plan)
    assert whole_tables(plans(lambda: list(Job.objects.filter(note="no index"))))


@pytest.mark.django_db(transaction=True)
def test_a_probe_waits_for_a_hanging_database_for_seconds_only(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(views, "PATIENCE", 0.1)
    monkeypatch.setattr(health, "readiness", lambda: released.wait(30) and READY)
    before = threading.active_count()
    answers = [client.get("/ready") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    assert threading.active_count() <= before + 1
    released.set()
    monkeypatch.setattr(views, "PATIENCE", 30)
    assert client.get("/ready").status_code == 200


@contextmanager
def nowhere(kind: str) -> Iterator[str]:
    """The URL of a database that is away: no file, nobody at the port, or somebody who never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if kind == "silent":
            listening.listen()
        port = listening.getsockname()[1]
        away = f"postgres://house:a-secret@127.0.0.1:{port}/house"
        yield "sqlite:////proc/none/house.sqlite3" if kind == "no file" else away


@pytest.mark.parametrize("kind", ["no file", "refused", "silent"])
def test_without_a_database_it_is_not_ready_and_says_so_soon(kind: str) -> None:
    with nowhere(kind) as url:
        status, body, seconds, told = probe("/ready", url)
    assert (status, json.loads(body)["checks"]) == (503, {"database": "unreachable"})
    assert seconds < views.PATIENCE + 1
    assert "ready.no_database" in told
    assert not any(word in told for word in ("Traceback", "127.0.0.1", "a-secret"))


@pytest.mark.parametrize("kind", ["no file", "refused"])
def test_without_a_database_there_are_no_numbers(kind: str) -> None:
    with nowhere(kind) as url:
        status, body, _, told = probe("/metrics", url)
    assert (status, body) == (503, "the database does not answer\n")
    assert not any(word in told for word in ("Traceback", "127.0.0.1", "a-secret"))


def probe(path: str, database_url: str) -> tuple[int, str, float, str]:
    """Status, body, seconds, and what was logged, of a process whose database this is."""
    over = {"DATABASE_URL": database_url, "METRICS_TOKEN": "a-token", "LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, path],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", **over},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    status, body, seconds = json.loads(done.stdout)
    return status, body, seconds, done.stderr


# The numbers


@pytest.mark.django_db
def test_a_lane_tells_depth_age_pause_and_who_works_there() -> None:
    now = house_at_work()
    due(30, "bulk", 3)
    due(-30, "bulk")
    pause("bulk")
    critical, default, bulk = health.lanes(now)
    assert (critical.lane, default.lane, bulk.lane) == ("critical", "default", "bulk")
    assert (default.depth, default.oldest_seconds, default.pause) == (0, 0, None)
    assert bulk.depth == 3 and 25 < bulk.oldest_seconds < 60
    assert bulk.pause and bulk.pause.reason == "a look"
    assert bulk.works == [("oak:7", now)]


@pytest.mark.django_db
def test_percentiles_lie_inside_their_bucket() -> None:
    now = database_now()
    tally(now, runs=90, to_250_ms=90)
    tally(now, ending="retried", runs=10, to_250_ms=0, to_5_s=10)
    found = health.percentiles("publish", now - timedelta(hours=1))
    assert found == pytest.approx((0.05 + 0.2 * 50 / 90, 3.0))


@pytest.mark.django_db
def test_what_took_longer_than_all_bounds_counts_as_the_last() -> None:
    tally(database_now(), runs=1, to_250_ms=0, over=1)
    since = database_now() - timedelta(hours=1)
    assert health.percentiles("publish", since) == (120.0, 120.0)


@pytest.mark.django_db
def test_what_did_not_run_has_no_percentiles() -> None:
    tally(datetime(1970, 1, 1, tzinfo=UTC), runs=90)
    assert health.percentiles("publish", database_now() - timedelta(hours=1)) == (None, None)


@pytest.mark.django_db
def test_throughput_has_an_hour_for_each_hour() -> None:
    now = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    tally(now, runs=5)
    tally(now - timedelta(minutes=20), ending="dead", runs=2)
    tally(now - timedelta(hours=2), "deliver", "waiting", runs=7, items=400)
    tally(now - timedelta(hours=3), runs=9)
    assert health.throughput(now, 3) == [
        (now.replace(hour=8, minute=0), 0, 0, 400),
        (now.replace(hour=9, minute=0), 0, 0, 0),
        (now.replace(hour=10, minute=0), 7, 2, 0),
    ]


@pytest.mark.django_db
def test_the_send_rate_is_that_of_the_last_minutes() -> None:
    now = database_now().replace(second=30)
    for ago in (0, 4, 8):
        tally(now - timedelta(minutes=ago), "deliver", "waiting", items=330)
    tally(now, "publish", items=1000)
    assert health.send_rate(now) == pytest.approx(660 / 330, rel=0.01)


@pytest.mark.django_db
def test_the_ledgers_figures_leave_old_issues_out() -> None:
    weekly = cast.newsletter()
    old, recent, now = (cast.approved(weekly, slug=slug) for slug in ("old", "recent", "now"))
    closed(old, days_ago=8)
    closed(recent, days_ago=6)
    Issue.objects.filter(pk=now.pk).update(
        state="sending", audience_frozen_at=database_now(), audience=1
    )
    ledger(old, sent=4)
    ledger(recent, sent=2, failed=1)
    ledger(now, sent=1, pending=3)
    counted = health.deliveries(database_now())
    assert {status: n for status, n in counted.items() if n} == {
        "sent": 3,
        "failed": 1,
        "pending": 3,
    }
    assert set(counted) == {"pending", "sending", "sent", "failed", "unknown", "skipped"}


def crowd(now: datetime) -> None:
    """Tables that are big enough for their indexes to matter, and known to PostgreSQL's planner as they would be."""
    rows = [
        Job(key=f"done:{n}", name="notify", state="done", due_at=now, finished_at=now)
        for n in range(4000)
    ]
    Job.objects.bulk_create(rows, batch_size=1000)
    due(10, "bulk", 40)
    old = [now - timedelta(days=1, minutes=n) for n in range(4000)]
    tallies = [JobTally(name="publish", ending="done", at=at) for at in old]
    JobTally.objects.bulk_create(tallies, batch_size=1000)
    weekly = cast.newsletter()
    for number, days in enumerate((9, 8, 1)):
        issue = cast.approved(weekly, slug=f"issue-{number + 10}a")
        closed(issue, days)
        ledger(issue, sent=2000 if days > 7 else 50)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for model in (Job, JobTally, EmailDelivery):
                cursor.execute(f"ANALYZE {model._meta.db_table}")


def plans(ask: Callable[[], object]) -> str:
    """How the database goes about what `ask` asks."""
    asked: list[tuple[str, Any]] = []

    def listen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(listen):
        ask()
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    lines = []
    with connection.cursor() as cursor:
        for sql, params in asked:
            if "delivery_" in sql:
                cursor.execute(explain + sql, params)
                lines += [str(row[-1]) for row in cursor.fetchall()]
    return "\n".join(lines)


def whole_tables(plan: str) -> list[str]:
    """The big tables that are read from end to end."""
    big = ("delivery_job", "delivery_jobtally", "delivery_emaildelivery")
    ends = [line for line in plan.splitlines() if "Seq Scan" in line or line.startswith("SCAN")]
    return [
        line
        for line in ends
        if any(f"{name} " in f"{line} " for name in big) and "USING" not in line
    ]
