"""Threads that each hold a connection while they send: the only place where a sender meets the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .channel import transport
from .copies import Row
from .transports import Connection

Deliver = Callable[[Connection, Row, int], bool]


class ConnectionPool:
    """A pool of `size` threads and as many connections; used as a context, it ends when all have answered."""

    def __init__(self, size: int) -> None:
        self._size = size
        way_out = transport()
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="wire")
        # The last one used is taken first, so that no more are opened than are needed.
        self._idle: deque[Connection] = deque(way_out.connect() for _ in range(size))

    def __enter__(self) -> ConnectionPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        with ThreadPoolExecutor(
            self._size
        ) as closing:  # a server that hangs at QUIT costs its time once
            closing.map(lambda held: held.close(), self._idle)

    def submit(self, deliver: Deliver, row: Row, attempt: int) -> None:
        self._pool.submit(self._with_connection, deliver, row, attempt)

    def _with_connection(self, deliver: Deliver, row: Row, attempt: int) -> None:
        held = self._idle.pop()
        good = False
        try:
            good = deliver(held, row, attempt)
        finally:
            (self._idle.append if good else self._idle.appendleft)(held)
