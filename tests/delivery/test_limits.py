"""The rate: how many messages may start, whoever asks."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pytest_django import Settings

from delivery import limits
from delivery.models import Rate
from newsletter.models import database_now

pytestmark = pytest.mark.django_db


def take(wanted: int) -> tuple[int, float]:
    with transaction.atomic():
        return limits.take("smtp", wanted)


def idle(seconds: float) -> None:
    """Nobody has sent for so long."""
    Rate.objects.update(next_at=database_now() - timedelta(seconds=seconds))


def test_without_a_rate_everything_may_start() -> None:
    assert take(50) == (50, 0.0)
    assert limits.take_reserved("smtp") == 0
    assert not Rate.objects.exists()


def test_who_wants_nothing_gets_nothing_and_needs_not_wait(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.1
    take(1)
    assert take(0) == (0, 0.0)


def test_the_first_may_start_at_once(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    granted, wait = take(8)
    assert granted == 1
    assert 1.5 < wait <= 2 / 0.95 + 0.001


def test_the_next_waits_for_its_turn(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(1)
    granted, wait = take(1)
    assert granted == 0
    assert 1 < wait <= 2 / 0.95 + 0.001


def test_when_its_time_has_come_it_may_start(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(1)
    idle(0)
    assert take(1)[0] == 1


@pytest.mark.parametrize("rate", [0.01, 0.5, 1, 5])
def test_after_a_silence_a_slow_channel_starts_one_and_not_two(
    settings: Settings, rate: float
) -> None:
    settings.DELIVERY_RATE = rate
    take(1)
    idle(3600)
    assert take(8)[0] == 1


def test_a_long_silence_does_not_save_up_a_burst(settings: Settings) -> None:
    settings.DELIVERY_RATE = 100
    take(1)
    idle(3600)
    granted, _ = take(1000)
    assert 1 <= granted <= 100 * limits.BURST_SECONDS + 1


def test_a_sender_that_was_late_by_a_little_catches_up(settings: Settings) -> None:
    settings.DELIVERY_RATE = 1000
    take(1)
    idle(limits.BURST_SECONDS / 2)
    assert take(1000)[0] >= 45


def test_a_channel_has_a_rate_of_its_own(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(1)
    with transaction.atomic():
        assert limits.take("another", 1)[0] == 1


def test_a_clock_that_was_put_back_stops_nobody_for_longer_than_a_step(settings: Settings) -> None:
    settings.DELIVERY_RATE = 10
    take(1)
    idle(-3600)
    granted, wait = take(1)
    assert granted == 0
    assert wait <= 0.2


def test_a_busy_send_leaves_the_reserved_share(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(8)
    assert limits.take_reserved("smtp") == 0
    assert limits.take_reserved("smtp") > 0


def test_what_the_issues_leave_free_is_used_too(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    waits = [limits.take_reserved("smtp") for _ in range(3)]
    assert waits[:2] == [0, 0]
    # The next turn of the issues comes long before that of the reserved share.
    assert 0 < waits[2] <= 2 / 0.95 + 0.001


def test_the_reserved_share_is_not_for_issues(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    assert [take(8)[0], take(8)[0]] == [1, 0]
    assert list(Rate.objects.values_list("channel", flat=True)) == ["smtp"]


class Clock:
    """The database's clock, as long as the property asks."""

    def __init__(self) -> None:
        self.now = datetime(2026, 6, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


# What somebody does: (milliseconds since the last one, who, how many they want)
ASKS = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from(["issue", "person"]), st.integers(1, 30)),
    min_size=1,
    max_size=25,
)


@effort(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(0.05, 500), asks=ASKS)
@example(rate=0.5, asks=[(0, "issue", 9), (3000, "issue", 9), (3000, "person", 1)] * 3)
@example(rate=10.0, asks=[(100, "person", 1), (0, "issue", 30)] * 10)
def test_the_sum_keeps_to_the_rate_in_every_window(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
    asks: list[tuple[int, str, int]],
) -> None:
    """Over any window of T seconds at most rate * T + burst start, issues and single mails together."""
    clock = Clock()
    monkeypatch.setattr(limits, "database_now", clock)
    settings.DELIVERY_RATE = rate
    Rate.objects.all().delete()
    started: list[datetime] = []
    for milliseconds, who, wanted in asks:
        clock.now += timedelta(milliseconds=milliseconds)
        if who == "issue":
            started += [clock.now] * take(wanted)[0]
        elif not limits.take_reserved("smtp"):
            started.append(clock.now)
    burst = 2 + rate * limits.BURST_SECONDS
    for first, begin in enumerate(started):
        for last, end in enumerate(started[first:], first):
            assert last - first + 1 <= rate * (end - begin).total_seconds() + burst + 1e-6


@pytest.mark.parametrize("rate", [0.5, 40.0, 3000.0])
def test_senders_who_always_want_more_get_their_share_and_single_mails_theirs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(limits, "database_now", clock)
    settings.DELIVERY_RATE = rate
    end = clock.now + timedelta(seconds=400 / rate)
    issues = singles = 0
    while clock.now < end:
        granted, wait = take(1000)
        single_wait = limits.take_reserved("smtp")
        issues += granted
        singles += not single_wait
        clock.now += timedelta(seconds=min(wait, single_wait or wait))
    assert issues == pytest.approx(0.95 * 400, rel=0.05)
    assert singles == pytest.approx(0.05 * 400, rel=0.15)


@pytest.mark.django_db(transaction=True)
def test_all_senders_share_it(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    gate = threading.Barrier(4)
    granted: list[int] = []

    def want() -> None:
        gate.wait(10)
        granted.append(take(1)[0])
        connection.close()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(granted) == [0, 0, 0, 1]


@pytest.mark.django_db(transaction=True)
def test_of_many_single_mails_at_once_two_may_start(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    gate = threading.Barrier(4)
    waits: list[float] = []

    def want() -> None:
        gate.wait(10)
        waits.append(limits.take_reserved("smtp"))
        connection.close()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(wait == 0 for wait in waits) == 2
