"""A pause of everything gets through to the house, however many senders read it; and a turn's number is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from delivery import holding, witness
from delivery.models import House
from newsletter.models.gate import queue_for_house

SENDERS = 8


def together(count: int, body: Callable[[], None]) -> list[threading.Thread]:
    def run() -> None:
        try:
            body()
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.django_db(transaction=True)
def test_a_pause_of_everything_is_not_passed_over_by_the_senders() -> None:
    stop = threading.Event()

    def read_for_ever() -> None:
        """As a sender does in each of its commits."""
        while not stop.is_set():
            with transaction.atomic():
                queue_for_house(shared=True)
                House.objects.held().exists()
                if connection.vendor == "postgresql":
                    time.sleep(0.02)

    senders = together(SENDERS, read_for_ever)
    try:
        for _ in range(3):
            began = time.monotonic()
            assert holding.pause(actor="ana", reason="a fire")
            assert holding.resume(actor="ana")
            assert time.monotonic() - began < 10, "it was passed over, again and again"
    finally:
        stop.set()
        for sender in senders:
            sender.join(20)


@pytest.mark.django_db(transaction=True)
def test_many_turns_at_once_raise_no_alarm_and_lose_no_number() -> None:
    """One that has read an older number must not take the newer one in the witness for a sign of age."""
    witness.look()
    doubts: list[str] = []

    def take_turns() -> None:
        for _ in range(5):
            doubts.append(witness.look().doubt)
            witness.testify()

    for turn in together(SENDERS, take_turns):
        turn.join(60)
    word = witness.read()
    assert word and word.releases == House.read().releases == SENDERS * 5
    assert doubts == [""] * SENDERS * 5
