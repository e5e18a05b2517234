"""Local times on the days on which the clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import pytest

from newsletter.calendar import at_local
from newsletter.models import Newsletter


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_it_knows_winter_and_summer() -> None:
    assert at_local(date(2026, 1, 5), time(7), "Europe/Lisbon") == utc(2026, 1, 5, 7)
    assert at_local(date(2026, 6, 1), time(7), "Europe/Lisbon") == utc(2026, 6, 1, 6)


@pytest.mark.parametrize("at", [time(1, 0), time(1, 30), time(1, 59)])
def test_a_time_in_the_gap_is_the_next_valid_minute(at: time) -> None:
    # Lisbon, 29 March 2026: 01:00 WET becomes 02:00 WEST.
    assert at_local(date(2026, 3, 29), at, "Europe/Lisbon") == utc(2026, 3, 29, 1)


def test_the_minutes_beside_the_gap_stay_as_they_are() -> None:
    day = date(2026, 3, 29)
    assert at_local(day, time(0, 59), "Europe/Lisbon") == utc(2026, 3, 29, 0, 59)
    assert at_local(day, time(2, 0), "Europe/Lisbon") == utc(2026, 3, 29, 1)
    assert at_local(day, time(2, 1), "Europe/Lisbon") == utc(2026, 3, 29, 1, 1)


def test_a_time_in_the_overlap_is_the_first_of_the_two() -> None:
    # Lisbon, 25 October 2026: 02:00 WEST becomes 01:00 WET.
    assert at_local(date(2026, 10, 25), time(1, 30), "Europe/Lisbon") == utc(2026, 10, 25, 0, 30)


def test_a_gap_at_midnight_does_not_move_the_day_back() -> None:
    # Cairo, 24 April 2026: 00:00 becomes 01:00.
    assert at_local(date(2026, 4, 24), time(0), "Africa/Cairo") == utc(2026, 4, 23, 22)


def test_a_day_that_a_zone_left_out_begins_with_the_next_one() -> None:
    # Apia had no 30 December 2011.
    assert at_local(date(2011, 12, 30), time(7), "Pacific/Apia") == utc(2011, 12, 30, 10)


def test_today_is_the_newsletters_own_day() -> None:
    now = utc(2026, 6, 1, 11, 30)
    assert Newsletter(zone="Pacific/Auckland").today(now) == date(2026, 6, 1)
    assert Newsletter(zone="Pacific/Auckland").today(utc(2026, 6, 1, 12)) == date(2026, 6, 2)
    assert Newsletter(zone="America/Los_Angeles").today(utc(2026, 6, 1, 6)) == date(2026, 5, 31)


def test_the_hours_of_the_release_day_are_the_newsletters_own() -> None:
    found = Newsletter(zone="America/Sao_Paulo")
    day = date(2026, 6, 1)
    assert found.release_at(day) == utc(2026, 6, 1, 10)
    assert found.safety_net_at(day) == utc(2026, 6, 1, 12)
    assert found.too_late_at(day) == utc(2026, 6, 1, 21)
