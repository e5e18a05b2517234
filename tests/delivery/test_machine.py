"""Whatever happens to jobs and leases in whatever order: what must never be, never is. The clock is the test's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import DateTimeField, Value
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from delivery import queue
from delivery.errors import BreakerOpen, EdgeError
from delivery.models import Job, Lease
from delivery.models.job import MAX_CRASHES, JobState, Lane
from delivery.outcome import Discard, Done, Outcome, Wait
from delivery.queue import endings
from delivery.queue.registry import REGISTRY, JobType
from delivery.retries import Fixed, On

pytestmark = pytest.mark.django_db

MORNING = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
LEASE = timedelta(seconds=30)
KEYS = ("errand:1", "errand:2")
TIMES = 3
LEGAL = {
    ("queued", "running"),
    ("queued", "discarded"),
    ("running", "queued"),
    ("running", "done"),
    ("running", "discarded"),
    ("running", "dead"),
    ("dead", "queued"),
    ("dead", "discarded"),
}
KNOWN_CLOCKS = (
    "delivery.models.job",
    "delivery.models.lease",
    "delivery.queue.rows",
    "delivery.queue.endings",
    "delivery.queue.lanes",
    "delivery.queue.wakeups",
)


class Clock:
    def __init__(self) -> None:
        self.now = MORNING

    def as_expression(self) -> Value:
        return Value(self.now, output_field=DateTimeField())


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both of the ways in which our code asks for the time."""
    for module in KNOWN_CLOCKS:
        monkeypatch.setattr(f"{module}.database_now", lambda: CLOCK.now, raising=False)
        monkeypatch.setattr(f"{module}.Now", CLOCK.as_expression, raising=False)
    monkeypatch.setitem(
        REGISTRY,
        "errand",
        JobType(lambda: Done(), Lane.DEFAULT, (On(EdgeError, Fixed(10), times=TIMES, within=600),)),
    )
    yield


class Worker:
    """Somebody who claimed a job and holds what it read then: perhaps for too long."""

    def __init__(self, row: Job) -> None:
        self.row = row
        self.finished = False


