"""A release from the command to the closed books, by a real `work`, and what it cost."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.bench import machine
from tests.house import House, Work

LANES = ("critical", "default", "bulk", "watchdog")  # in the order in which `work` starts them
ROLES = ("lane", "sentinel", "pool")  # a lane's process, its child, its child's children
LOOK_SECONDS = 0.5
SETTLED = """
SELECT tenth, count(*), max(settled_at)
FROM (SELECT settled_at, ntile(10) OVER (ORDER BY settled_at, id) AS tenth FROM delivery_emaildelivery) marked
GROUP BY tenth ORDER BY tenth
"""


class Void(Exception):
    """The figure cannot be used; the message says why."""


@dataclass
class Drained:
    audience: int
    seconds: float  # from the freeze to the last copy's result
    rates: list[float]  # of each tenth of the ledger
    cpu_ms: float  # of all processes of `work`, a message
    server_cpu_ms: float  # of the PostgreSQL server, a message
    memory: dict[str, float] = field(default_factory=dict)  # role -> the most MB in RAM

    @property
    def rate(self) -> float:
        return self.audience / self.seconds


def drain(house: House, limit: float) -> Drained:
    """Release `first` and wait until it is closed; Void where not all was sent."""
    work = house.start_work()
    pids, server = set(house.processes()), machine.database_server()
    cpu, server_cpu = machine.cpu_seconds(pids), machine.cpu_seconds(server)
    with Memory(house, work) as memory:
        house.manage("release", "first", "--now")
        house.wait_until(lambda: look(house) == "sent", limit)
        cpu = machine.cpu_seconds(house.processes()) - cpu
        server_cpu = machine.cpu_seconds(machine.database_server()) - server_cpu
    frozen, audience = _frozen(house)
    check_books(house, audience)
    tenths = [(int(count), unix(last)) for _, count, last in house.query(SETTLED)]
    times = [unix(frozen), *(last for _, last in tenths)]
    spans = [after - before for before, after in itertools.pairwise(times)]
    work.terminate(90)
    return Drained(
        audience=audience,
        seconds=times[-1] - times[0],
        rates=[count / max(span, 1e-3) for (count, _), span in zip(tenths, spans, strict=True)],
        cpu_ms=1000 * cpu / audience,
        server_cpu_ms=1000 * server_cpu / audience,
        memory=memory.peaks,
    )


def check_books(house: House, audience: int) -> None:
    statuses = house.statuses()
    if statuses != {"sent": audience}:
        raise Void(f"of {audience} frozen the ledger says {statuses}")


def unix(value: Any) -> float:
    """A time as either database gives it."""
    at = datetime.fromisoformat(str(value))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class Memory:
    """Looks every two seconds at the peaks of all processes of `work`: some are replaced meanwhile."""

    def __init__(self, house: House, work: Work) -> None:
        self.peaks: dict[str, float] = {}
        self._house = house
        self._main = work.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(2):
            self._look()

    def _look(self) -> None:
        parents = {pid: machine.parent_of(pid) for pid in self._house.processes()}
        lanes = sorted(pid for pid, parent in parents.items() if parent == self._main)
        for pid in parents:
            role = _role(pid, self._main, parents, lanes)
            if role:
                self.peaks[role] = max(self.peaks.get(role, 0), machine.peak_mb(pid))


def _role(pid: int, main: int, parents: dict[int, int], lanes: list[int]) -> str:
    """`main`, or lane and depth, such as `bulk pool`; empty for what is no part of `work`."""
    if pid == main:
        return "main"
    depth = 0
    while pid not in lanes:
        pid, depth = parents.get(pid, 0), depth + 1
        if not pid or depth >= len(ROLES):
            return ""
    lane = LANES[lanes.index(pid)] if len(lanes) == len(LANES) else "a lane"
    return lane if lane == "watchdog" else f"{lane} {ROLES[depth]}"


def look(house: House, every: float = LOOK_SECONDS) -> str:
    """The issue's state, asked seldom: each look costs a connection. Void where it was stopped."""
    time.sleep(every)
    ((state, blocked, paused),) = house.query(
        "SELECT state, blocked_reason, paused_reason FROM newsletter_issue WHERE slug = 'first'"
    )
    if blocked or paused:
        raise Void(f"the issue stands still: {blocked or paused}")
    return str(state)


def _frozen(house: House) -> tuple[Any, int]:
    rows = house.query(
        "SELECT audience_frozen_at, audience FROM newsletter_issue WHERE slug = 'first'"
    )
    return rows[0][0], int(rows[0][1])
