"""All of a host's workers, as one tree of processes that starts, stops and dies together."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

import structlog
from django.conf import settings
from django.db import connections

from . import identity, recovery, stopping, witness
from .board import Board
from .jobs import tick
from .models.job import Lane
from .queue.cluster import run_cluster, workers_of
from .watchdog import Watchdog

log = structlog.get_logger(__name__)

WATCHDOG = "watchdog"  # the one process that is no lane
RESTART_PAUSE = 2.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Starts the lanes' clusters and the watchdog, replaces what ends or hangs, and ends all within GRACE_SECONDS."""

    def __init__(self) -> None:
        self.work = identity.name_work()
        self.board = Board()
        self.parts: dict[int, str] = {}  # process group -> lane, or the watchdog
        self.due: dict[str, float] = {}  # what is to be started again -> when
        self.asked_to_stop = False

    def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        stopping.reset()
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        witness.keep()
        recovery.recover()
        connections.close_all()
        _die_with_this_process()
        for part in (*Lane.values, WATCHDOG):
            self._start(part)
        log.info("work.started", lanes={lane: workers_of(lane) for lane in Lane.values})
        while not self.asked_to_stop:
            self._replace()
            time.sleep(0.2)
        self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_stop = True

    def _start(self, part: str) -> None:
        # Blocked for all of the pool: systemd signals every process of a service, and django-q2 then hangs, or its
        # senders die in mid-message. The pool is told by the flag of `stopping`.
        self._mark(part)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:  # no process or no memory to be had just now
            log.error("work.fork_failed", part=part, reason=error.strerror)
            self.due[part] = time.monotonic() + RESTART_PAUSE
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            return
        if pid == 0:
            if part == WATCHDOG:
                self._watch()
            run_cluster(part, self.work, stopping.stopping)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self.parts[pid] = part

    def _watch(self) -> NoReturn:
        try:
            os.setsid()
            Watchdog(self.work, self.board, tick).run(stopping.stopping)
        except Exception:
            log.exception("work.watchdog_failed")
        finally:
            sys.stderr.flush()
            os._exit(0)  # the rest of the caller is the supervisor's

    def _replace(self) -> None:
        """End what hangs; start again, after a pause, what has ended."""
        for pid, part in self.parts.items():
            if self._hangs(part):
                log.error("work.part_hangs", part=part)
                _kill_group(pid)
                self._mark(part)
        for pid in self._ended():
            part = self.parts.pop(pid)
            log.error("work.part_ended", part=part)
            _kill_group(pid)
            self.due[part] = time.monotonic() + RESTART_PAUSE
        for part in [part for part, at in self.due.items() if at <= time.monotonic()]:
            del self.due[part]
            self._start(part)

    def _mark(self, part: str) -> None:
        """From now on its silence counts."""
        if part == WATCHDOG:
            self.board.look()
        else:
            self.board.start(part)

    def _hangs(self, part: str) -> bool:
        if part == WATCHDOG:
            # Stuck in a database that does not answer: its connection is the first to be given up.
            silent = time.monotonic() - self.board.looked_at()
            return bool(silent > 2 * settings.WATCHDOG_SECONDS)
        return self.board.hangs(part)

    def _ended(self) -> list[int]:
        return [pid for pid in self.parts if os.waitpid(pid, os.WNOHANG)[0] == pid]

    def _stop(self) -> None:
        """What is on the wire finishes; nothing new starts; past the grace the rest is killed, and recovered later."""
        log.info("work.stopping")
        stopping.stop()
        end = time.monotonic() + settings.GRACE_SECONDS
        while self.parts and time.monotonic() < end:
            for pid in self._ended():
                self.parts.pop(pid)
                _kill_group(pid)
            time.sleep(0.1)
        for pid, part in self.parts.items():
            log.warning("work.killed_after_grace", part=part)
            _kill_group(pid)
        log.info("work.stopped")


def _die_with_this_process() -> None:
    """Every process forked from here on ends when this one does: it waits on a pipe whose other end only we hold.

    django-q2's sentinel and workers outlive a killed parent, and would go on taking work.
    """
    reader, writer = os.pipe()
    # Emptied in the first child: in a child of a child that number may be another file's.
    ours = [writer]

    def watch() -> None:
        os.read(reader, 1)
        os._exit(1)

    def in_child() -> None:
        while ours:
            os.close(ours.pop())
        threading.Thread(target=watch, daemon=True, name="parent-watch").start()
        threading.Thread(target=_obey_parent, daemon=True, name="signal-watch").start()

    os.register_at_fork(after_in_child=in_child)


def _obey_parent() -> None:
    """SIGTERM is blocked in the pool, but django-q2 ends a worker that is past its time-out with it."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
