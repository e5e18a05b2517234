"""Makes the minute tick, and finds the pool that hangs: it asks each lane of this host for heartbeats, and reports
the one that gives none.

A process of its own beside the lanes: what has to come every minute waits for no pool, and the supervisor keeps no
connection and does not wait for a database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import structlog
from django.conf import settings
from django.db import Error, connections

from . import queue
from .board import Board
from .models import Heartbeat, Job
from .models.job import JobState, Lane
from .queue.cluster import workers_of

log = structlog.get_logger(__name__)

LOOKS = 6  # in WATCHDOG_SECONDS
MINUTE = 60.0


class Watchdog:
    """Times are monotonic seconds: a clock that is set, or a machine that slept, is no dead pool."""

    def __init__(self, work: str, board: Board, tick: Callable[[], None]) -> None:
        self.work = work
        self.board = board
        self.tick = tick
        # At once, and when the leases of a `work` that was killed just before are over; then each minute.
        self.ticks_at = [time.monotonic(), time.monotonic() + settings.LEASE_SECONDS + 1]
        self.heard: dict[
            str, tuple[datetime | None, float]
        ] = {}  # lane -> its last beat, and when it was new to us

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until the host's `work` stops."""
        while not stopping():
            try:
                self.look()
                self.keep_time()
            except Error as error:
                # No beat can be written while it is away: nobody is judged by that.
                log.warning("watchdog.database_trouble", error=type(error).__name__)
                connections.close_all()
                self.heard.clear()
            self.board.look()
            _sleep(min(settings.WATCHDOG_SECONDS / LOOKS, MINUTE / 2), stopping)
        queue.forget(self.work)

    def look(self) -> None:
        """One round: who gave no sign for WATCHDOG_SECONDS is reported."""
        beats = dict(Heartbeat.objects.filter(work=self.work).values_list("lane", "at"))
        for lane in Lane.values:
            if self.board.hangs(lane):
                continue  # reported: the supervisor is about to replace it
            silent = self._silence(lane, beats.get(lane), self.board.started(lane))
            busy = self._busy(lane)
            if busy >= workers_of(lane):
                self.heard.pop(
                    lane
                )  # nobody is free to answer, and their leases prove that they live
            elif silent > settings.WATCHDOG_SECONDS and not busy:
                # Where somebody works, he comes to his end first: his rows would be unknown.
                log.error("watchdog.lane_hangs", lane=lane, seconds=round(silent))
                self.board.report(lane)
            queue.ask_for_beat(self.work, lane)

    def keep_time(self) -> None:
        """The tick, where its minute has come. Every host makes its own: it is safe on any number of them at once."""
        now = time.monotonic()
        if now < self.ticks_at[0]:
            return
        self.ticks_at = [at for at in self.ticks_at if at > now] or [now + MINUTE]
        self.tick()

    def _silence(self, name: str, beat: datetime | None, since: float) -> float:
        now = time.monotonic()
        known, at = self.heard.get(name, (None, 0.0))
        if name not in self.heard or beat != known:
            self.heard[name] = (beat, now)
            return 0.0
        return now - max(at, since)

    def _busy(self, lane: str) -> int:
        mine = Job.objects.filter(state=JobState.RUNNING, lane=lane)
        return mine.held().filter(holder__startswith=f"{self.work}/").count()


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(0.2)
