"""A pause of everything gets through to the house, however many senders read it; and a turn's number is its own."""

from __future__ import annotations

import pytest

from delivery import holding, witness
from delivery.models import House
from newsletter.models import run_together
from newsletter.models.gate import both_gates
from tests.races import SENDERS, get_through, senders_that_read, together


@pytest.mark.django_db(transaction=True)
def test_a_pause_of_everything_is_not_passed_over_by_the_senders() -> None:
    def look() -> None:
        run_together([both_gates(1)])
        House.objects.held().exists()

    with senders_that_read(look):
        get_through(
            lambda: holding.pause(actor="ana", reason="a fire"), lambda: holding.resume(actor="ana")
        )


@pytest.mark.django_db(transaction=True)
def test_many_turns_at_once_raise_no_alarm_and_lose_no_number() -> None:
    """One that has read an older number must not take the newer one in the witness for a sign of age."""
    witness.look()
    doubts: list[str] = []

    def take_turns() -> None:
        for _ in range(5):
            doubts.append(witness.look().doubt)
            witness.testify()

    for turn in together(SENDERS, take_turns):
        turn.join(60)
    word = witness.read()
    assert word and word.releases == House.read().releases == SENDERS * 5
    assert doubts == [""] * SENDERS * 5
