"""The portion that CI plays: every named point, every fault of server and database, every deed, once at least."""

from __future__ import annotations

from typing import Any

from tests.chaos.ledger.faults import WIRE
from tests.chaos.ledger.plan import (
    ACTIONS,
    ANYONES,
    COMMIT_FAULTS,
    ON_SERVER,
    POINTS,
    STATEMENT_FAULTS,
    Blow,
    Deed,
    Order,
    Plan,
    settings,
)

READERS = 100
PARTS = 5  # into which the server's faults are divided
STORM_SECONDS = 60.0  # on a busy machine; it ends when all is sent
DEEDS = ("pause", "hold", "send", "unsubscribe", "suppress", "erase", "kill_clerk")


def struck() -> list[Plan]:
    """Two runs in which the senders are struck, by one host and by two; then one that is cancelled."""
    kills = tuple(Blow("kill", point, 1) for point in POINTS)
    others = (
        *(Blow(fault, "commit", 2) for fault in COMMIT_FAULTS),
        *(Blow(fault, "statement", 8) for fault in STATEMENT_FAULTS),
        Blow("kill", "after_250", 1),
        Blow("kill", "anywhere", 5),
        Blow("term", "mid_body", 1),
        Blow("kill_all", "after_dot", 1),
        Blow("stop", "after_sending_commit", 1),
        Blow("stop", "after_354", 1),
    )
    deeds = tuple(
        Deed(0.05 + at * 0.06, what, READERS - 1 - at)
        for at, what in enumerate((*DEEDS, *ON_SERVER))
    )
    usual: dict[str, Any] = {
        "recipients": READERS,
        "pace": 0.05,  # slowly, over one connection: nobody is done before all are struck
        "settings": settings(DELIVERY_CONNECTIONS=1),
        "storm": STORM_SECONDS,
    }
    return [
        Plan(1, blows=kills + others, deeds=(Deed(0.3, "ask_ses"),), **usual),
        Plan(2, blows=others + kills, hosts=2, deeds=deeds, pipelining=False, **usual),
        Plan(3, blows=kills, hosts=2, deeds=(Deed(0.4, "cancel"),), **usual),
    ]


def troubled() -> list[Plan]:
    """The server's faults, each once; every part has some of each phase."""
    names = sorted(WIRE)
    return [
        Plan(
            seed=10 + part,
            recipients=READERS,
            orders=tuple(
                Order(name, -1 if WIRE[name].phase in ANYONES else 5 * at, 1)
                for at, name in enumerate(names[part::PARTS])
            ),
            blows=tuple(Blow("term", "after_result_commit", 2) for _ in range(8)),
            pipelining=part % 2 == 0,
            pace=0.01,
            settings=settings(SMTP_TIMEOUT_SECONDS=0.6),
            storm=STORM_SECONDS,
        )
        for part in range(PARTS)
    ]


def expected(on_postgres: bool) -> set[str]:
    """What must have happened, as the totals name it."""
    blows = {f"kill {point}" for point in (*POINTS, "anywhere")}
    others = set(ACTIONS) - {"kill"}
    server = set(ON_SERVER) if on_postgres else set()
    return blows | others | server | set(WIRE) | {*DEEDS, "cancel", "ask_ses"}
