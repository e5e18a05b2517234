"""A dialogue as steps: a generator that says what it waits for, and leaves the waiting to who drives it."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Wait(NamedTuple):
    """Go on when `sock` can be read from or written to, at the latest at `until` (monotonic seconds).

    Who is resumed reads what is there before it looks at the clock: the driver may have been away.
    """

    sock: socket.socket
    writing: bool
    until: float


class Aside(NamedTuple):
    """Make a call that blocks, in another thread if need be; its result or its error comes back."""

    call: Callable[[], Any]


Steps = Generator[Wait | Aside, Any, T]


def finish(steps: Steps[T]) -> T:
    """Drive one dialogue to its end in this thread, blocking."""
    said: Any = None
    fault: Exception | None = None
    with contextlib.closing(steps):  # also where a signal ends the wait
        while True:
            try:
                step = steps.send(said) if fault is None else steps.throw(fault)
            except StopIteration as end:
                found: T = end.value
                return found
            said = fault = None
            if isinstance(step, Wait):
                _wait(step)
                continue
            try:
                said = step.call()
            except Exception as error:  # noqa: BLE001  (it is the dialogue's to judge)
                fault = error


def _wait(wait: Wait) -> None:
    poll = select.poll()
    poll.register(wait.sock, select.POLLOUT if wait.writing else select.POLLIN)
    poll.poll(max(0.0, wait.until - time.monotonic()) * 1000)
