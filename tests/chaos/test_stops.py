"""A few stops of each kind; `python -m tests.chaos.stops` makes many."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.chaos.errand_house import add_table, put_errands, start_work
from tests.chaos.parts import parts
from tests.chaos.stops import stops
from tests.house import House, a_house
from tests.stand_ins.smtp import SmtpStandIn, stall

SEED = int(os.environ.get("CHAOS_SEED", random.randrange(10_000)))


@pytest.fixture
def house() -> Iterator[House]:
    """With errands, and little patience."""
    with a_house(GRACE_SECONDS="4", SMTP_TIMEOUT_SECONDS="3", LEASE_SECONDS="2") as made:
        add_table(made)
        yield made


def test_each_kind_of_stop_is_quick_and_leaves_nothing_behind() -> None:
    print(f"CHAOS_SEED={SEED}")
    took = stops(1, SEED).took
    assert len(took) == 4
    assert max(seconds for times in took.values() for seconds in times) < 10


def test_a_stop_waits_for_the_reply_that_is_on_its_way() -> None:
    with SmtpStandIn(keep_data=False) as server, a_house(EMAIL_URL=server.url) as house:
        server.on("dot", stall(3))
        house.manage("release", "first", "--now")
        work = house.start_work()
        house.wait_until(lambda: len(server.copies) >= 8, 20)
        began = time.monotonic()
        assert work.terminate() == 0
        assert time.monotonic() - began > 1
        assert set(house.statuses()) == {"sent", "pending"}
        assert len(house.addresses("sent")) == len(server.accepted())


def test_what_does_not_end_within_the_grace_is_killed_and_done_by_the_next(house: House) -> None:
    put_errands(house, 1, 7)
    work = start_work(house)
    house.wait_until(lambda: len(parts(work.pid)["busy"]) == 3, 20)
    began = time.monotonic()
    assert work.terminate() == 0
    assert time.monotonic() - began < 7
    house.wait_until(lambda: not house.processes(), 1)
    assert "work.killed_after_grace" in house.log_text()
    start_work(house)
    house.wait_until(lambda: house.value("SELECT count(*) FROM errand_effect") == 3, 40)
    assert house.value("SELECT max(crashes) FROM delivery_job") == 1
