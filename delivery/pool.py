"""Connections that send side by side in the caller's thread: the only place where a sender meets the network."""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from .channel import transport
from .transports import Connection
from .transports.steps import Aside, Steps, Wait

log = structlog.get_logger(__name__)

Deliver = Callable[..., Steps[bool]]  # (connection, *args); False: better not taken next


class _Held:
    """A connection, and the steps of the delivery that has it."""

    __slots__ = ("connection", "events", "steps", "until", "waiting", "watched")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.steps: Steps[Any] | None = None
        self.waiting = False  # for its socket, until `until`
        self.until = 0.0
        # Stays registered between waits: two system calls a message less.
        self.watched: socket.socket | None = None
        self.events = 0


class ConnectionPool:
    """`size` connections and an event loop; used as a context, it ends when all deliveries have.

    Nothing goes on but in `submit`, `pump` and the end of the context. What blocks (opening a
    connection, a provider's library) is done in threads that are started when they are needed.
    """

    def __init__(self, size: int) -> None:
        way_out = transport()
        self._size = size
        self._all = [_Held(way_out.connect()) for _ in range(size)]
        # The last one used is taken first, so that no more are opened than are needed.
        self._idle = deque(self._all)
        self._line: deque[tuple[Deliver, tuple[Any, ...]]] = deque()
        self._ended = 0  # since the last `pump`
        self._next_look = math.inf  # no wait is over before
        self._threads: ThreadPoolExecutor | None = None
        self._back: deque[tuple[_Held, Any, BaseException | None]] = deque()  # from the threads

    def __enter__(self) -> ConnectionPool:
        # Not before: a selector that was made before a fork would be the parent's too.
        self._selector = selectors.DefaultSelector()
        self._ears, self._bell = socket.socketpair()
        self._selector.register(self._ears, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._pump_all()
            for held in self._all:  # at once: a server that hangs at QUIT costs its time once
                self._begin(held, _close, ())
            self._pump_all()
        finally:
            if self._threads:
                self._threads.shutdown()
            for end in (self._selector, self._ears, self._bell):
                end.close()

    def submit(self, deliver: Deliver, *args: Any) -> None:
        """Start `deliver(connection, *args)` now, or as soon as a connection is idle."""
        if self._idle:
            self._begin(self._idle.pop(), deliver, args)
        else:
            self._line.append((deliver, args))

    def pump(self, seconds: float) -> None:
        """Let deliveries go on until one has ended since the last call, or the time is over.

        Whatever is ready is dealt with. Where nothing is under way, the time is waited out.
        """
        over = time.monotonic() + seconds
        while True:
            self._turn(0.0 if self._ended else over)
            if self._ended or time.monotonic() >= over:
                self._ended = 0
                return

    def _pump_all(self) -> None:
        while any(held.steps for held in self._all):
            self._turn(math.inf)

    def _turn(self, over: float) -> None:
        """Wait for something to be ready, until `over` at most, and let that go on."""
        until = min(over, self._next_look)
        seconds = None if until == math.inf else until - time.monotonic()
        for key, _ in self._selector.select(seconds):
            held: _Held | None = key.data
            if held is None:
                self._hear()
            elif held.waiting:
                self._go_on(held)
            else:
                # Idle, and the server closed or spoke: it is seen before the next use. Else the loop would spin.
                self._unwatch(held)
        now = time.monotonic()
        if now >= self._next_look:
            self._look_for_late(now)

    def _hear(self) -> None:
        """One thing that was done aside has come back: a ring each, so that none is left behind."""
        self._ears.recv(1)
        self._go_on(*self._back.popleft())

    def _look_for_late(self, now: float) -> None:
        """Resume whose wait is over: they know what it means."""
        self._next_look = math.inf
        for held in self._all:
            if held.waiting and held.until <= now:
                self._go_on(held)
            if held.waiting:
                self._next_look = min(self._next_look, held.until)

    def _begin(self, held: _Held, deliver: Deliver, args: tuple[Any, ...]) -> None:
        held.steps = _delivering(held.connection, deliver, args)
        self._go_on(held)

    def _go_on(self, held: _Held, said: Any = None, fault: BaseException | None = None) -> None:
        """To the next wait. Where the delivery ends, the connection goes on with the next in line."""
        held.waiting = False
        while steps := held.steps:
            try:
                step = steps.send(said) if fault is None else steps.throw(fault)
            except StopIteration as end:
                self._end(held, end.value)
                if not self._line:
                    break
                held = self._idle.pop()
                held.steps = _delivering(held.connection, *self._line.popleft())
                said = fault = None
            except BaseException:  # a signal, in mid-dialogue
                self._end(held, False)
                raise
            else:
                try:
                    self._arrange(held, step)
                    break
                except Exception as error:  # noqa: BLE001  (no room in the selector, no thread)
                    said, fault = None, error
                except BaseException:  # a signal: nothing would resume it
                    self._end(held, False)
                    raise

    def _end(self, held: _Held, good: bool) -> None:
        held.steps = None
        self._ended += 1
        (self._idle.append if good else self._idle.appendleft)(held)
        self._unwatch_closed(held)

    def _arrange(self, held: _Held, step: Wait | Aside) -> None:
        """See to it that the steps are resumed."""
        if isinstance(step, Aside):
            self._unwatch_closed(held)
            self._threads = self._threads or ThreadPoolExecutor(self._size, "aside")
            self._threads.submit(self._call, held, step.call)
            return
        sock, writing, until = step
        events = selectors.EVENT_WRITE if writing else selectors.EVENT_READ
        if held.watched is not sock or held.events != events:
            self._watch(held, sock, events)
        held.until, held.waiting = until, True
        if until < self._next_look:
            self._next_look = until

    def _call(self, held: _Held, call: Callable[[], Any]) -> None:
        """In a thread."""
        try:
            self._back.append((held, call(), None))
        except BaseException as error:  # noqa: BLE001  (it is raised again where the call was asked for)
            self._back.append((held, None, error))
        self._bell.send(b"!")

    def _watch(self, held: _Held, sock: socket.socket, events: int) -> None:
        if held.watched is sock:
            self._selector.modify(sock, events, held)
        else:
            self._unwatch(held)
            self._selector.register(sock, events, held)
        held.watched, held.events = sock, events

    def _unwatch_closed(self, held: _Held) -> None:
        """At once, and in this thread: the next socket, of whichever connection, can have its number."""
        if held.watched is not None and held.watched.fileno() < 0:
            self._unwatch(held)

    def _unwatch(self, held: _Held) -> None:
        watched, held.watched = held.watched, None
        if watched is not None:
            self._selector.unregister(watched)


def _delivering(connection: Connection, deliver: Deliver, args: tuple[Any, ...]) -> Steps[bool]:
    try:
        return (yield from deliver(connection, *args))
    except Exception:
        log.exception("pool.delivery_fault")
        return False


def _close(connection: Connection) -> Steps[bool]:
    yield from connection.closing()
    return True
