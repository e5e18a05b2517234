"""Would the oracle notice? Deliberate faults of ours, one after the other, each in a run that provokes it.

    python -m tests.chaos.ledger.mutants [--only NAME] [--database postgres]

First its run is played without it, and must be faultless. One line for each; exit code 1 where one survives. The
faults themselves are in `mutations.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.chaos import script
from tests.chaos.ledger.plan import Blow, Deed, Order, Plan, settings

if TYPE_CHECKING:
    from tests.chaos.ledger.scene import Facts, Scene

MOST_SEEDS = 5
READERS = 60

Scenario = dict[str, Any]


def _kills(point: str) -> Scenario:
    return {"blows": (Blow("kill", point, 2),) * 8}


def _orders(name: str, times: int = 4) -> Scenario:
    return {"orders": (Order(name, -1, times),)}


def _no(*what: str) -> Scenario:
    """Readers of the second half say no while the first half is mailed."""
    deeds = tuple(Deed(0.1, said, 59 - at) for at, said in enumerate(what))
    return {"deeds": deeds, "pace": 0.03, "settings": settings(DELIVERY_WINDOW=4, BATCH=200)}


SCENARIOS: dict[str, Scenario] = {
    "no_sending_commit": _kills("after_250"),
    "unknown_requeued": _kills("after_250"),
    "fence_ignored": {
        "blows": (Blow("stop", "after_sending_commit", 2),),
        "pace": 0.02,
        "settings": settings(BATCH=12),
    },
    "consent_at_freeze_only": _no("unsubscribe", "suppress", "erase"),
    "long_line_is_permanent": _orders("dot_taken_9kB"),
    "quit_error_is_failure": _orders("quit_5xx"),
    "random_message_id": _orders("dot_4xx"),
    "not_durable": {},
    "count_trusted": _no(*("unsubscribe",) * 10),
    "lease_not_renewed": {
        "pace": 0.35,
        "settings": settings(LEASE_SECONDS=1.0, SENDER_SECONDS=6.0, BATCH=200),
    },
    "pause_ignored": {"deeds": (Deed(0.2, "pause"),), "pace": 0.05},
    "hold_ignored": {"deeds": (Deed(0.2, "hold"),), "pace": 0.05},
    "cancel_ignored": {"deeds": (Deed(0.2, "cancel"),), "pace": 0.05},
    "duplicate_close": {"senders": 3, "hosts": 2},
    "window_ignored": {**_kills("after_dot"), "settings": settings(BATCH=60, DELIVERY_WINDOW=2)},
    "sent_before_the_reply": _kills("after_354"),
    "drop_is_not_sent": _orders("dot_taken_drop"),
    "client_retries": _orders("dot_taken_drop"),
    "audience_grows": {"drain": 15.0},  # its books do not balance: it is never closed
    "sdk_retries": {"deeds": (Deed(0.0, "ask_ses"),)},
}


def _plan(name: str, seed: int) -> Plan:
    usual: Scenario = {"settings": settings()}
    return Plan(seed=seed, recipients=READERS, mutant=name, **(usual | SCENARIOS[name]))


def main() -> None:
    parser = script.parser(__doc__ or "")
    parser.add_argument("--only", choices=SCENARIOS)
    options = parser.parse_args()
    script.prepare(options.database)
    names = [options.only] if options.only else list(SCENARIOS)
    sys.exit(bool(_hunt_in_a_house(names)))


def _hunt_in_a_house(names: list[str]) -> list[str]:
    # Not before the database is chosen.
    from tests.chaos.ledger.scene import Scene
    from tests.chaos.ledger.witness import Witness
    from tests.house import a_house

    with Witness() as witness, a_house(empty=True, EMAIL_URL=witness.url) as house:
        return hunt(Scene(house, witness), names, lambda text: print(text, flush=True))


def hunt(scene: Scene, names: list[str], tell: Callable[[str], object]) -> list[str]:
    """Let each live in up to MOST_SEEDS runs, after one without it; the names of those that no invariant has caught."""
    survivors = []
    for name in names:
        said = _hunt_one(scene, name)
        tell(f"{name}: {said}")
        if not said.startswith("caught"):
            survivors.append(name)
    return survivors


def _hunt_one(scene: Scene, name: str) -> str:
    if wrong := _caught(scene.play(replace(_plan(name, 0), mutant=""))):
        return f"NO PROOF: without it {', '.join(wrong)} complain too"
    for seed in range(1, MOST_SEEDS + 1):
        if caught := _caught(scene.play(_plan(name, seed))):
            return f"caught by {', '.join(caught)} after {seed} seed{'s' if seed > 1 else ''}"
    return f"NOT CAUGHT in {MOST_SEEDS} seeds"


def _caught(facts: Facts) -> list[str]:
    """By which invariants; that it does not come to an end is no proof that the fault was seen."""
    from tests.chaos.ledger.oracle import OF_PROGRESS, judge

    return sorted({said.partition(":")[0] for said in judge(facts)} - {OF_PROGRESS})


if __name__ == "__main__":
    main()
