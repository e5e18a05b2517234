"""What Prometheus reads: the numbers of `health` and of the tally, asked of the database at each scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import accumulate
from typing import Any

from django.db.models import Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from newsletter.models import database_now

from . import health
from .models import CircuitBreaker, JobTally
from .models import House as HouseRow
from .models.circuit_breaker import BreakerState
from .models.job_tally import BOUNDS, BUCKETS

OPENNESS = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
DURATIONS = ("seconds", *BUCKETS)
LIMITS = [*map(str, BOUNDS), "+Inf"]


def exposition() -> bytes:
    """All metrics as Prometheus' text. They are the database's: every host tells the same."""
    return generate_latest(REGISTRY)


class House:
    """The collector: its order is the order of the page."""

    def collect(self) -> Iterator[Metric]:
        now = database_now()
        yield from _jobs()
        yield from _lanes(now)
        yield from _sending(now)
        yield _breakers()
        yield _held()


REGISTRY = CollectorRegistry()
REGISTRY.register(House())


def _jobs() -> Iterator[Metric]:
    """Sums over the whole tally: its old minutes are merged, never dropped, so these only grow."""
    runs = CounterMetricFamily(
        "carteiro_jobs", "Runs of jobs, by how they ended.", labels=["name", "outcome"]
    )
    took = HistogramMetricFamily(
        "carteiro_job_seconds", "How long runs took, however they ended.", labels=["name"]
    )
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(DURATIONS))
    for name, ending, number, *durations in _sums():
        runs.add_metric([name, ending], number)
        totals[name] = [a + b for a, b in zip(totals[name], durations, strict=True)]
    for name, (seconds, *counts) in totals.items():
        took.add_metric([name], list(zip(LIMITS, accumulate(counts), strict=True)), seconds)
    yield from (runs, took)


def _sums() -> Iterable[tuple[Any, ...]]:
    """(name, ending, runs, then DURATIONS), in one statement: the prune may merge rows at the same time."""
    sums = {f"sum_{column}": Sum(column) for column in ("runs", *DURATIONS)}
    rows = JobTally.objects.values_list("name", "ending").annotate(**sums)
    return rows.order_by("name", "ending")


def _lanes(now: datetime) -> Iterator[Metric]:
    depth = _gauge("lane_depth", "Jobs of the lane that are due now.", "lane")
    oldest = _gauge("lane_oldest_seconds", "For how long its oldest one has been due.", "lane")
    paused = _gauge("lane_paused", "1 while an operator holds the lane.", "lane")
    workers = _gauge("workers", "How many `work` have a fresh heartbeat in the lane.", "lane")
    for lane in health.lanes(now):
        depth.add_metric([lane.lane], lane.depth)
        oldest.add_metric([lane.lane], lane.oldest_seconds)
        paused.add_metric([lane.lane], bool(lane.pause))
        workers.add_metric([lane.lane], len(lane.works))
    yield from (depth, oldest, paused, workers)


def _sending(now: datetime) -> Iterator[Metric]:
    rows = _gauge(
        "deliveries",
        f"Rows of the ledger, of the issues that are sending or were closed within {health.LEDGER_DAYS} days "
        "(not of the whole ledger).",
        "status",
    )
    for status, number in health.deliveries(now).items():
        rows.add_metric([status], number)
    rate = _gauge("send_rate", "Mails a second, over the last five minutes.")
    rate.add_metric([], health.send_rate(now))
    yield from (rows, rate)


def _breakers() -> Metric:
    found = _gauge("breaker_open", "0 closed, 0.5 half-open (one probe), 1 open.", "name")
    for name, state in CircuitBreaker.objects.order_by("name").values_list("name", "state"):
        found.add_metric([name], OPENNESS[BreakerState(state)])
    return found


def _held() -> Metric:
    found = _gauge("held", "1 while everything is held: paused by an operator, or doubted.", "why")
    standing = HouseRow.read().standing
    for why in ("paused", "doubted"):
        found.add_metric([why], standing == why)
    return found


def _gauge(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"carteiro_{name}", what, labels=labels)
