"""Processes die in the middle of the sending, for real. The SMTP stand-in is the witness of what was accepted."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.house import READERS, House, a_house
from tests.stand_ins.smtp import SmtpStandIn, stall

WINDOW, SENDERS = 4, 2
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(10_000)))


@pytest.fixture
def server() -> Iterator[SmtpStandIn]:
    """A mail server that takes its time at the dot: the sending lasts for some seconds."""
    with SmtpStandIn(keep_data=False) as made:
        made.on("dot", stall(0.06))
        yield made


@pytest.fixture
def house(server: SmtpStandIn) -> Iterator[House]:
    """Its issue is released; nobody works yet."""
    with a_house(
        EMAIL_URL=server.url, DELIVERY_WINDOW=str(WINDOW), WORKERS_BULK=str(SENDERS)
    ) as made:
        made.manage("release", "first", "--now")
        yield made


def in_the_middle(house: House, server: SmtpStandIn) -> None:
    """Return at a moment of the sending that no two runs share."""
    print(f"CHAOS_SEED={SEED}")
    copies = random.Random(SEED).randrange(READERS // 10, READERS // 2)
    house.wait_until(lambda: len(server.copies) >= copies, 40)


def go_on_to_the_end(house: House) -> None:
    house.wait_until(house.leases_are_over, 10)
    house.start_work()
    house.wait_until(lambda: house.state() == "sent", 40)


def assert_the_promises_held(house: House, server: SmtpStandIn, unknowns: int) -> None:
    accepted, statuses = server.accepted(), house.statuses()
    assert set(accepted.values()) == {1}, "somebody has two copies"
    assert house.addresses("sent") <= set(accepted), "a copy was booked that nobody accepted"
    assert set(accepted) <= house.addresses("sent") | house.addresses("unknown")
    assert statuses.get("unknown", 0) <= unknowns
    assert statuses.get("sent", 0) + statuses.get("unknown", 0) == READERS
    ledger = house.manage("ledger", "first", "--json")
    assert json.loads(ledger.stdout)["balanced"] is True


def test_nobody_has_two_copies_after_a_kill_of_everything(
    house: House, server: SmtpStandIn
) -> None:
    house.start_work()
    in_the_middle(house, server)
    house.kill_everything()
    go_on_to_the_end(house)
    assert_the_promises_held(house, server, unknowns=WINDOW * SENDERS)


def test_no_process_outlives_a_killed_supervisor(house: House, server: SmtpStandIn) -> None:
    work = house.start_work()
    in_the_middle(house, server)
    work.kill()
    house.wait_until(lambda: not house.processes(), 3)
    go_on_to_the_end(house)
    assert_the_promises_held(house, server, unknowns=WINDOW * SENDERS)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
    ids=["SIGTERM", "SIGINT", "SIGHUP"],
)
def test_a_stop_in_the_middle_leaves_nothing_unknown(
    house: House, server: SmtpStandIn, number: int
) -> None:
    work = house.start_work()
    in_the_middle(house, server)
    assert work.terminate(seconds=10, number=number) == 0
    assert not house.processes()
    assert set(house.statuses()) == {"sent", "pending"}
    assert len(house.addresses("sent")) == len(server.accepted())


def test_the_next_work_finishes_what_a_stopped_one_left(house: House, server: SmtpStandIn) -> None:
    work = house.start_work()
    in_the_middle(house, server)
    work.terminate()
    house.start_work()
    house.wait_until(lambda: house.state() == "sent", 20)
    assert_the_promises_held(house, server, unknowns=0)


def test_a_signal_to_the_whole_process_group_stops_it_cleanly(
    house: House, server: SmtpStandIn
) -> None:
    work = house.start_work()
    in_the_middle(house, server)
    os.killpg(work.pid, signal.SIGTERM)
    assert work.process.wait(10) == 0
    assert set(house.statuses()) == {"sent", "pending"}


def test_a_signal_to_every_process_stops_it_cleanly(house: House, server: SmtpStandIn) -> None:
    """What systemd does by default: SIGTERM to all of the control group, whatever their sessions."""
    work = house.start_work()
    in_the_middle(house, server)
    house.signal_everything(signal.SIGTERM)
    assert work.process.wait(10) == 0
    assert set(house.statuses()) == {"sent", "pending"}


def test_a_second_sigterm_changes_nothing(house: House, server: SmtpStandIn) -> None:
    work = house.start_work()
    in_the_middle(house, server)
    work.process.send_signal(signal.SIGTERM)
    house.wait_until(lambda: "work.stopping" in house.log_text(), 5)
    assert work.terminate(seconds=10) == 0
    assert set(house.statuses()) == {"sent", "pending"}
