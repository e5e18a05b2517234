"""A portion of the storm; `python -m tests.chaos.storm` is the whole. The seed is printed and replays."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.chaos.errand_house import SHORT
from tests.chaos.storm import WEIGHTS, a_stormy_house, plan, storm
from tests.house import House
from tests.stand_ins.smtp import SmtpStandIn

SEED = int(os.environ.get("CHAOS_SEED", random.randrange(10_000)))
Place = tuple[House, SmtpStandIn]


@pytest.fixture
def place() -> Iterator[Place]:
    with a_stormy_house(SHORT, issues=2) as made:
        yield made


def test_everything_is_done_once_whatever_is_killed(place: Place) -> None:
    print(f"CHAOS_SEED={SEED}")
    report = storm(*place, SEED, kills=40, seconds=28, rate=8)
    print(report)
    assert report.kills["lone"] >= 1
    assert report.hangs >= 1, "the watchdog found no pool that hangs"


def test_a_seed_replays_the_same_kills() -> None:
    assert plan(SEED, 200) == plan(SEED, 200)
    assert plan(1, 200) != plan(2, 200)


def test_a_plan_has_so_many_kills_of_every_kind() -> None:
    kills = [kill for blow in plan(1, 200) for kill in blow]
    assert len(kills) == 200
    assert {kill.role for kill in kills} == set(WEIGHTS)
