"""A lane is held and let go; the others go on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django_q.models import OrmQ

from delivery import queue
from delivery.models import Job, LanePause
from delivery.models.job import JobState, Lane
from newsletter.models import database_now

pytestmark = pytest.mark.django_db


def wanted(lane: str = Lane.DEFAULT) -> Job:
    queue.ensure("report", key=f"report:{lane}", id=1)
    row = Job.objects.get(key=f"report:{lane}")
    Job.objects.filter(pk=row.pk).update(lane=lane)
    return row


def run(row: Job) -> str:
    queue.run(row.pk)
    row.refresh_from_db()
    return row.state


def test_a_paused_lane_starts_nothing_and_the_others_do() -> None:
    held, free = wanted(Lane.DEFAULT), wanted(Lane.CRITICAL)
    assert queue.pause_lane(Lane.DEFAULT, actor="ana", reason="the blog moves")
    assert run(held) == JobState.QUEUED
    assert run(free) == JobState.DISCARDED
    assert (held.runs, queue.paused_lanes()) == (0, {"default"})


def test_the_pause_says_who_why_and_since_when() -> None:
    queue.pause_lane(Lane.BULK, actor="ana", reason="the blog moves")
    assert not queue.pause_lane(Lane.BULK, actor="bob", reason="another")
    row = LanePause.objects.get()
    assert (row.lane, row.actor, row.reason) == ("bulk", "ana", "the blog moves")
    assert abs((row.since - database_now()).total_seconds()) < 5


def test_resuming_wakes_what_is_due() -> None:
    row = wanted()
    queue.pause_lane(Lane.DEFAULT, actor="ana", reason="")
    run(row)
    OrmQ.objects.all().delete()
    assert queue.resume_lane(Lane.DEFAULT, actor="ana")
    assert OrmQ.objects.get().task["args"] == (row.pk,)
    assert run(row) == JobState.DISCARDED
    assert not queue.resume_lane(Lane.DEFAULT, actor="ana")


def test_the_sweep_does_not_wake_a_paused_lane() -> None:
    row = wanted()
    queue.pause_lane(Lane.DEFAULT, actor="ana", reason="")
    Job.objects.filter(pk=row.pk).update(
        due_at=database_now() - timedelta(minutes=5), woken_at=None
    )
    assert queue.recover() == 0
    queue.resume_lane(Lane.DEFAULT, actor="ana")
    Job.objects.update(woken_at=None)
    assert queue.recover() == 1
