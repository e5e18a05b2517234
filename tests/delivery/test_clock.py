"""A clock that jumps: nobody's work is taken from him, and nothing waits for an hour that has gone by."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model
from django_q.models import OrmQ
from pytest_django import Settings

from delivery import clock, jobs, queue, recovery
from delivery.models import (
    CircuitBreaker,
    EmailDelivery,
    Heartbeat,
    Job,
    Lease,
    Notification,
    Rate,
)
from newsletter.models import Issue, database_now
from tests.drain import drain, frozen, statuses

HOUR = 3600.0
pytestmark = pytest.mark.django_db


def ticked(*, jump: float = 0.0, ago: float = 60.0, **over: Any) -> Heartbeat:
    """This host's last tick was so many seconds ago, and since then the clock was set by `jump`."""
    values: dict[str, Any] = {
        "at": database_now() - timedelta(seconds=ago + jump),
        "monotonic": time.monotonic() - ago,
        "boot": clock._boot(),
    }
    return Heartbeat.objects.create(work=clock._host(), lane="tick", **{**values, **over})


def running(lease_until: datetime) -> Job:
    """A job under way in the hands of somebody."""
    return Job.objects.create(
        key="close:0",
        name="close",
        args={"id": 0},
        due_at=database_now(),
        state="running",
        token="t",
        lease_until=lease_until,
    )


def state(row: Job) -> str:
    return str(Job.objects.values_list("state", flat=True).get(pk=row.pk))


def told() -> list[str]:
    rows = Notification.objects.filter(channel="log", notice__event="clock_jumped")
    return [row.notice["title"] for row in rows]


def after(seconds: float) -> datetime:
    return database_now() + timedelta(seconds=seconds)


# --- seeing it


def test_nobody_can_tell_at_the_first_tick() -> None:
    assert (clock.jump(), clock.note()) == (0.0, 0.0)
    row = Heartbeat.objects.get(lane="tick")
    assert row.work == clock._host()
    assert row.monotonic is not None
    assert abs(database_now() - row.at) < timedelta(seconds=10)


def test_a_clock_that_goes_is_no_jump() -> None:
    ticked()
    assert (clock.jump(), clock.note()) == (0.0, 0.0)
    assert told() == []


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 11.0, -11.0])
def test_a_jump_is_seen_and_told(jump: float) -> None:
    ticked(jump=jump)
    assert clock.jump() == pytest.approx(jump, abs=1)
    assert clock.note() == pytest.approx(jump, abs=1)
    assert len(told()) == 1
    assert told()[0].startswith(f"The clock jumped by {'+' if jump > 0 else '-'}")


@pytest.mark.parametrize("jump", [9.0, -9.0])
def test_less_than_the_living_take_to_renew_is_no_jump(jump: float) -> None:
    ticked(jump=jump)
    assert clock.jump() == 0.0


def test_the_next_tick_sees_it_no_more() -> None:
    ticked(jump=HOUR)
    clock.note()
    assert (clock.jump(), clock.note()) == (0.0, 0.0)
    assert len(told()) == 1


def test_a_clock_that_is_set_between_two_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.tick()
    monkeypatch.setattr(clock, "database_now", lambda: after(HOUR))
    assert clock.jump() == pytest.approx(HOUR, abs=1)


