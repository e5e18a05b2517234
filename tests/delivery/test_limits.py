"""The rate: how many messages may start, whoever asks."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
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
    assert not Rate.objects.exists()


def test_who_wants_nothing_gets_nothing_and_needs_not_wait(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.1
    take(1)
    assert take(0) == (0, 0.0)


def test_the_first_may_start_at_once(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    granted, wait = take(8)
    assert granted == 1
    assert 1.5 < wait <= 2


def test_the_next_waits_for_its_turn(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(1)
    granted, wait = take(1)
    assert granted == 0
    assert 1 < wait <= 2


def test_when_its_time_has_come_it_may_start(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(1)
    idle(0)
    assert take(1)[0] == 1


def test_a_long_silence_does_not_save_up_a_burst(settings: Settings) -> None:
    settings.DELIVERY_RATE = 100
    take(1)
    idle(3600)
    granted, _ = take(1000)
    assert 1 <= granted <= 100 * limits.BURST_SECONDS + 2


def test_a_sender_that_was_late_by_a_little_catches_up(settings: Settings) -> None:
    settings.DELIVERY_RATE = 1000
    take(1)
    idle(limits.BURST_SECONDS / 2)
    assert take(1000)[0] >= 50


def test_a_channel_has_a_rate_of_its_own(settings: Settings) -> None:
    settings.DELIVERY_RATE = 0.5
    take(1)
    with transaction.atomic():
        assert limits.take("another", 1)[0] == 1


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
