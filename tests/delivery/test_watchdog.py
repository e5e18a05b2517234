"""The watchdog: a pool that hangs is reported, and one that lives is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, connections
from django_q.models import OrmQ

from delivery import identity, queue
from delivery.board import Board
from delivery.models import Heartbeat, Job
from delivery.models.job import Lane
from delivery.queue.wakeups import own_key
from delivery.watchdog import Watchdog
from newsletter.models import database_now

pytestmark = pytest.mark.django_db


class Clock:
    """Monotonic seconds of a test's own."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.monotonic", made)
    return made


@pytest.fixture
def board(clock: Clock) -> Board:
    made = Board()
    for lane in Lane.values:
        made.start(lane)
    return made


@pytest.fixture
def dog(board: Board) -> Watchdog:
    return Watchdog(identity.name_work(), board, lambda: None)


def answer(dog: Watchdog, *silent: str) -> None:
    """The workers of all lanes but these take the letters that lie there."""
    for lane in Lane.values:
        if lane not in silent and OrmQ.objects.filter(key=own_key(dog.work, lane)).delete()[0]:
            queue.beat(dog.work, lane)


def watch(dog: Watchdog, clock: Clock, seconds: float, *silent: str) -> None:
    """It looks every ten seconds, and all but the silent answer."""
    for _ in range(int(seconds / 10)):
        dog.look()
        answer(dog, *silent)
        clock.seconds += 10
    dog.look()


def running(dog: Watchdog, lane: str, key: str) -> None:
    """A worker of this lane is at work, and renews."""
    later = database_now() + timedelta(seconds=30)
    Job.objects.create(
        key=key,
        name="close",
        lane=lane,
        state="running",
        token="x",
        lease_until=later,
        due_at=later,
        holder=f"{dog.work}/7",
    )


def test_a_lane_that_gives_no_heartbeat_is_reported(
    dog: Watchdog, board: Board, clock: Clock
) -> None:
    watch(dog, clock, 30)
    watch(dog, clock, 80, Lane.BULK)
    assert [lane for lane in Lane.values if board.hangs(lane)] == [Lane.BULK]


def test_it_is_found_in_time_for_the_promise(dog: Watchdog, board: Board, clock: Clock) -> None:
    """P10: 120 s, of which a new pool needs 3, and the sweep comes with it."""
    watch(dog, clock, 30)
    hung = clock.seconds
    while not board.hangs(Lane.DEFAULT):
        watch(dog, clock, 10, Lane.DEFAULT)
    assert clock.seconds - hung <= 90


def test_a_lane_that_answers_is_left_alone(dog: Watchdog, board: Board, clock: Clock) -> None:
    watch(dog, clock, 600)
    assert not any(board.hangs(lane) for lane in Lane.values)


def test_a_lane_that_starts_has_its_time(dog: Watchdog, board: Board, clock: Clock) -> None:
    watch(dog, clock, 50, *Lane.values)
    assert not any(board.hangs(lane) for lane in Lane.values)


def test_a_lane_that_was_replaced_has_its_time_again(
    dog: Watchdog, board: Board, clock: Clock
) -> None:
    watch(dog, clock, 100, Lane.DEFAULT)
    board.start(Lane.DEFAULT)
    watch(dog, clock, 50, Lane.DEFAULT)
    assert not board.hangs(Lane.DEFAULT)


def test_where_all_workers_are_busy_nobody_can_answer(
    dog: Watchdog, board: Board, clock: Clock
) -> None:
    running(dog, Lane.DEFAULT, "one")
    watch(dog, clock, 300, Lane.DEFAULT)
    assert not board.hangs(Lane.DEFAULT)


def test_who_works_in_a_pool_that_hangs_comes_to_his_end_first(
    dog: Watchdog, board: Board, clock: Clock
) -> None:
    running(dog, Lane.BULK, "one")  # of two workers
    watch(dog, clock, 200, Lane.BULK)
    assert not board.hangs(Lane.BULK)
    Job.objects.all().delete()
    dog.look()
    assert board.hangs(Lane.BULK)


def test_another_hosts_work_proves_nothing_about_ours(
    dog: Watchdog, board: Board, clock: Clock
) -> None:
    running(dog, Lane.DEFAULT, "one")
    Job.objects.update(holder="elsewhere:1/2")
    watch(dog, clock, 100, Lane.DEFAULT)
    assert board.hangs(Lane.DEFAULT)


def test_while_the_database_is_away_nobody_is_judged(
    dog: Watchdog, board: Board, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No beat could be written then; it counts again from the moment that it is back."""
    watch(dog, clock, 30)
    rounds = 0

    def stop() -> bool:
        return rounds > 0

    def away(self: Watchdog) -> None:
        nonlocal rounds
        rounds += 1
        raise OperationalError("server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(Watchdog, "look", away)
        patch.setattr(connections, "close_all", lambda: None)
        patch.setattr(queue, "forget", lambda work: None)
        dog.run(stop)
    clock.seconds += 500
    watch(dog, clock, 50, Lane.DEFAULT)
    assert not board.hangs(Lane.DEFAULT)


def test_one_letter_lies_in_a_pool_that_does_not_answer(dog: Watchdog, clock: Clock) -> None:
    watch(dog, clock, 300, *Lane.values)
    assert OrmQ.objects.filter(key=own_key(dog.work, Lane.BULK)).count() == 1


def test_it_ticks_at_once_then_when_old_leases_are_over_then_each_minute(
    dog: Watchdog, clock: Clock
) -> None:
    began = clock.seconds
    ticks = []
    dog.tick = lambda: ticks.append(clock.seconds - began)
    for _ in range(180):
        dog.keep_time()
        clock.seconds += 1
    assert ticks == [0, 31, 91, 151]


def test_a_tick_that_took_long_is_not_made_up_for(dog: Watchdog, clock: Clock) -> None:
    ticks = []

    def slow() -> None:
        ticks.append(clock.seconds)
        clock.seconds += 200

    dog.tick = slow
    dog.keep_time()
    dog.keep_time()
    dog.keep_time()
    assert len(ticks) == 3 and ticks[2] - ticks[1] == 200


def test_a_stop_in_good_order_takes_its_traces_away(dog: Watchdog) -> None:
    dog.look()
    answer(dog)
    dog.run(lambda: True)
    assert not Heartbeat.objects.filter(work=dog.work).exists()
    assert not OrmQ.objects.filter(key__contains="@").exists()