def test_a_host_that_slept_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers slept too: their leases are over, and they live."""
    clock.note()
    awake = time.monotonic()
    Heartbeat.objects.update(at=after(-HOUR))
    monkeypatch.setattr(time, "monotonic", lambda: awake + 1)
    assert clock.jump() == pytest.approx(HOUR, abs=2)


@pytest.mark.parametrize(
    "over",
    [{"boot": "another"}, {"monotonic": None}, {"monotonic": time.monotonic() + 10 * HOUR}],
    ids=["another boot", "none noted", "a boot without a name"],
)
def test_another_boot_says_nothing(over: dict[str, Any]) -> None:
    ticked(jump=HOUR, **over)
    assert clock.jump() == 0.0


def test_another_host_says_nothing() -> None:
    Heartbeat.objects.create(work="elsewhere", lane="tick", at=after(-9 * HOUR), monotonic=0.0)
    assert clock.jump() == 0.0


def test_it_works_where_a_boot_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clock, "BOOT_ID", tmp_path / "none")
    ticked(jump=HOUR)
    assert Heartbeat.objects.get().boot == ""
    assert clock.jump() == pytest.approx(HOUR, abs=1)


# --- nobody's work is taken from him


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_living_worker_keeps_his_job(jump: float) -> None:
    row = running(after(20 - jump))
    ticked(jump=jump)
    jobs.tick()
    assert row.finish("done", "finished after the jump")


def test_a_living_senders_rows_stay_his() -> None:
    issue = frozen(2)
    lease = Lease.acquire("sender:1:0")
    assert lease
    rows = EmailDelivery.objects.of(issue.pk)
    rows.update(status="sending", attempt=1, sending_at=after(0), sender=lease, fence=lease.fence)
    Lease.objects.update(expires_at=after(20 - HOUR))
    ticked(jump=HOUR)
    jobs.tick()
    assert set(statuses().values()) == {"sending"}


def test_the_next_tick_goes_on() -> None:
    row = running(after(20 - HOUR))
    ticked(jump=HOUR)
    jobs.tick()
    assert state(row) == "running"
    jobs.tick()
    assert state(row) == "queued"


def test_what_a_dead_worker_held_comes_back_after_a_jump_back() -> None:
    """His lease would hold for another hour."""
    row = running(after(20 + HOUR))
    ticked(jump=-HOUR)
    jobs.tick()
    assert state(row) == "running"
    jobs.tick()
    assert state(row) == "queued"


def test_who_renewed_after_a_jump_back_keeps_his_job() -> None:
    row = running(after(20 + HOUR))
    ticked(jump=-HOUR)
    jobs.tick()
    assert row.renew()
    jobs.tick()
    assert state(row) == "running"


def test_a_dead_senders_rows_and_lease_come_back_after_a_jump_back() -> None:
    issue = frozen(1)
    lease = Lease.acquire("sender:1:0")
    assert lease
    rows = EmailDelivery.objects.of(issue.pk)
    rows.update(status="sending", attempt=1, sending_at=after(0), sender=lease, fence=lease.fence)
    Lease.objects.update(expires_at=after(20 + HOUR))
    ticked(jump=-HOUR)
    jobs.tick()
    assert statuses() == {"bob": "sending"}
    jobs.tick()
    assert statuses() == {"bob": "unknown"}
    assert Lease.acquire("sender:1:0")


def test_a_lease_of_an_ordinary_length_is_left_alone(settings: Settings) -> None:
    row = running(after(settings.LEASE_SECONDS))
    lease = Lease.acquire("sender:1:0")
    assert lease
    recovery.recover()
    assert state(row) == "running"
    assert lease.mine().held().exists()


# --- nothing waits for an hour that has gone by


def job_due(at: datetime) -> Model:
    return Job.objects.create(key=f"k:{at}", name="close", due_at=at)


def job_woken(at: datetime) -> Model:
    return Job.objects.create(key=f"w:{at}", name="close", due_at=database_now(), woken_at=at)


def delivery(at: datetime) -> Model:
    issue = Issue.objects.first() or frozen(1)
    EmailDelivery.objects.of(issue.pk).update(next_attempt_at=at)
    return EmailDelivery.objects.get()


def breaker(at: datetime) -> Model:
    values = {"state": "open", "reason": "down", "changed_at": at}
    return CircuitBreaker.objects.create(name="github", until=at, **values)


WAITING: list[tuple[Callable[[datetime], Model], str]] = [
    (job_due, "due_at"),
    (job_woken, "woken_at"),
    (delivery, "next_attempt_at"),
    (breaker, "until"),
    (lambda at: Rate.objects.create(channel="smtp", next_at=at), "next_at"),
    (lambda at: OrmQ.objects.create(key="bulk", payload="x", lock=at), "lock"),
]


@pytest.mark.parametrize(("make", "field"), WAITING, ids=[field for _, field in WAITING])
@pytest.mark.parametrize(
    ("jump", "waits", "then"),
    [(-HOUR, HOUR + 300, 300.0), (-HOUR, -300, -300.0), (HOUR, 300, 300.0)],
    ids=["back", "back, and due before", "ahead"],
)
def test_what_waits_moves_with_a_clock_that_is_set_back(
    make: Callable[[datetime], Model], field: str, jump: float, waits: float, then: float
) -> None:
    row = make(after(waits))
    ticked(jump=jump)
    clock.note()
    clock.note()  # once
    row.refresh_from_db()
    assert abs(getattr(row, field) - after(then)) < timedelta(seconds=5)


def test_a_job_that_was_due_soon_runs_soon() -> None:
    queue.ensure("close", key="close:0", delay=HOUR, id=0)  # in no time, by the old clock
    ticked(jump=-HOUR - 1)
    jobs.tick()
    assert "close" in drain()


@pytest.mark.django_db(transaction=True)
def test_of_two_ticks_at_once_on_one_host_one_moves_it() -> None:
    row = Rate.objects.create(channel="smtp", next_at=after(3 * HOUR))
    ticked(jump=-HOUR)
    gate = threading.Barrier(2)
    jumps: list[float] = []

    def tick() -> None:
        gate.wait(10)
        jumps.append(clock.note())
        connection.close()

    threads = [threading.Thread(target=tick) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    row.refresh_from_db()
    assert abs(row.next_at - after(2 * HOUR)) < timedelta(seconds=30)
    assert sorted(round(jump / HOUR) for jump in jumps) == [-1, 0]
    assert len(told()) == 1


# --- the tick


@pytest.mark.parametrize("failing", range(len(jobs.PARTS)))
def test_a_part_of_the_tick_that_fails_does_not_stop_the_others(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def part(number: int) -> Callable[[], None]:
        def work() -> None:
            done.append(number)
            if number == failing:
                raise RuntimeError("for once")

        return work

    numbers = range(len(jobs.PARTS))
    monkeypatch.setattr(jobs, "PARTS", tuple(part(number) for number in numbers))
    jobs.tick()
    assert done == list(numbers)


def test_the_tick_leaves_a_sign_of_life() -> None:
    jobs.tick()
    assert Heartbeat.objects.fresh(database_now()).filter(lane="tick").exists()
