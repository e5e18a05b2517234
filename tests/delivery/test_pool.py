"""The event loop that a sender's connections share, on real sockets."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from delivery import pool as pools
from delivery.pool import ConnectionPool
from delivery.transports import Connection, Envelope
from delivery.transports.outcomes import Outcome, Verdict
from delivery.transports.smtp import SmtpTransport, Timeouts, parse_smtp_url
from delivery.transports.steps import Aside, Steps
from tests.stand_ins.smtp import Act, SmtpStandIn, drop, stall, trusting

BIG = (b"x" * 76 + b"\r\n") * 20_000
PATIENT = Timeouts(connect=5, greeting=5, command=5, data=5, dot=5)
LONG = 10.0  # seconds: longer than anything here takes
Make = Callable[..., ConnectionPool]


@pytest.fixture
def server() -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        yield server


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A pool whose connections lead to a stand-in."""

    def made(server: SmtpStandIn, size: int, timeouts: Timeouts = PATIENT) -> ConnectionPool:
        url = parse_smtp_url(server.url)
        tls = None if server.security == "plain" else trusting()
        way_out = SmtpTransport(url, timeouts=timeouts, local_hostname="us.test", tls_context=tls)
        monkeypatch.setattr(pools, "transport", lambda: way_out)
        return ConnectionPool(size)

    return made


