"""What a seed says: all chances of a run, drawn before it begins. The same seed gives the same plan."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from tests.chaos.ledger.faults import PHASES, WIRE

# Where a sender can be struck, in the order in which it passes.
POINTS = (
    "after_claim",
    "after_sending_commit",
    "after_354",
    "mid_body",
    "after_dot",
    "after_250",
    "before_result_commit",
    "after_result_commit",
)
ANYWHERE = "anywhere"  # after so many hundredths of a second
COMMIT_FAULTS = ("commit_lost", "commit_refused")
STATEMENT_FAULTS = ("cut_before", "cut_after")
ACTIONS = ("kill", "kill_all", "stop", "term", *COMMIT_FAULTS, *STATEMENT_FAULTS)
FATAL = ("kill", "kill_all", "term")  # the sender ends, and is forked anew
ANYONES = ("greeting", "ehlo", "mail", "quit")  # phases at which no reader is named yet
ON_SERVER = ("terminate", "terminate_all", "restart")  # PostgreSQL's alone


@dataclass(frozen=True)
class Blow:
    """Do `action` when the sender passes `point` for the `nth` time since its last blow."""

    action: str
    point: str
    nth: int


@dataclass(frozen=True)
class Order:
    """The mail server's fault `name`, so many times; for one reader, or with -1 for whoever comes."""

    name: str
    reader: int
    times: int


@dataclass(frozen=True)
class Deed:
    """An operator's or a reader's deed, once `share` of the audience has a copy, or nothing moves any more."""

    share: float
    what: str
    reader: int = -1


@dataclass(frozen=True)
class Plan:
    """A run. `mutant` names a deliberate fault of ours; "" is the code as it is."""

    seed: int
    recipients: int
    hosts: int = 1
    senders: int = 2
    blows: tuple[Blow, ...] = ()
    orders: tuple[Order, ...] = ()
    deeds: tuple[Deed, ...] = ()
    pipelining: bool = True
    pace: float = 0.0  # seconds before each reply to the dot
    storm: float = 8.0  # seconds: then no more blows are struck, and the server behaves
    drain: float = 120.0  # seconds that it may take then (promise P10)
    settings: dict[str, Any] = field(default_factory=dict)
    mutant: str = ""

    @property
    def window(self) -> int:
        return int(self.settings["DELIVERY_WINDOW"])


def settings(**over: Any) -> dict[str, Any]:
    """The senders' settings, short enough that a run lasts seconds."""
    return {
        "LEASE_SECONDS": 1.2,
        "SENDER_SECONDS": 3.0,
        "SMTP_TIMEOUT_SECONDS": 2.0,
        "DELIVERY_WINDOW": 4,
        "DELIVERY_CONNECTIONS": 4,
        "DELIVERY_RETRY_SECONDS": 0.1,
        "BREAKER_SECONDS": 0.2,
        "BATCH": 5,  # of rows claimed at once; a dead sender's wait for the end of its lease
        "FIRST": 0,  # answers that are counted: their commits go another way than all later ones
        **over,
    }


def drawn(seed: int, recipients: int) -> Plan:
    """The plan of a seed."""
    chances = random.Random(seed)
    window = chances.choice((1, 2, 4, 4, 8))
    stalls = chances.random() < 0.3
    made = Plan(
        seed=seed,
        recipients=recipients,
        hosts=chances.choice((1, 2)),
        senders=chances.choice((2, 2, 3)),
        pipelining=chances.random() < 0.7,
        pace=chances.choice((0.0, 0.01, 0.03)),
        storm=max(8.0, recipients / 12),
        settings=settings(
            DELIVERY_WINDOW=window,
            DELIVERY_CONNECTIONS=chances.choice((1, window, 2 * window)),
            LEASE_SECONDS=chances.choice((1.0, 1.2, 1.6)),
            BATCH=chances.choice((window, 5, 5, 5, 8, 12, 200)),
            SMTP_TIMEOUT_SECONDS=0.6 if stalls else 2.0,
        ),
    )
    blows = max(4, recipients // 2)
    return replace(
        made,
        blows=tuple(_blow(chances) for _ in range(chances.randint(blows // 2, blows))),
        orders=tuple(_order(chances, recipients, stalls) for _ in range(chances.randrange(6))),
        deeds=_deeds(chances, recipients),
        settings={**made.settings, "FIRST": chances.choice((0, 0, 20, 200))},
    )


def _blow(chances: random.Random) -> Blow:
    action = chances.choices(ACTIONS, (70, 3, 5, 4, 4, 4, 4, 4))[0]
    if action in COMMIT_FAULTS:
        return Blow(action, "commit", chances.randint(1, 5))
    if action in STATEMENT_FAULTS:
        return Blow(action, "statement", chances.randint(1, 30))
    if chances.random() < 0.15:
        return Blow(action, ANYWHERE, chances.randint(1, 20))
    return Blow(action, chances.choice(POINTS), chances.choice((1, 1, 1, 1, 2, 4)))


def _order(chances: random.Random, recipients: int, stalls: bool) -> Order:
    phase = chances.choice((*PHASES, "dot", "dot", "rcpt"))
    names = [name for name, fault in WIRE.items() if fault.phase == phase]
    name = chances.choice([name for name in names if stalls or not WIRE[name].slow])
    if phase in ANYONES:
        return Order(name, -1, chances.randint(1, 6))
    reader = chances.choice((-1, chances.randrange(recipients)))
    return Order(name, reader, chances.randint(1, 4))


def _deeds(chances: random.Random, recipients: int) -> tuple[Deed, ...]:
    weights = {"pause": 3, "hold": 2, "send": 3, "unsubscribe": 5, "suppress": 3, "erase": 3}
    weights |= {"terminate": 2, "terminate_all": 1, "restart": 1, "kill_clerk": 2}
    chosen = chances.choices(list(weights), list(weights.values()), k=chances.randrange(7))
    made = [Deed(chances.uniform(0, 0.8), what, chances.randrange(recipients)) for what in chosen]
    if chances.random() < 0.2:
        made.append(Deed(chances.uniform(0.3, 0.9), "cancel"))
    return tuple(sorted(made, key=lambda deed: deed.share))