class Jobs(RuleBasedStateMachine):
    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        CLOCK.now = MORNING
        Job.objects.all().delete()
        self.states: dict[int, str] = {}
        self.effects: Counter[tuple[int, int]] = Counter()  # (job, its run) -> advances applied
        self.finishes: Counter[tuple[int, int]] = Counter()

    @rule(key=st.sampled_from(KEYS), hurry=st.booleans())
    def want(self, key: str, hurry: bool) -> None:
        (queue.enqueue if hurry else queue.ensure)("errand", key=key)

    @rule(target=workers, key=st.sampled_from(KEYS))
    def claim(self, key: str) -> Any:
        row = Job.objects.filter(key=key).order_by("-id").first()
        if row is None:
            return multiple()
        allowed = row.state == JobState.QUEUED and row.due_at <= CLOCK.now
        won = row.claim()
        assert won == allowed
        return Worker(row) if won else multiple()

    @rule(worker=workers)
    def renew(self, worker: Worker) -> None:
        fresh = Job.objects.get(pk=worker.row.pk)
        holds = fresh.state == "running" and fresh.token == worker.row.token
        assert worker.row.renew() == holds

    @rule(
        worker=workers,
        came=st.sampled_from(["done", "wait", "discard", "edge", "permanent", "breaker", "bug"]),
    )
    def finish(self, worker: Worker, came: str) -> None:
        fresh = Job.objects.get(pk=worker.row.pk)
        holds = fresh.state == "running" and fresh.token == worker.row.token
        run = (worker.row.pk, worker.row.runs)
        row = copy(worker.row)
        with transaction.atomic():
            what = self._outcome(came, run)
            apply: Any = endings.fail if isinstance(what, Exception) else endings.finish
            ending = apply(row, what)
        assert (ending is not None) == holds, "a finish counts only while the token holds"
        self.finishes[run] += ending is not None

    def _outcome(self, came: str, run: tuple[int, int]) -> Outcome | Exception:
        def advance() -> None:
            self.effects[run] += 1

        later = CLOCK.now + timedelta(seconds=40)
        outcomes: dict[str, Outcome | Exception] = {
            "done": Done("", advance),
            "wait": Wait(20, "", advance),
            "discard": Discard("gone"),
            "edge": EdgeError("down"),
            "permanent": EdgeError("no", permanent=True),
            "breaker": BreakerOpen("github", later, "down"),
            "bug": ValueError("odd"),
        }
        return outcomes[came]

    @rule(seconds=st.sampled_from([1, 9, 29, 31, 61, 700]))
    def time_passes(self, seconds: int) -> None:
        CLOCK.now += timedelta(seconds=seconds)

    @rule()
    def sweep(self) -> None:
        lost = set(Job.objects.abandoned().values_list("pk", flat=True))
        queue.recover()
        assert not Job.objects.filter(pk__in=lost, state=JobState.RUNNING).exists()

    @rule(key=st.sampled_from(KEYS), again=st.booleans())
    def operate(self, key: str, again: bool) -> None:
        row = Job.objects.filter(key=key, state=JobState.DEAD).first()
        if row is None:
            return
        if again:
            busy = Job.objects.filter(key=key).unfinished().exists()
            assert queue.retry_dead(row, actor="ana") == (not busy)
        else:
            assert queue.discard_dead(row, actor="ana")

    @invariant()
    def every_move_is_legal(self) -> None:
        for pk, state in Job.objects.values_list("pk", "state"):
            before = self.states.get(pk, "queued")
            assert before == state or (before, state) in LEGAL
            self.states[pk] = state

    @invariant()
    def a_key_has_one_unfinished_job(self) -> None:
        for key in KEYS:
            assert Job.objects.filter(key=key).unfinished().count() <= 1

    @invariant()
    def no_run_has_a_second_effect(self) -> None:
        assert all(n == 1 for n in self.effects.values())
        assert all(n <= 1 for n in self.finishes.values())

    @invariant()
    def the_rows_are_whole(self) -> None:
        for row in Job.objects.all():
            running = row.state == JobState.RUNNING
            assert bool(row.token) == running == (row.lease_until is not None)
            assert (row.finished_at is not None) == (row.state in ("done", "discarded", "dead"))
            assert row.crashes <= MAX_CRASHES
            assert all(trouble["count"] <= TIMES for trouble in row.troubles.values())


class Leases(RuleBasedStateMachine):
    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        CLOCK.now = MORNING
        Lease.objects.all().delete()
        self.owner: Lease | None = None  # the last who got it
        self.until = CLOCK.now
        self.fence = 0

    @rule(target=holders)
    def acquire(self) -> Any:
        free = self.until <= CLOCK.now
        lease = Lease.acquire("sender:1:0")
        assert (lease is not None) == free
        if lease is None:
            return multiple()
        assert lease.fence == self.fence + 1, "each owner has a fence of its own, and a higher one"
        self.owner, self.until, self.fence = lease, CLOCK.now + LEASE, lease.fence
        return lease

    @rule(lease=holders)
    def renew(self, lease: Lease) -> None:
        alive = lease is self.owner and self.until > CLOCK.now
        assert lease.renew() == alive
        if alive:
            self.until = CLOCK.now + LEASE

    @rule(lease=holders)
    def release(self, lease: Lease) -> None:
        lease.release()
        if lease is self.owner:
            self.until = min(self.until, CLOCK.now)
            self.owner = None

    @rule(seconds=st.sampled_from([1, 9, 29, 31, 61]))
    def time_passes(self, seconds: int) -> None:
        CLOCK.now += timedelta(seconds=seconds)

    @invariant()
    def the_loser_frees_nothing(self) -> None:
        held = Lease.objects.held().exists()
        assert held == (self.owner is not None and self.until > CLOCK.now)


CHECKED = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.parametrize("machine", [Jobs, Leases])
def test_what_must_never_be_never_is(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(machine, settings=CHECKED)
