"""Bad input to the job layer: a database that is away, a disk that is full, another key, a broken schedule."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.chaos.away import (
    a_busy_house,
    assert_nothing_was_lost,
    await_the_end,
    database_away,
    full_disk,
)
from tests.chaos.errand_house import FOREIGN_SCHEDULE, SHORT, add_table, put_errands, start_work
from tests.house import ON_POSTGRES, House, a_house

AWAY = float(os.environ.get("AWAY_SECONDS", 6))
LATER = {"LEASE_SECONDS": "2", "WATCHDOG_SECONDS": "4", "CHAOS_MINUTE": "4"}
TICK = "SELECT at FROM delivery_heartbeat WHERE lane = 'tick'"


@pytest.fixture
def house() -> Iterator[House]:
    """Empty but for the errands' table."""
    with a_house(empty=True, ADDRESS_KEY="the-first-" + "a" * 40, **LATER) as made:
        add_table(made)
        yield made


def test_a_database_that_goes_away_in_mid_job_costs_nothing() -> None:
    with a_busy_house(**SHORT) as (house, server, work):
        with database_away(house):
            time.sleep(AWAY)
        await_the_end(house, 90)
        assert work.process.poll() is None
        assert_nothing_was_lost(house, server)


if not ON_POSTGRES:  # a server's disk is not ours to fill

    def test_a_full_disk_delays_the_jobs_and_loses_none() -> None:
        with a_busy_house(**SHORT) as (house, server, work):
            with full_disk(work):
                time.sleep(AWAY)
            assert "database.trouble" in house.log_text()
            await_the_end(house, 90)
            assert work.process.poll() is None
            assert_nothing_was_lost(house, server)


def test_a_rotated_secret_key_loses_no_job(house: House) -> None:
    put_errands(house, 10, 0)
    house.settings["SECRET_KEY"] = "the-second-" + "b" * 40
    start_work(house)
    house.wait_until(lambda: house.value("SELECT count(*) FROM errand_effect") == 30, 40)
    assert "wakeup.unreadable" in house.log_text()


def test_a_foreign_row_in_django_q2s_schedules_is_not_even_looked_at(house: House) -> None:
    house.change(FOREIGN_SCHEDULE)
    start_work(house)
    ticks: set[object] = set()

    def come() -> bool:
        ticks.update(house.query(TICK))
        return len(ticks) >= 5  # the first two are of the start

    house.wait_until(come, 40)