class Desk:
    """Hands copies in, and keeps what came of them and which connections they had."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.outcomes: deque[Outcome] = deque()
        self.used: list[Any] = []
        self.sockets: list[int] = []

    def send(self, *names: str, data: bytes = b"A: b\r\n\r\nhello\r\n") -> None:
        for name in names:
            envelope = Envelope("news@example.com", f"{name}@example.org", data)
            self.pool.submit(self.deliver, envelope)

    def deliver(self, connection: Connection, envelope: Envelope) -> Steps[bool]:
        self.used.append(connection)
        outcome = yield from connection.attempt(envelope)
        self.outcomes.append(outcome)
        return outcome.verdict is Verdict.SENT

    def wait_for(self, number: int) -> list[str]:
        end = time.monotonic() + LONG
        while len(self.outcomes) < number:
            assert time.monotonic() < end, f"{len(self.outcomes)} of {number} deliveries ended"
            self.pool.pump(end - time.monotonic())
        return [outcome.verdict.value for outcome in self.outcomes]


def socket_of(connection: Any) -> Any:
    return connection._wire.sock


def test_one_connection_is_enough_for_one_after_the_other(make: Make, server: SmtpStandIn) -> None:
    with make(server, 4) as pool:
        desk = Desk(pool)
        for number in range(1, 6):
            desk.send(f"reader{number}")
            desk.wait_for(number)
    assert (server.connections, server.accepted().total()) == (1, 5)


def test_who_finds_no_connection_idle_waits_in_line(make: Make, server: SmtpStandIn) -> None:
    with make(server, 3) as pool:
        desk = Desk(pool)
        desk.send(*(f"reader{number}" for number in range(20)))
        assert desk.wait_for(20) == ["sent"] * 20
    assert server.connections == 3
    assert set(server.accepted().values()) == {1}


def test_the_end_of_the_context_waits_for_all_and_for_the_line(
    make: Make, server: SmtpStandIn
) -> None:
    with make(server, 2) as pool:
        desk = Desk(pool)
        desk.send("ana", "bob", "charlie", "dora", "eve")
    assert len(desk.outcomes) == len(server.copies) == 5
    assert len(server.said("QUIT")) == 2


def test_a_connection_that_did_badly_is_not_taken_next(make: Make, server: SmtpStandIn) -> None:
    server.on("rcpt", Act(b"550 5.1.1 no\r\n"), recipient="bob@example.org")
    with make(server, 2) as pool:
        desk = Desk(pool)
        for number, name in enumerate(("ana", "bob", "charlie"), 1):
            desk.send(name)
            desk.wait_for(number)
    first, second, third = desk.used
    assert first is second is not third


def test_pump_waits_for_no_more_than_one_end(make: Make, server: SmtpStandIn) -> None:
    server.on("rcpt", stall(), recipient="slow@example.org")
    with make(server, 2, replace(PATIENT, command=1)) as pool:
        desk = Desk(pool)
        desk.send("slow", "ana")
        begun = time.monotonic()
        assert desk.wait_for(1) == ["sent"]
        pool.pump(0)
        assert time.monotonic() - begun < 1
        assert desk.wait_for(2) == ["sent", "retry_channel"]


def test_pump_returns_at_once_after_an_end_that_needed_no_wait(
    make: Make, server: SmtpStandIn
) -> None:
    def deliver(connection: Connection) -> Steps[bool]:
        return True
        yield

    begun = time.monotonic()
    with make(server, 1) as pool:
        pool.submit(deliver)
        pool.pump(LONG)
    assert time.monotonic() - begun < LONG


def test_pump_waits_its_time_out_where_nothing_is_under_way(
    make: Make, server: SmtpStandIn
) -> None:
    with make(server, 1) as pool:
        begun = time.monotonic()
        pool.pump(0.05)
        assert time.monotonic() - begun >= 0.05


def test_a_delivery_that_raises_keeps_no_connection(make: Make, server: SmtpStandIn) -> None:
    def early(connection: Connection) -> Steps[bool]:
        raise RuntimeError("a fault of ours")
        yield

    def late(connection: Connection) -> Steps[bool]:
        yield Aside(lambda: None)
        raise RuntimeError("a fault of ours")

    def without_steps(connection: Connection) -> Any:
        raise RuntimeError("a fault of ours")

    with make(server, 1) as pool:
        desk = Desk(pool)
        for deliver in (early, late, without_steps):
            pool.submit(deliver)
        desk.send("ana")
        assert desk.wait_for(1) == ["sent"]


@pytest.mark.parametrize("size", [1, 2], ids=["same", "other"])
def test_the_number_of_a_closed_socket_can_be_used_anew(
    make: Make, server: SmtpStandIn, size: int
) -> None:
    server.on("dot", replace(drop(), wait=0.2), times=1)
    with make(server, size) as pool:
        desk = Desk(pool)
        desk.send("ana")
        number = _number_while_it_is_open(desk)
        assert desk.wait_for(1) == ["unknown"]
        server.hang_up()
        with _only_free(number):
            desk.send("bob")  # alone: two that open at once would race for the number
            assert desk.wait_for(2) == ["unknown", "sent"]
        desk.send("charlie")
        assert desk.wait_for(3) == ["unknown", "sent", "sent"]
        assert (desk.used[0] is desk.used[1]) is (size == 1)
        assert socket_of(desk.used[1]).fileno() == number


def _number_while_it_is_open(desk: Desk) -> int:
    end = time.monotonic() + LONG
    while (wire := desk.used[0]._wire) is None or wire.sock is None:
        assert time.monotonic() < end
        desk.pool.pump(0.001)
    return int(wire.sock.fileno())


@contextlib.contextmanager
def _only_free(number: int) -> Iterator[None]:
    """The next socket that is made has this number."""
    taken = []
    while (got := os.dup(0)) < number:
        taken.append(got)
    assert got == number
    os.close(number)
    yield
    for other in taken:
        os.close(other)


@pytest.mark.parametrize("spoken", [b"", b"421 4.4.2 idle\r\n"], ids=["closes", "speaks"])
def test_an_idle_connection_that_ends_costs_no_time_and_no_copy(
    make: Make, server: SmtpStandIn, spoken: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = []
    turn = ConnectionPool._turn

    def counted(pool: ConnectionPool, over: float) -> None:
        turns.append(over)
        turn(pool, over)

    act = Act(b"250 ok\r\n" + spoken, drop=True, accepted=True)
    server.on("dot", act, times=1)
    with make(server, 1) as pool:
        desk = Desk(pool)
        desk.send("ana")
        assert desk.wait_for(1) == ["sent"]
        assert select.select([socket_of(desk.used[0])], [], [], LONG)[0]
        with monkeypatch.context() as patch:
            patch.setattr(ConnectionPool, "_turn", counted)
            pool.pump(0.1)
        assert len(turns) < 10
        desk.send("bob")
        assert desk.wait_for(2) == ["sent", "sent"]
    assert server.connections == 2


def test_each_wait_has_its_own_end(make: Make, server: SmtpStandIn) -> None:
    for name, phase in (("ana", "rcpt"), ("bob", "data"), ("charlie", "dot")):
        server.on(phase, stall(accepted=True), recipient=f"{name}@example.org")
    with make(server, 4, replace(PATIENT, command=0.4, data=0.4, dot=0.4)) as pool:
        desk = Desk(pool)
        desk.send("ana", "bob", "charlie", "dora")
        found = desk.wait_for(4)
    assert sorted(found) == ["retry_channel", "retry_channel", "sent", "unknown"]
    assert [o.reason for o in desk.outcomes if o.verdict is not Verdict.SENT] == ["timed_out"] * 3


def _let_the_dot_be_answered_late(desk: Desk, server: SmtpStandIn) -> None:
    """Nothing moves, as while a database is away, until the time for the answer is over."""
    end = time.monotonic() + LONG
    while not server.copies:
        assert time.monotonic() < end
        desk.pool.pump(0.001)
    assert not desk.outcomes
    assert select.select([socket_of(desk.used[0])], [], [], LONG)[0]
    time.sleep(0.5)


def test_an_answer_that_came_while_the_loop_stood_still_counts(
    make: Make, server: SmtpStandIn
) -> None:
    server.on("dot", Act(wait=0.2))
    with make(server, 1, replace(PATIENT, dot=0.5)) as pool:
        desk = Desk(pool)
        desk.send("ana")
        _let_the_dot_be_answered_late(desk, server)
        assert desk.wait_for(1) == ["sent"]


def test_half_an_answer_that_came_while_the_loop_stood_still_does_not(
    make: Make, server: SmtpStandIn
) -> None:
    server.on("dot", Act(b"250-2.0.0 and", wait=0.2, accepted=True))
    with make(server, 1, replace(PATIENT, dot=0.5)) as pool:
        desk = Desk(pool)
        desk.send("ana")
        _let_the_dot_be_answered_late(desk, server)
        assert desk.wait_for(1) == ["unknown"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_encrypted_dialogues_share_the_loop(make: Make, security: str) -> None:
    with SmtpStandIn(security=security) as server:
        server.on("body", Act(b"", wait=0.2), recipient="reader1@example.org")
        with make(server, 3) as pool:
            desk = Desk(pool)
            desk.send(*(f"reader{number}" for number in range(6)), data=BIG)
            assert desk.wait_for(6) == ["sent"] * 6
        assert server.connections == 3
        assert {copy.data for copy in server.copies} == {BIG}


def test_a_big_body_that_is_read_slowly_holds_nobody_up(make: Make, server: SmtpStandIn) -> None:
    server.on("body", Act(b"", wait=0.5), recipient="slow@example.org")
    with make(server, 2) as pool:
        desk = Desk(pool)
        desk.send("slow", data=BIG * 4)
        desk.send(*(f"reader{number}" for number in range(5)))
        assert desk.wait_for(6) == ["sent"] * 6
    assert server.copies[-1].rcpt_to == ("slow@example.org",)


def test_two_hundred_connections_are_served_at_once(make: Make, server: SmtpStandIn) -> None:
    server.keep_data = False
    with make(server, 200) as pool:
        desk = Desk(pool)
        for round in (1, 2):
            desk.send(*(f"reader{number}" for number in range(200)))
            assert desk.wait_for(200 * round) == ["sent"] * 200 * round
    assert server.connections == 200
    assert set(server.accepted().values()) == {2}


def test_a_pool_that_is_not_entered_has_nothing_that_a_fork_would_share(
    make: Make, server: SmtpStandIn
) -> None:
    before = os.listdir("/proc/self/fd"), threading.active_count()
    pool = make(server, 3)
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
    with pool:
        Desk(pool).send("ana")
    assert server.accepted().total() == 1


def test_servers_that_hang_at_quit_cost_their_time_once(make: Make, server: SmtpStandIn) -> None:
    server.on("quit", stall())
    with make(server, 10, replace(PATIENT, command=0.5)) as pool:
        desk = Desk(pool)
        desk.send(*(f"reader{number}" for number in range(10)))
        desk.wait_for(10)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5 * 0.5


def test_calls_aside_run_side_by_side_and_bring_back_what_they_find(
    make: Make, server: SmtpStandIn
) -> None:
    both = threading.Barrier(2, timeout=LONG)
    threads, faults = set(), []

    def call() -> int:
        both.wait()
        return threading.get_ident()

    def deliver(connection: Connection, fault: str) -> Steps[bool]:
        threads.add((yield Aside(call)))
        try:
            yield Aside(partial(int, fault))
        except ValueError as error:
            faults.append(str(error).rpartition(" ")[2])
        return True

    with make(server, 2) as pool:
        pool.submit(deliver, "one")
        pool.submit(deliver, "two")
    assert sorted(faults) == ["'one'", "'two'"]
    assert len(threads - {threading.get_ident()}) == 2


def test_what_is_on_the_wire_at_a_signal_is_still_waited_for(
    make: Make, server: SmtpStandIn
) -> None:
    server.on("dot", Act(wait=0.5))
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
    pool = make(server, 1)
    desk = Desk(pool)
    with pytest.raises(SystemExit), pool:
        desk.send("ana")
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        desk.wait_for(1)
    signal.signal(signal.SIGALRM, before)
    assert [outcome.verdict for outcome in desk.outcomes] == [Verdict.SENT]
