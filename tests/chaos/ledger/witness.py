"""The independent witness: a mail server that keeps of every copy its hash, its time and whether it was accepted."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass

from tests.chaos.ledger.faults import WIRE
from tests.chaos.ledger.plan import Plan
from tests.stand_ins.smtp import Copy, SmtpStandIn, stall
from tests.stand_ins.smtp_acts import Act

EXTENSIONS = ("8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
_NAMES = {(fault.phase, fault.act): name for name, fault in WIRE.items()}


@dataclass(frozen=True)
class Seen:
    """One copy. `whole`: its last line came in; `at` is Unix time."""

    address: str
    digest: str
    whole: bool
    accepted: bool
    at: float


class Witness(SmtpStandIn):
    """Knows nothing of the ledger, and shares no line with the code that it watches."""

    def __init__(self) -> None:
        super().__init__(keep_data=False)
        self.seen: list[Seen] = []
        self.faults: Counter[str] = Counter()  # what was done, by name
        self.troubled: set[tuple[str, str]] = set()  # (phase, reader) of each fault

    def begin(self, plan: Plan, addresses: list[str]) -> None:
        """Forget what was, and misbehave as the plan says."""
        self.behave()
        with self._lock:
            self.seen, self.troubled, self.faults = [], set(), Counter()
        pipelining = ("PIPELINING",) if plan.pipelining else ()
        self.extensions = ("SIZE 1000000", *EXTENSIONS, *pipelining)
        for order in plan.orders:
            fault = WIRE[order.name]
            whose = addresses[order.reader] if order.reader >= 0 else ""
            self.on(fault.phase, fault.act, recipient=whose, times=order.times)
        if plan.pace:
            self.on("dot", stall(plan.pace))

    def record(self, copy: Copy) -> None:
        whole = copy.data.rstrip().endswith(b"--")
        digest = hashlib.sha256(copy.data).hexdigest()[:16]
        now = time.time()
        with self._lock:
            self.seen += [Seen(to, digest, whole, copy.accepted, now) for to in copy.rcpt_to]

    def act(self, phase: str, recipients: tuple[str, ...]) -> Act | None:
        act = super().act(phase, recipients)
        if act is not None and (name := _NAMES.get((phase, act))):
            with self._lock:
                self.faults[name] += 1
                self.troubled.update((phase, to) for to in recipients)
        return act

    def taken(self) -> int:
        """How many copies were accepted so far."""
        with self._lock:
            return sum(seen.accepted for seen in self.seen)
