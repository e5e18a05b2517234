"""How fast the senders of a host can be, and the smallest settings that come near it (docs/decisions/0011-tuning.md).

A row of the window is `sending` while its message waits for the mail server (`wire`: round trips), for the commit that
books it (`WAITS` steps: the one before, the gathering, its own), and for the process, which does one thing at a time
(`CPU_SECONDS` for each row of the window). So one sender makes, by Little's law,

    window / (wire + WAITS * step + window * cpu)      messages a second,

and no more than `connections / wire`; all together no more than the processors do, or `DELIVERY_RATE` lets through.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from django.conf import settings

from delivery import limits

# The figures that are not measured here, in one place: of `make bench` with a window of 32 (2 cores, 10 kB a message).
CPU_SECONDS = {"sqlite": 0.000145, "postgresql": 0.000120}  # of the sender's process, a message
BESIDE_SECONDS = {"sqlite": 0.0, "postgresql": 0.000080}  # of the database server's, a message
SERVER_SECONDS = 0.000080  # of a mail server on the same machine, a message
STATEMENTS = {
    "sqlite": 8,
    "postgresql": 3,
}  # of one step; PostgreSQL answers most of them in one round trip
WAITS = 2.0  # steps that a result waits: half of the one under way, the gathering (as long as one at most), its own
TURNS_PIPELINED, TURNS = (
    2,
    4,
)  # round trips of a message: MAIL+RCPT+DATA and the dot (RFC 2920), or each alone

ENOUGH = 0.9  # of what is possible
SOON_SECONDS = 300.0  # an issue that is out by then gains nothing that is worth more rows at stake
WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)
CONNECTIONS = (8, 16, 24, 32, 50)  # or as many as are let in
MOST_CONNECTIONS = (
    50  # of a host: Postfix lets no more in (postconf(5), smtpd_client_connection_count_limit)
)
MOST_WORKERS = 4


@dataclass(frozen=True)
class Measured:
    """Seconds, and numbers. `statement`: the smallest one; `commit`: what a durable commit costs beyond it.

    `admitted`: connections that the mail server let in at once, `refused`: and no more; `readers`: of the largest list.
    """

    database: str  # Django's vendor
    statement: float
    commit: float
    cpus: int
    round_trip: float
    pipelining: bool
    local_server: bool
    admitted: int
    refused: bool
    readers: int

    @property
    def wire(self) -> float:
        return (TURNS_PIPELINED if self.pipelining else TURNS) * self.round_trip

    @property
    def step(self) -> float:
        """One transaction of a sender that brings results in and the next rows out."""
        return STATEMENTS[self.database] * self.statement + self.commit


@dataclass(frozen=True)
class Plan:
    """Connections and window of one sender, and the senders of a host."""

    connections: int
    window: int
    workers: int

    @property
    def at_stake(self) -> int:
        """Rows that are unknown after the host lost its power, at most."""
        return self.window * self.workers

    def settings(self) -> dict[str, int]:
        return {
            "DELIVERY_CONNECTIONS": self.connections,
            "DELIVERY_WINDOW": self.window,
            "WORKERS_BULK": self.workers,
        }


USUAL = Plan(8, 8, 2)  # the defaults


def present() -> Plan:
    """As it is configured."""
    return Plan(settings.DELIVERY_CONNECTIONS, settings.DELIVERY_WINDOW, settings.WORKERS_BULK)


def expected(measured: Measured, plan: Plan) -> float:
    """Messages a second of all senders of this host."""
    round_of_all = (
        measured.wire + WAITS * measured.step + plan.window * CPU_SECONDS[measured.database]
    )
    let_in = _let_in(measured)
    senders = min(plan.workers, let_in)  # one that is let in with no connection sends nothing
    connections = min(senders * min(plan.connections, plan.window), let_in)
    bounds = [
        senders * plan.window / round_of_all,
        connections / max(measured.wire, 1e-6),
        measured.cpus / _machine_seconds(measured),
    ]
    if measured.database == "sqlite":
        bounds.append(plan.window / measured.step)  # one writer
    if settings.DELIVERY_RATE:
        bounds.append(settings.DELIVERY_RATE * (1 - limits.RESERVED))
    return float(min(bounds))


def propose(measured: Measured) -> Plan:
    """Of the plans that reach `ENOUGH` of what is possible, or of use, the one with the fewest rows at stake.

    The defaults are not undercut where the server lets their connections in: a real server takes longer to answer a
    message than a NOOP.
    """
    plans = list(_plans(measured))
    possible = max(expected(measured, plan) for plan in plans)
    enough = ENOUGH * min(possible, measured.readers / SOON_SECONDS)
    good = [plan for plan in plans if expected(measured, plan) >= enough]
    return min(good, key=lambda plan: (plan.at_stake, plan.window, plan.connections))


def minutes(measured: Measured, rate: float) -> float:
    """Until everybody on the largest list has their copy."""
    return measured.readers / rate / 60


def _plans(measured: Measured) -> list[Plan]:
    let_in = _let_in(measured)
    least = USUAL.workers if let_in >= USUAL.workers * USUAL.connections else 1
    workers = range(least, max(least, min(measured.cpus, let_in, MOST_WORKERS)) + 1)
    found = []
    for senders, window in product(workers, WINDOWS):
        room = let_in // senders
        for connections in {min(number, room) for number in CONNECTIONS}:
            if connections <= window:
                found.append(Plan(connections, window, senders))
    return found


def _let_in(measured: Measured) -> int:
    """Connections that the server takes from this host: what it refused bounds it, else what is usual."""
    return measured.admitted if measured.refused else max(measured.admitted, MOST_CONNECTIONS)


def _machine_seconds(measured: Measured) -> float:
    """Of all processors, a message."""
    own = CPU_SECONDS[measured.database] + BESIDE_SECONDS[measured.database]
    return own + (SERVER_SECONDS if measured.local_server else 0.0)
