"""A portion of the ledger's chaos; `python -m tests.chaos.ledger.run` is the whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connections

from tests.chaos.ledger import portion
from tests.chaos.ledger.mutants import SCENARIOS, hunt
from tests.chaos.ledger.plan import drawn
from tests.chaos.ledger.run import Totals, play
from tests.chaos.ledger.scene import Scene
from tests.chaos.ledger.witness import Witness
from tests.house import ON_POSTGRES, a_house

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    connections.close_all()  # the server is restarted in between
    with Witness() as witness, a_house(empty=True, EMAIL_URL=witness.url) as house:
        yield Scene(house, witness)


@pytest.fixture(scope="module")
def totals() -> Totals:
    return Totals()


def test_the_ledger_holds_wherever_its_senders_are_struck(scene: Scene, totals: Totals) -> None:
    play(scene, portion.struck(), totals, print)
    assert totals.violations == []


def test_the_ledger_holds_whatever_the_mail_server_does(scene: Scene, totals: Totals) -> None:
    play(scene, portion.troubled(), totals, print)
    assert totals.violations == []


def test_every_named_point_and_fault_was_met(totals: Totals) -> None:
    assert portion.expected(ON_POSTGRES) - totals.met() == set()


def test_a_seed_gives_the_same_plan_again() -> None:
    assert drawn(7, 100) == drawn(7, 100)
    assert drawn(7, 100) != drawn(8, 100)


def test_the_oracle_notices_a_fault_of_ours(scene: Scene) -> None:
    said: list[str] = []
    assert hunt(scene, ["unknown_requeued"], said.append) == []
    assert "copies_once" in said[0]


def test_there_are_mutants_enough() -> None:
    assert len(SCENARIOS) >= 12
