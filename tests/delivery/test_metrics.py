"""The metrics, read back by Prometheus' own parser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries, Settings

from delivery import metrics
from delivery.models import CircuitBreaker, EmailDelivery, Heartbeat, Job, JobTally, LanePause
from newsletter.models import Issue, database_now
from tests import cast

pytestmark = pytest.mark.django_db

TOKEN = "only-for-tests"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _with_a_token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


def scrape(client: Client) -> str:
    answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (200, "text/plain")
    return answer.content.decode()


def samples(client: Client, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by those of its labels, whose names are in order."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(scrape(client))
        for sample in family.samples
        if sample.name == f"carteiro_{name}"
    }


def tally(name: str, ending: str, at: datetime, **values: Any) -> None:
    JobTally.objects.create(name=name, ending=ending, at=at, **values)


def test_without_a_setting_there_is_no_such_page(client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    for said in ({}, {"authorization": "Bearer "}, {"authorization": f"Bearer {TOKEN}"}):
        assert client.get("/metrics", headers=said).status_code == 404


@pytest.mark.parametrize(
    "said", ["", TOKEN, "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"]
)
def test_nobody_reads_them_without_the_token(client: Client, said: str) -> None:
    answer = client.get("/metrics", headers={"authorization": said} if said else {})
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert b"carteiro_jobs" not in answer.content


def test_they_are_never_cached_and_set_no_cookie(client: Client) -> None:
    answer = client.get("/metrics", headers={"authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert not answer.cookies


def test_every_metric_is_there_on_the_first_day(client: Client) -> None:
    families = text_string_to_metric_families(scrape(client))
    assert [(family.name, family.type) for family in families] == [
        ("carteiro_jobs", "counter"),
        ("carteiro_job_seconds", "histogram"),
        ("carteiro_lane_depth", "gauge"),
        ("carteiro_lane_oldest_seconds", "gauge"),
        ("carteiro_lane_paused", "gauge"),
        ("carteiro_workers", "gauge"),
        ("carteiro_deliveries", "gauge"),
        ("carteiro_send_rate", "gauge"),
        ("carteiro_breaker_open", "gauge"),
        ("carteiro_held", "gauge"),
    ]


def test_runs_are_counted_by_name_and_outcome_for_ever(client: Client) -> None:
    now = database_now()
    tally("publish", "done", EPOCH, runs=100)
    tally("publish", "done", now, runs=3)
    tally("publish", "dead", now, runs=1)
    tally("notify", "done", now, runs=7)
    assert samples(client, "jobs_total") == {
        ("notify", "done"): 7,
        ("publish", "dead"): 1,
        ("publish", "done"): 103,
    }


def test_the_histogram_adds_up_all_endings(client: Client) -> None:
    now = database_now()
    tally("publish", "done", EPOCH, runs=4, seconds=1.5, to_50_ms=3, to_1_s=1)
    tally("publish", "retried", now, runs=2, seconds=400, to_30_s=1, over=1)
    buckets = samples(client, "job_seconds_bucket")
    counts = {limit: n for (limit, _), n in buckets.items()}
    assert counts == {
        "0.05": 3, "0.25": 3, "1.0": 4, "5.0": 4, "30.0": 5, "120.0": 5, "+Inf": 6,
    }  # fmt: skip
    assert samples(client, "job_seconds_count") == {("publish",): 6}
    assert samples(client, "job_seconds_sum") == {("publish",): 401.5}


def test_each_lane_has_its_numbers(client: Client) -> None:
    now = database_now()
    for n in range(3):
        Job.objects.create(
            key=f"deliver:{n}", name="deliver", lane="bulk", due_at=now - timedelta(seconds=60)
        )
    LanePause.objects.create(lane="bulk", actor="ana", reason="a look", since=now)
    Heartbeat.objects.create(work="oak:7", lane="critical", at=now)
    Heartbeat.objects.create(work="elm:9", lane="critical", at=now)
    Heartbeat.objects.create(work="elm:9", lane="default", at=now - timedelta(hours=1))
    lanes = [("critical",), ("default",), ("bulk",)]
    assert samples(client, "lane_depth") == dict(zip(lanes, (0, 0, 3), strict=True))
    assert samples(client, "lane_paused") == dict(zip(lanes, (0, 0, 1), strict=True))
    assert samples(client, "workers") == dict(zip(lanes, (2, 0, 0), strict=True))
    ages = samples(client, "lane_oldest_seconds")
    assert ages[("critical",)] == 0 and 55 < ages[("bulk",)] < 120


def test_the_deliveries_of_this_week_are_counted_by_status(client: Client) -> None:
    issue = cast.approved(cast.newsletter())
    Issue.objects.filter(pk=issue.pk).update(
        state="sending", audience_frozen_at=database_now(), audience=2
    )
    for n, status in enumerate(("sent", "pending")):
        EmailDelivery.objects.create(issue=issue, address_key=str(n), status=status)
    found = samples(client, "deliveries")
    assert (found[("sent",)], found[("pending",)], found[("unknown",)]) == (1, 1, 0)
    assert "not of the whole ledger" in scrape(client)


def test_the_send_rate_counts_what_senders_sent(client: Client) -> None:
    now = database_now().replace(second=0, microsecond=0)
    tally("deliver", "waiting", now - timedelta(minutes=2), items=3600)
    assert 10 <= samples(client, "send_rate")[()] <= 12


@pytest.mark.parametrize(("state", "value"), [("closed", 0), ("half-open", 0.5), ("open", 1)])
def test_a_breaker_tells_how_open_it_is(client: Client, state: str, value: float) -> None:
    now = database_now()
    CircuitBreaker.objects.create(
        name="github", state=state, reason="502", until=now, changed_at=now
    )
    assert samples(client, "breaker_open") == {("github",): value}


def test_odd_names_stay_in_their_label(client: Client) -> None:
    tally('od"d\n\\name', "done", database_now(), runs=1)
    assert samples(client, "jobs_total") == {('od"d\n\\name', "done"): 1}


def test_a_scrape_costs_a_dozen_queries(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_max_num_queries(12):
        metrics.exposition()
