"""Parts of the pool die, and `work` replaces them; signals come at bad moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House, Work, a_house
from tests.stand_ins.smtp import SmtpStandIn, stall


@pytest.fixture
def server() -> Iterator[SmtpStandIn]:
    with SmtpStandIn(keep_data=False) as made:
        yield made


@pytest.fixture
def house(server: SmtpStandIn) -> Iterator[House]:
    with a_house(EMAIL_URL=server.url) as made:
        yield made


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for thread in threads for child in thread.read_text().split())


def lanes(work: Work) -> list[int]:
    """The leaders of the lanes' pools; the watchdog, which has no children, was started last."""
    return children(work.pid)[:3]


def sentinels(work: Work) -> list[int]:
    return [sentinel for lane in lanes(work) for sentinel in children(lane)]


def delivers(house: House) -> None:
    house.manage("release", "first", "--now")
    house.wait_until(lambda: house.state() == "sent", 30)


def test_killed_parts_are_replaced_and_leave_no_orphans(house: House) -> None:
    work = house.start_work()
    house.wait_until(lambda: len(sentinels(work)) == 3 and len(children(work.pid)) == 4, 10)
    old = set(house.processes()) - {work.pid}
    os.kill(lanes(work)[0], signal.SIGKILL)
    for pid in [*sentinels(work)[-2:], children(work.pid)[-1]]:
        os.kill(pid, signal.SIGKILL)
    house.wait_until(lambda: not old & set(house.processes()), 20)
    delivers(house)


def test_killed_senders_are_replaced(house: House, server: SmtpStandIn) -> None:
    server.on("dot", stall(0.1))
    work = house.start_work()
    house.manage("release", "first", "--now")
    house.wait_until(lambda: len(server.copies) >= 50, 30)
    holders = house.query("SELECT holder FROM delivery_lease WHERE name LIKE 'sender:%'")
    for (holder,) in holders:
        os.kill(int(holder.rpartition(":")[2]), signal.SIGKILL)
    server.behave()
    house.wait_until(house.leases_are_over, 10)
    house.manage("recover_deliveries")
    house.wait_until(lambda: house.state() == "sent", 40)
    assert set(server.accepted().values()) == {1}
    assert work.process.poll() is None


def test_a_stop_at_any_moment_of_the_start_is_quick(house: House) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10_000)))
    print(f"CHAOS_SEED={seed}")
    moments = random.Random(seed)
    for _ in range(3):
        work = house.start_work()
        time.sleep(moments.uniform(0, 0.15))
        assert work.terminate(seconds=8) == 0
        assert not house.processes()
