"""Several threads at one row. Each has a connection of its own, and closes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection, transaction

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


@contextmanager
def senders_that_read(look: Callable[[], object]) -> Iterator[None]:
    """They look in each of their transactions: overlapping, and without a pause."""
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with transaction.atomic():
                look()
                if connection.vendor == "postgresql":
                    time.sleep(0.02)

    senders = together(SENDERS, read)
    try:
        yield
    finally:
        stop.set()
        for sender in senders:
            sender.join(20)


def get_through(*deeds: Callable[[], object]) -> None:
    """Each deed is done, three times over, before others have passed it over for long."""
    for _ in range(3):
        began = time.monotonic()
        for deed in deeds:
            assert deed()
        assert time.monotonic() - began < 10, "it was passed over, again and again"
