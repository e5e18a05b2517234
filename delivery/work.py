"""All of a host's workers, as one tree of processes that starts, stops and dies together."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

import structlog
from django.conf import settings
from django.db import connections

from . import recovery, stopping
from .models.job import Lane
from .queue import set_tick
from .queue.cluster import run_cluster, workers_of

log = structlog.get_logger(__name__)

TICK = "delivery.jobs.tick"
RESTART_PAUSE = 2.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """Starts a cluster for each lane, replaces one that ends, and ends them all within GRACE_SECONDS."""

    def __init__(self) -> None:
        self.lanes: dict[int, str] = {}  # process group -> lane
        self.asked_to_stop = False

    def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        stopping.reset()
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        recovery.recover()
        set_tick(TICK)
        connections.close_all()
        _die_with_this_process()
        for lane in Lane.values:
            self._start(lane)
        log.info("work.started", lanes={lane: workers_of(lane) for lane in Lane.values})
        while not self.asked_to_stop:
            self._replace_ended()
            time.sleep(0.2)
        self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_stop = True

    def _start(self, lane: str) -> None:
        # Blocked for all of the pool: systemd signals every process of a service, and django-q2 then hangs, or its
        # senders die in mid-message. The pool is told by the flag of `stopping`.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            run_cluster(lane, stopping.stopping)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self.lanes[pid] = lane

    def _replace_ended(self) -> None:
        for pid in self._ended():
            lane = self.lanes.pop(pid)
            log.error("work.lane_ended", lane=lane)
            _kill_group(pid)
            time.sleep(RESTART_PAUSE)
            self._start(lane)

    def _ended(self) -> list[int]:
        return [pid for pid in self.lanes if os.waitpid(pid, os.WNOHANG)[0] == pid]

    def _stop(self) -> None:
        """What is on the wire finishes; nothing new starts; past the grace the rest is killed, and recovered later."""
        log.info("work.stopping")
        stopping.stop()
        end = time.monotonic() + settings.GRACE_SECONDS
        while self.lanes and time.monotonic() < end:
            for pid in self._ended():
                self.lanes.pop(pid)
                _kill_group(pid)
            time.sleep(0.1)
        for pid, lane in self.lanes.items():
            log.warning("work.killed_after_grace", lane=lane)
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
