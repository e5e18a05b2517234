"""Trouble, by exception: how often, how long, and what is done in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from delivery import queue
from delivery.errors import BreakerOpen, Busy, EdgeError
from delivery.models import Job, JobTally, Notification
from delivery.models.job import JobState, Lane
from delivery.outcome import Done, Outcome, Wait
from delivery.queue.registry import REGISTRY, JobType
from delivery.retries import Backoff, Fixed, On
from newsletter.models import Transition, database_now
from newsletter.models.transition import Subject

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


class Script:
    """What a body does, run for run; its last act is repeated."""

    def __init__(self) -> None:
        self.acts: list[Outcome | Exception] = [Done()]
        self.runs = 0
        self.spent: list[str] = []

    def body(self, **_: Any) -> Outcome:
        act = self.acts[min(self.runs, len(self.acts) - 1)]
        self.runs += 1
        if isinstance(act, Exception):
            raise act
        return act

    def then(self, row: Job, reason: str) -> None:
        self.spent.append(reason)


Declare = Callable[..., Script]


@pytest.fixture
def declare() -> Iterator[Declare]:
    """Register the job `errand` with these policies."""

    def register(*policies: On) -> Script:
        script = Script()
        REGISTRY["errand"] = JobType(script.body, Lane.DEFAULT, policies)
        return script

    yield register
    REGISTRY.pop("errand", None)


def on(error: type[Exception], **over: Any) -> On:
    values: dict[str, Any] = {"wait": Fixed(60), "times": 3, "within": 3600}
    return On(error, **{**values, **over})


def job() -> Job:
    queue.ensure("errand", key="errand:1")
    return Job.objects.latest("id")


def run(row: Job) -> Job:
    """Its time has come."""
    Job.objects.filter(pk=row.pk, state="queued").update(due_at=database_now() - SECOND)
    queue.run(row.pk)
    row.refresh_from_db()
    return row


def waits(row: Job) -> float:
    return (row.due_at - database_now()).total_seconds()


def since(row: Job, ago: timedelta) -> None:
    """Its troubles began so long ago."""
    then = (database_now() - ago).isoformat()
    Job.objects.filter(pk=row.pk).update(
        troubles={name: {**trouble, "since": then} for name, trouble in row.troubles.items()}
    )
    row.refresh_from_db()


def test_it_is_tried_again_as_its_exception_declares(declare: Declare) -> None:
    declare(on(Busy, wait=Fixed(7)), on(EdgeError, wait=Fixed(60))).acts = [
        Busy("taken"),
        EdgeError("down"),
    ]
    row = run(job())
    assert (row.state, row.note) == (JobState.QUEUED, "taken") and 5 < waits(row) < 8
    row = run(row)
    assert row.note == "down" and 50 < waits(row) < 61


def test_each_exception_has_a_count_of_its_own(declare: Declare) -> None:
    declare(on(Busy, times=3), on(EdgeError, times=3)).acts = [
        Busy("taken"),
        EdgeError("down"),
        Busy("taken"),
        EdgeError("down"),
        Busy("taken"),
    ]
    row = job()
    for _ in range(4):
        assert run(row).state == JobState.QUEUED
    assert {name: trouble["count"] for name, trouble in row.troubles.items()} == {
        "Busy": 2,
        "EdgeError": 2,
    }
    assert run(row).state == JobState.DEAD
    assert row.note == "given up after 3 tries: taken"


def test_a_success_in_between_begins_anew(declare: Declare) -> None:
    declare(on(EdgeError, times=2)).acts = [EdgeError("down"), Wait(0, "goes on"), EdgeError("x")]
    row = run(run(run(job())))
    assert (row.state, row.failures) == (JobState.QUEUED, 1)


def test_the_other_sides_wish_is_respected(declare: Declare) -> None:
    declare(on(EdgeError, wait=Fixed(1))).acts = [EdgeError("limited", retry_after=500)]
    assert 490 < waits(run(job())) < 501


def test_its_wall_clock_end_holds_whatever_the_count(declare: Declare) -> None:
    declare(on(EdgeError, times=100, within=3600)).acts = [EdgeError("down")]
    row = run(job())
    since(row, timedelta(minutes=59, seconds=50))
    row = run(row)
    assert row.state == JobState.QUEUED and waits(row) < 11, "the last try is at the end"
    since(row, timedelta(hours=1))
    row = run(row)
    assert (row.state, row.note) == (JobState.DEAD, "given up after 3 tries: down")


def test_the_end_can_be_the_works_own(declare: Declare) -> None:
    began = database_now() - timedelta(hours=2)
    declare(on(EdgeError, since=lambda row: began)).acts = [EdgeError("down")]
    assert run(job()).state == JobState.DEAD


def test_a_permanent_error_is_not_tried_again(declare: Declare) -> None:
    declare(on(EdgeError)).acts = [EdgeError("no such repository", permanent=True)]
    row = run(job())
    assert (row.state, row.note) == (JobState.DEAD, "no such repository")


def test_what_was_declared_for_the_end_is_done_and_the_job_is_not_dead(declare: Declare) -> None:
    script = declare()
    REGISTRY["errand"] = JobType(
        script.body, Lane.DEFAULT, (on(EdgeError, times=1, then=script.then),)
    )
    script.acts = [EdgeError("down")]
    row = run(job())
    assert (row.state, script.spent) == (JobState.DONE, ["given up after one try: down"])
    assert not Notification.objects.exists()


def test_an_error_that_nobody_declared_is_dead_at_once_told_once_and_kept_redacted(
    declare: Declare,
) -> None:
    declare(on(EdgeError)).acts = [ValueError("bob@example.org is odd")]
    row = run(job())
    queue.run(row.pk)
    assert row.state == JobState.DEAD
    assert row.note == "an error that nobody declared: ValueError: <address> is odd"
    assert "test_retries.py" in row.error and "bob@" not in row.error
    assert Notification.objects.filter(channel="log").count() == 1
    assert Transition.objects.of(Subject.JOB, row.pk).get().new == "dead"


def test_a_dead_job_that_is_tried_again_and_dies_again_is_told_again(declare: Declare) -> None:
    declare().acts = [ValueError("odd")]
    row = run(job())
    queue.retry_dead(row, actor="ana")
    run(row)
    assert Notification.objects.filter(channel="log").count() == 2


def test_a_database_that_was_away_is_waited_for_by_every_job(declare: Declare) -> None:
    declare().acts = [OperationalError("server closed the connection")]
    row = run(job())
    assert (row.state, row.failures, row.crashes) == (JobState.QUEUED, 1, 0)


def test_an_open_breaker_delays_it_and_spends_no_attempt(declare: Declare) -> None:
    until = database_now() + timedelta(seconds=90)
    declare(on(EdgeError)).acts = [BreakerOpen("github", until, "502 five times")]
    row = job()
    for _ in range(10):
        row = run(row)
    assert (row.state, row.failures) == (JobState.QUEUED, 0)
    assert abs(row.due_at - until) < 5 * SECOND
    assert JobTally.objects.get(ending="delayed").runs == 10


def test_an_open_breaker_does_not_delay_it_past_its_end(declare: Declare) -> None:
    far = database_now() + timedelta(days=1)
    declare(on(EdgeError, within=3600)).acts = [BreakerOpen("github", far, "502")]
    row = run(job())
    assert 3590 < waits(row) <= 3600
    since(row, timedelta(hours=1))
    row = run(row)
    assert row.state == JobState.DEAD and row.note.startswith("given up: github does not answer")


def test_what_happened_stands_in_its_history(declare: Declare) -> None:
    declare(on(EdgeError, times=2)).acts = [EdgeError("down")]
    row = run(run(job()))
    told = [(t.old, t.new, t.reason) for t in Transition.objects.of(Subject.JOB, row.pk)]
    assert told == [
        ("running", "queued", "down"),
        ("running", "dead", "given up after 2 tries: down"),
    ]


def test_a_success_takes_its_error_away(declare: Declare) -> None:
    declare(on(EdgeError)).acts = [EdgeError("down"), Done("well")]
    row = run(run(job()))
    assert (row.state, row.error, row.troubles) == (JobState.DONE, "", {})


def test_every_run_is_counted_by_its_ending(declare: Declare) -> None:
    declare(on(EdgeError)).acts = [EdgeError("down"), Wait(1, "x", items=3), Done("well", items=4)]
    run(run(run(job())))
    counted = {t.ending: (t.runs, t.items, t.to_50_ms) for t in JobTally.objects.all()}
    assert counted == {"retried": (1, 0, 1), "waiting": (1, 3, 1), "done": (1, 4, 1)}


def test_a_fixed_wait_is_the_same_each_time() -> None:
    assert {Fixed(900).seconds(count) for count in range(1, 20)} == {900}


def test_a_backoff_grows_has_full_jitter_and_a_cap() -> None:
    pause = Backoff(first=10, cap=600)
    first, last = ([pause.seconds(count) for _ in range(300)] for count in (1, 30))
    assert min(first) >= 1 and max(first) <= 10
    assert min(last) < 120 < 480 < max(last) <= 600
