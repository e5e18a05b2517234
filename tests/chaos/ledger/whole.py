"""A real `work`, all of it killed again and again while it mails an issue: the seed says after how many copies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

from tests.chaos.errand_house import SHORT, start_work
from tests.chaos.ledger.oracle import judge
from tests.chaos.ledger.plan import Plan, settings
from tests.chaos.ledger.run import Totals, line
from tests.chaos.ledger.scene import Tally, read_facts
from tests.chaos.ledger.witness import Witness
from tests.house import READERS, House, a_house

KILLS = 10  # of one issue
SENDERS = 2  # of a `work`
WINDOW = 4
PACE = 0.05
AWAIT_SECONDS = 30.0
DRAIN_SECONDS = 180.0


def play(seeds: Iterable[int], totals: Totals, tell: Callable[[str], object]) -> None:
    """A house, an issue and KILLS kills for each seed."""
    with Witness() as witness:
        for seed in seeds:
            with a_house(
                empty=False, EMAIL_URL=witness.url, DELIVERY_WINDOW=str(WINDOW), **SHORT
            ) as house:
                plan = Plan(seed, READERS, pace=PACE, settings=settings(DELIVERY_WINDOW=WINDOW))
                witness.begin(plan, [])
                began = time.monotonic()
                tally = _storm(house, witness, random.Random(seed))
                facts = read_facts(house, witness, plan, 1, tally)
                facts.seconds = time.monotonic() - began
                wrong = judge(facts)
                totals.add(facts, wrong)
                tell(line(facts, wrong))


def _storm(house: House, witness: Witness, chances: random.Random) -> Tally:
    tally = Tally()
    house.manage("release", "first", "--now")
    for _ in range(KILLS):
        wanted = witness.taken() + chances.randrange(1, READERS // KILLS)
        start_work(house, ready=False)
        end = time.monotonic() + AWAIT_SECONDS
        while witness.taken() < wanted and house.state() != "sent" and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(chances.uniform(0, 0.1))
        house.kill_everything()
        tally.blows["kill_work"] += 1
        tally.deaths += SENDERS
    work = start_work(house)
    house.wait_until(lambda: house.state() == "sent", DRAIN_SECONDS)
    house.wait_until(lambda: _is_reported(house), 30)
    assert work.terminate() == 0, "`work` did not end well"
    return tally


def _is_reported(house: House) -> int:
    return int(
        house.value("SELECT count(*) FROM delivery_job WHERE name = 'report' AND state = 'done'")
    )
