"""The table of moves, explored: nothing that a crash, a stall or a person does to it makes a second copy."""

from __future__ import annotations

import pytest

from delivery.moves import MOVES, Need

from .explore import Explorer
from .ledger_model import PREDICATES, TABLE, Bounds
from .mutants import MUTANTS, SMALL


@pytest.fixture(scope="module")
def small() -> Explorer:
    explorer = Explorer(SMALL)
    explorer.explore()
    return explorer


@pytest.mark.timeout(600)  # ten seconds of one core, on a machine that may be busy
def test_two_senders_and_two_recipients_reach_no_state_that_breaks_a_promise() -> None:
    found = Explorer(Bounds()).explore()
    assert not found.violation, "\n".join(found.trace)
    assert found.states > 400_000


def test_an_operators_resend_makes_at_most_one_copy_more(small: Explorer) -> None:
    assert not small.found.violation, "\n".join(small.found.trace)
    assert small.found.states > 10_000


def test_every_need_has_a_predicate() -> None:
    assert set(PREDICATES) == set(Need)


def test_every_line_of_the_table_is_fired(small: Explorer) -> None:
    assert len(TABLE) == len(MOVES)
    assert small.found.fired == set(TABLE)


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_table_that_is_wrong_is_found_out(name: str) -> None:
    found = Explorer(SMALL, MUTANTS[name]).explore()
    assert found.violation
    assert found.trace
