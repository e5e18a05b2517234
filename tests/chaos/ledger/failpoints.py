"""In a sender, after the fork: it strikes itself where the plan says. The code that is struck knows nothing of it."""

from __future__ import annotations

import functools
import json
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import OperationalError

from delivery.sender import Sender
from delivery.transports.steps import Steps
from delivery.transports.wire import Wire
from tests.chaos.ledger.plan import ANYWHERE, Blow

COMMIT_AS_STATEMENT = {"commit_refused": "cut_before", "commit_lost": "cut_after"}
MESSAGE = 100  # bytes: what is written at once after 354, and longer, is a message


class Failpoints:
    """The blows that one process is in for, one after the other."""

    def __init__(self, blows: list[Blow], armed: mmap.mmap, words: int) -> None:
        self.blows, self.armed, self.words = blows, armed, words
        self.passed = 0
        self.renewed_at = 0.0
        self.lock = threading.Lock()

    def install(self) -> None:
        """Wrap what a sender passes. Call it once, in the process that is to be struck."""
        _around(Sender, "_claim", after=lambda me, _: me.claimed and self.passing("after_claim"))
        _around(Sender, "_commit", before=self._before_commit, after=self._after_commit)
        _watch_the_wire(self.passing)
        _around(BaseDatabaseWrapper, "_commit", before=self._commit, after=self._committed)
        connection.execute_wrappers.append(self._statement)
        self._set_timer()

    def passing(self, point: str) -> str:
        """Strike, if it is time; the action, where it is for the caller to do."""
        with self.lock:
            if not self.blows or self.blows[0].point != point or not self.armed[0]:
                return ""
            self.passed += 1
            if self.passed < self.blows[0].nth:
                return ""
            blow = self.blows.pop(0)
            self.passed = 0
            self._set_timer()
        self.tell(blow=blow.action, point=point)
        if blow.action in ("kill", "kill_all"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif blow.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif blow.action == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        return blow.action

    def tell(self, **word: Any) -> None:
        """To the host, in one write: it may be our last."""
        os.write(self.words, (json.dumps({"pid": os.getpid(), **word}) + "\n").encode())

    def _set_timer(self) -> None:
        """For a blow that strikes wherever the sender may be."""
        if self.blows and self.blows[0].point == ANYWHERE:
            seconds, self.passed = self.blows[0].nth / 100, self.blows[0].nth
            timer = threading.Timer(seconds, self.passing, (ANYWHERE,))
            timer.daemon = True
            timer.start()

    def _before_commit(self, sender: Sender, results: Any, *_: Any) -> None:
        self.renewed_at = sender.renewed_at
        if results:
            self.passing("before_result_commit")

    def _after_commit(self, sender: Sender, won: Any, results: Any, *_: Any) -> None:
        """A lease that was over before it could be renewed: a machine that is too busy costs as much as a kill."""
        if results:
            self.passing("after_result_commit")
        if won:
            self.passing("after_sending_commit")
        if time.monotonic() - self.renewed_at > settings.LEASE_SECONDS:
            self.tell(starved=True)

    def _commit(self, database: BaseDatabaseWrapper) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._lost = self.passing("commit")
        if self._lost == "commit_refused":
            raise _cut(database)

    def _committed(self, database: BaseDatabaseWrapper, _: Any) -> None:
        if threading.current_thread() is threading.main_thread() and self._lost == "commit_lost":
            raise _cut(database)

    def _statement(self, execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        action = self.passing("statement")
        if not connection.in_atomic_block and "EXECUTE carteiro_exchange(" in sql:
            # It is its own COMMIT: refused or lost with it, all together.
            action = action or COMMIT_AS_STATEMENT.get(self.passing("commit"), "")
        if action == "cut_before":
            raise _cut(connection)
        result = execute(sql, *args)
        if action == "cut_after":
            raise _cut(connection)
        return result


def _cut(database: BaseDatabaseWrapper | Any) -> OperationalError:
    """The connection is gone; what was not committed is rolled back by the server. SQLite's file does not go away: its
    disk had an error."""
    if database.vendor == "postgresql" and database.connection is not None:
        database.connection.close()
    return OperationalError("cut by the chaos")


def _around(
    owner: type,
    name: str,
    *,
    before: Callable[..., Any] | None = None,
    after: Callable[..., Any] | None = None,
) -> None:
    """`before(self, *args)` and `after(self, result, *args)`."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before:
            before(self, *args)
        result = original(self, *args, **kwargs)
        if after:
            after(self, result, *args)
        return result

    setattr(owner, name, wrapped)


def _watch_the_wire(passing: Callable[[str], str]) -> None:
    """By what is said, not by who says it: 354, half a message, its end, 250."""
    get, put = Wire.replying, Wire.sending
    in_message: set[int] = set()

    def replying(self: Wire) -> Steps[tuple[int, bytes]]:
        inside = id(self) in in_message
        if inside:
            passing("after_dot")
            in_message.discard(id(self))
        code, text = yield from get(self)
        if code == 354:
            in_message.add(id(self))
            passing("after_354")
        elif inside and code == 250:
            passing("after_250")
        return code, text

    def sending(self: Wire, s: bytes | str) -> Steps[None]:
        if id(self) not in in_message or len(s) < MESSAGE:
            return (yield from put(self, s))
        yield from put(self, s[: len(s) // 2])
        passing("mid_body")
        return (yield from put(self, s[len(s) // 2 :]))

    Wire.replying = replying  # type: ignore[method-assign]
    Wire.sending = sending  # type: ignore[method-assign]
