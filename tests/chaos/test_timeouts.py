"""A job past its time-out: django-q2 ends its worker, the sweep takes the job back, and the third time it is dead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.errand_house import add_table, put_errands, start_work
from tests.house import House, a_house

DEAD = "SELECT count(*) FROM delivery_job WHERE name LIKE 'errand%' AND state = 'dead'"
EFFECTS = "SELECT count(*) FROM errand_effect"


@pytest.fixture
def house() -> Iterator[House]:
    """Two seconds for any job, and a sweep that comes often."""
    with a_house(
        JOB_TIMEOUT_SECONDS="2",
        SENDER_SECONDS="0.5",
        SMTP_TIMEOUT_SECONDS="1",
        LEASE_SECONDS="2",
        WATCHDOG_SECONDS="6",
        CHAOS_MINUTE="2",
    ) as made:
        add_table(made)
        yield made


def test_it_is_dead_at_the_third_and_its_lane_goes_on(house: House) -> None:
    work = start_work(house)
    put_errands(house, 1, 60)  # in each lane one that takes a minute
    house.wait_until(lambda: house.value(DEAD) == 3, 60)
    notes = house.query("SELECT DISTINCT note, crashes FROM delivery_job WHERE state = 'dead'")
    assert notes == [("its worker died 3 times", 3)]
    assert house.value(EFFECTS) == 0
    house.change("DELETE FROM delivery_job WHERE state = 'dead'")
    put_errands(house, 4, 0)
    house.wait_until(lambda: house.value(EFFECTS) == 12, 30)
    assert work.terminate() == 0
    assert not house.processes()
