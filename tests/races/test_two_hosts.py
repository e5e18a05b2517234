"""Two hosts on one database, and a hundred hours that come at once: one occurrence, one run (P7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.errand_house import start_work
from tests.house import House, a_house

NEWSLETTERS = 100
LOCAL_HOUR = 11  # after the release, before it is too late

# Newsletters whose day is today and whose hour was 07:00, in a zone where it is late morning; they are made after it.
FURNISH = """
import sys
import django
django.setup()
from newsletter.models import Newsletter
zone, weekday, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
Newsletter.objects.bulk_create(
    Newsletter(slug=f"n{n}", name=f"N {n}", from_email="ana@example.org", zone=zone, release_weekday=weekday)
    for n in range(count)
)
"""
# Their hour has come, for all at once; both hosts tick every two seconds.
STRIKE = """
import django
django.setup()
from datetime import UTC, datetime
from newsletter.models import Newsletter
Newsletter.objects.update(created_at=datetime(2020, 1, 1, tzinfo=UTC))
"""
OF_RELEASE = "FROM delivery_job WHERE name = 'release'"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A hundred releases were due; two hosts wanted each of them."""
    with a_house(empty=True, CHAOS_MINUTE="2", WATCHDOG_SECONDS="6") as made:
        now = datetime.now(UTC)
        offset = LOCAL_HOUR - now.hour
        zone = f"Etc/GMT{-offset:+d}" if offset else "Etc/GMT"
        weekday = (now + timedelta(hours=offset)).weekday()
        run(made, FURNISH, zone, str(weekday), str(NEWSLETTERS))
        works = [start_work(made), start_work(made)]
        run(made, STRIKE)
        made.wait_until(lambda: made.value(f"SELECT count(*) {OF_RELEASE}") == NEWSLETTERS, 60)
        open_jobs = "SELECT count(*) FROM delivery_job WHERE state IN ('queued', 'running')"
        made.wait_until(lambda: made.value(open_jobs) == 0, 60)
        for work in works:
            assert work.terminate() == 0
        yield made


def run(house: House, code: str, *args: str) -> None:
    process = house.python(code, *args)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_each_due_time_is_an_occurrence_once(house: House) -> None:
    rows = house.query(
        "SELECT newsletter_id, count(*) FROM delivery_occurrence WHERE schedule = 'release' "
        "GROUP BY newsletter_id"
    )
    assert [count for _, count in rows] == [1] * NEWSLETTERS


def test_each_occurrence_is_run_once(house: House) -> None:
    rows = house.query(f"SELECT state, runs, crashes, count(*) {OF_RELEASE} GROUP BY 1, 2, 3")
    assert rows == [("done", 1, 0, NEWSLETTERS)]


def test_each_run_has_its_effect_once(house: House) -> None:
    told = "FROM delivery_notification WHERE key LIKE 'nothing_approved:%' AND channel = 'log'"
    assert house.query(f"SELECT count(*), count(DISTINCT key) {told}") == [
        (NEWSLETTERS, NEWSLETTERS)
    ]


def test_both_hosts_had_a_part_in_it(house: House) -> None:
    holders = [str(holder) for (holder,) in house.query(f"SELECT holder {OF_RELEASE}")]
    assert len({holder.partition("/")[0] for holder in holders}) == 2


def test_the_house_was_pruned_once(house: House) -> None:
    rows = house.query("SELECT state, runs FROM delivery_job WHERE name = 'prune'")
    assert rows == [("done", 1)]


def test_nothing_was_dead_or_lost(house: House) -> None:
    assert house.query("SELECT key FROM delivery_job WHERE state IN ('dead', 'discarded')") == []
    assert "job.lost_its_lease" not in house.log_text()
