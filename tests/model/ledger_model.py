"""One row of the ledger in its world: everything that can happen to it next, by the real table of moves.

The statements are the ones of `delivery.moves`; each need has a predicate here where the ledger has SQL. The world
around it is ours: senders that die or are stopped, a server that answers as it likes, people who change their minds.

What is simpler than the world, and in which direction (never fewer behaviours, except for the bounds):
- any number of senders die, at any point; the lease of a dead one is over at once. One that is alive can lose its
  lease at any time (SIGSTOP, a database that is away), another takes its slot, and it goes on with what it has begun;
- a sender tries every row, whoever has claimed it, and one without a lease tries too: the statement decides;
- time has no length: whatever may be due is due, and 72 h may be over at any moment;
- a pause is one of the issue or of the house; a block is the same to the statements; a withdrawn consent stands for
  a suppression.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from delivery.moves import FAILED, MOVES, PENDING, SENDING, SENT, SKIPPED, UNKNOWN, Move, Need

Table = Mapping[str, Move]
TABLE: Table = {line.name: line for line in MOVES}

# Who holds a row, or makes an attempt: the sender of one of the two slots, or one of these.
SENDERS = (0, 1)
NOBODY = -1
OTHER = -2  # on a row: a sender whose lease is over; of an attempt: such a sender, still alive


class At(enum.IntEnum):
    """Where the sender stands with an attempt."""

    MARKED = 0  # `sending` is committed, but the COMMIT's reply was lost: its sender does not know
    OPEN = 1  # on the wire, the end of DATA is not out
    DOT = 2  # the end of DATA is out
    HEARD_SENT = 3
    HEARD_RETRY = 4  # certain that it was not accepted
    HEARD_REFUSED = 5  # for good
    HEARD_NOTHING = 6  # no well-formed reply to the end of DATA
    OVER = 7  # written down, or its sender is dead


class Fate(enum.IntEnum):
    """What the server has made of an attempt."""

    NONE = 0  # has not got it, or does not want it
    OUT = 1  # may have got it, and may accept it yet
    ACCEPTED = 2


class Attempt(NamedTuple):
    at: At
    by: int
    fate: Fate
    resend: int


class Row(NamedTuple):
    """One recipient: the ledger's columns, and what sender and server know of each attempt: number n is wire[n - 1]."""

    status: str = PENDING
    owner: int = NOBODY
    consent: bool = True
    resend: int = 0
    word: bool = False  # its status is an operator's word, who may be wrong
    wire: tuple[Attempt, ...] = ()

    def accepted(self, resend: int) -> int:
        """How many copies of that resend number the server has taken."""
        return sum(a.fate == Fate.ACCEPTED and a.resend == resend for a in self.wire)

    def is_lost(self) -> bool:
        """Nothing of the last attempt is left that could be accepted. (A log that tells less proves less.)"""
        last = self.wire[-1:]
        return any(a.fate == Fate.NONE and a.at > At.DOT for a in last)

    def with_attempt(self, n: int, attempt: Attempt) -> Row:
        return self._replace(wire=(*self.wire[: n - 1], attempt, *self.wire[n:]))


class Issue(enum.IntEnum):
    SENDING = 0
    CLOSED = 1  # `sent`
    CANCELLED = 2


class World(NamedTuple):
    """What both rows share."""

    issue: Issue = Issue.SENDING
    paused: bool = False


class Room(NamedTuple):
    """What one row's steps ask about the other row: may sender 0, or 1, start one more; may an operator resend?"""

    first: bool
    second: bool
    resend: bool


@dataclass(frozen=True)
class Bounds:
    """How much of it is explored."""

    recipients: int = 2  # or 1
    window: int = 1
    attempts: int = 2  # of each recipient
    attempts_in_all: int = 4
    resends: int = 0  # in all


class Step(NamedTuple):
    """One thing that happens to one row. `move`: the line of the table that did it. `progress`: it comes by itself."""

    label: str
    row: Row
    move: str = ""
    progress: bool = True


@dataclass(frozen=True)
class Facts:
    sender: int = NOBODY
    attempt: int = 0
    evidence: bool = False
    operator: bool = False
    spent: bool = False


PREDICATES: dict[Need, Callable[[World, Row, Facts], bool]] = {
    Need.DUE: lambda world, row, facts: True,
    Need.LEASE: lambda world, row, facts: facts.sender in SENDERS,
    Need.CONSENT: lambda world, row, facts: row.consent,
    Need.NO_CONSENT: lambda world, row, facts: not row.consent,
    Need.MAY_SEND: lambda world, row, facts: may_send(world),
    Need.ATTEMPT: lambda world, row, facts: facts.attempt == len(row.wire),
    Need.CANCELLED: lambda world, row, facts: world.issue == Issue.CANCELLED,
    Need.NOT_CANCELLED: lambda world, row, facts: world.issue != Issue.CANCELLED,
    Need.ORPHANED: lambda world, row, facts: row.owner == OTHER,
    Need.SPENT: lambda world, row, facts: facts.spent,
    Need.LATE: lambda world, row, facts: True,
    Need.EVIDENCE: lambda world, row, facts: facts.evidence,
    Need.OPERATOR: lambda world, row, facts: facts.operator,
}


def may_send(world: World) -> bool:
    return world.issue != Issue.CANCELLED and not world.paused


def apply(line: Move, world: World, row: Row, facts: Facts) -> Row | None:
    """The row after the move, as `ledger.move` writes it; None where a need does not hold."""
    if row.status not in line.old:
        return None
    if not all(PREDICATES[need](world, row, facts) for need in line.needs):
        return None
    owner = facts.sender if line.new == SENDING else NOBODY
    return row._replace(status=line.new, owner=owner, word=False)


class Rules:
    """What can happen to one row next."""

    def __init__(self, bounds: Bounds, table: Table = TABLE) -> None:
        self.bounds = bounds
        self.table = table

    def steps(self, row: Row, world: World, room: Room) -> list[Step]:
        found = [*self._senders(row, world, room), *self._recovery(row, world)]
        found += self._people(row, world, room)
        for n, attempt in enumerate(row.wire, 1):
            found += self._wire(row, n, attempt)
            found += self._record(row, world, n, attempt)
        return found

    def _senders(self, row: Row, world: World, room: Room) -> Iterator[Step]:
        for sender in (*SENDERS, OTHER):
            facts = Facts(sender=sender)
            if sender == OTHER or room[sender]:
                yield from self._start(row, world, sender)
            if may_send(world) and (skipped := self._try("skip_unwilling", world, row, facts)):
                yield Step(f"{sender} skips", skipped, "skip_unwilling")

    def _start(self, row: Row, world: World, sender: int) -> Iterator[Step]:
        won = self._try("start", world, row, Facts(sender=sender))
        if not won or len(row.wire) == self.bounds.attempts:
            return
        for at, how in ((At.OPEN, ""), (At.MARKED, ", the COMMIT's reply is lost")):
            attempt = Attempt(at, sender, Fate.NONE, row.resend)
            marked = won._replace(wire=(*row.wire, attempt))
            yield Step(f"{sender} marks{how}", marked, "start", progress=not how)

    def _recovery(self, row: Row, world: World) -> Iterator[Step]:
        for name in ("lose", "expire", "skip_cancelled"):
            if after := self._try(name, world, row, Facts()):
                yield Step(f"recovery: {name}", after, name, progress=name != "expire")

    def _people(self, row: Row, world: World, room: Room) -> Iterator[Step]:
        if row.consent:
            yield Step("unsubscribes", row._replace(consent=False), progress=False)
        said = Facts(operator=True)
        for name in ("word_sent", "word_failed"):
            if after := self._try(name, world, row, said):
                yield Step(f"operator: {name}", after._replace(word=True), name, progress=False)
        if room.resend and (after := self._try("resend", world, row, said)):
            after = after._replace(resend=row.resend + 1)
            yield Step("operator: resend", after, "resend", progress=False)
        proofs = {"prove_sent": row.accepted(row.resend) > 0, "prove_failed": row.is_lost()}
        for name, true in proofs.items():
            if after := self._try(name, world, row, Facts(evidence=true)):
                yield Step(f"evidence: {name}", after, name, progress=False)

    def _wire(self, row: Row, n: int, attempt: Attempt) -> Iterator[Step]:
        """The dialogue, as far as sender and server are alive; also of a sender whose lease is over."""
        name = f"attempt {n} of {attempt.by}"
        if attempt.at == At.MARKED:
            # Its lease is held, or it would not be MARKED any more: the repeated transaction adopts the row.
            yield Step(f"{name}: adopted", row.with_attempt(n, attempt._replace(at=At.OPEN)))
        elif attempt.at == At.OPEN:
            for label, at, fate in BEFORE_THE_DOT:
                after = attempt._replace(at=at, fate=fate)
                yield Step(f"{name}: {label}", row.with_attempt(n, after))
        elif attempt.at == At.DOT:
            for label, at, fate in AFTER_THE_DOT:
                after = attempt._replace(at=at, fate=fate)
                yield Step(f"{name}: {label}", row.with_attempt(n, after))
        elif attempt.fate == Fate.OUT:
            for fate in (Fate.NONE, Fate.ACCEPTED):
                after = attempt._replace(fate=fate)
                yield Step(f"{name}: nobody hears, {fate.name}", row.with_attempt(n, after))
        if attempt.by == OTHER and attempt.at != At.OVER:
            yield Step(f"{name}: dies", row.with_attempt(n, dead(attempt)), progress=False)

    def _record(self, row: Row, world: World, n: int, attempt: Attempt) -> Iterator[Step]:
        """`results.record`; where the COMMIT's reply is lost, it comes once more."""
        if attempt.at not in RESULTS:
            return
        may_be_spent = attempt.at == At.HEARD_RETRY and n == self.bounds.attempts
        for spent in (False, True)[: 1 + may_be_spent]:
            after, names = self._result(row, world, n, attempt.at, spent)
            label = f"attempt {n} of {attempt.by} records {attempt.at.name}"
            yield Step(label, after.with_attempt(n, dead(attempt)), names)
            if after != row:
                # Once more at any time: as of one whose lease is over, so that it is not waited for.
                again = after.with_attempt(n, attempt._replace(by=OTHER))
                yield Step(f"{label}, the COMMIT's reply is lost", again, names, progress=False)

    def _result(self, row: Row, world: World, n: int, heard: At, spent: bool) -> tuple[Row, str]:
        facts = Facts(attempt=n, spent=spent)
        fired = []
        for name in RESULTS[heard]:
            if after := self._try(name, world, row, facts):
                row = after
                fired.append(name)
                break
        if n == len(row.wire) and (after := self._try("fail_spent", world, row, facts)):
            row = after
            fired.append("fail_spent")
        return row, " ".join(fired)

    def _try(self, name: str, world: World, row: Row, facts: Facts) -> Row | None:
        return apply(self.table[name], world, row, facts)


# The first that wins, as `delivery.results` tries them.
RESULTS: dict[At, tuple[str, ...]] = {
    At.HEARD_SENT: ("accept", "accept_late"),
    At.HEARD_RETRY: ("give_back", "drop"),
    At.HEARD_REFUSED: ("refuse",),
    At.HEARD_NOTHING: ("doubt",),
}
BEFORE_THE_DOT = (
    ("not sent", At.HEARD_RETRY, Fate.NONE),
    ("refused at RCPT", At.HEARD_REFUSED, Fate.NONE),
    ("the dot is out", At.DOT, Fate.OUT),
)
AFTER_THE_DOT = (
    ("accepted", At.HEARD_SENT, Fate.ACCEPTED),
    ("4xx", At.HEARD_RETRY, Fate.NONE),
    ("5xx", At.HEARD_REFUSED, Fate.NONE),
    ("accepted, the reply is lost", At.HEARD_NOTHING, Fate.ACCEPTED),
    ("refused, the reply is lost", At.HEARD_NOTHING, Fate.NONE),
    ("no reply in time", At.HEARD_NOTHING, Fate.OUT),
)


def dead(attempt: Attempt) -> Attempt:
    """Nobody goes on with it; what is out is out."""
    return attempt._replace(at=At.OVER, by=NOBODY)


def killed(row: Row, sender: int) -> Row:
    """The sender is gone in this instant, wherever it stood."""
    wire = tuple(dead(a) if a.by == sender else a for a in row.wire)
    return row._replace(owner=OTHER if row.owner == sender else row.owner, wire=wire)


def lease_lost(row: Row, sender: int) -> Row:
    """Alive, but its lease is over: it starts and adopts nothing more, and goes on with what is on the wire."""
    wire = tuple(_without_lease(a) if a.by == sender else a for a in row.wire)
    return row._replace(owner=OTHER if row.owner == sender else row.owner, wire=wire)


def _without_lease(attempt: Attempt) -> Attempt:
    return dead(attempt) if attempt.at == At.MARKED else attempt._replace(by=OTHER)


def swapped(row: Row) -> Row:
    """The same with the names of the two senders exchanged: nothing depends on them."""
    wire = tuple(a._replace(by=1 - a.by) if a.by in SENDERS else a for a in row.wire)
    return row._replace(owner=1 - row.owner if row.owner in SENDERS else row.owner, wire=wire)


# What design section 4 allows, said once more and by hand: the table is judged by it.
LEGAL = {
    PENDING: {PENDING, SENDING, SKIPPED, FAILED},
    SENDING: {SENDING, SENT, PENDING, FAILED, UNKNOWN, SKIPPED},
    UNKNOWN: {UNKNOWN, SENT, PENDING, FAILED, SKIPPED},
    FAILED: {FAILED, SENT},
    SENT: {SENT},
    SKIPPED: {SKIPPED},
}


VERDICTS = {
    At.HEARD_SENT: {SENT},
    At.HEARD_RETRY: {PENDING, FAILED, SKIPPED},
    At.HEARD_REFUSED: {FAILED},
    At.HEARD_NOTHING: {UNKNOWN},
}


def problem_of_row(row: Row) -> str:
    """What must hold of one row in every state; empty where it does."""
    if any(row.accepted(no) > 1 for no in range(row.resend + 1)):
        return "two copies are accepted"
    if row.word:
        return ""
    if row.status == SENT and not any(a.fate == Fate.ACCEPTED for a in row.wire):
        return "sent, and no copy was accepted"
    if row.status in (FAILED, PENDING, SKIPPED) and row.accepted(row.resend):
        return f"{row.status}, and a copy was accepted"
    return ""


def problem_of_step(old: Row, new: Row, world: World) -> str:
    """What must hold of one row's every step; empty where it does."""
    if new.status not in LEGAL[old.status]:
        return f"{old.status} became {new.status}"
    if len(new.wire) > len(old.wire):
        return _problem_of_start(old, new.wire[-1], world)
    if new.status == SKIPPED != old.status and old.consent and world.issue != Issue.CANCELLED:
        return "skipped, though its reader wants it"
    if old.status == SENDING != new.status:
        return _problem_of_end(old.wire[-1], new.status)
    return ""


def _problem_of_end(attempt: Attempt, status: str) -> str:
    """A row leaves `sending` by what its own attempt has heard, or as unknown where nobody holds the lease."""
    if attempt.at in VERDICTS and status in VERDICTS[attempt.at]:
        return ""
    if status == UNKNOWN and attempt.by not in SENDERS:
        return ""
    if status == UNKNOWN:
        return "unknown, without a crash, a lost reply or a lost lease"
    return f"{status}, and its attempt has not heard so"


def _problem_of_start(old: Row, attempt: Attempt, world: World) -> str:
    """No byte leaves but for an attempt that began here."""
    if attempt.by not in SENDERS:
        return "sending, and its sender has no lease"
    if not old.consent:
        return "sending, after the reader said no"
    if not may_send(world):
        return "sending, after a pause or a cancel"
    return ""


def in_hand(row: Row, sender: int) -> int:
    return sum(a.by == sender for a in row.wire)


def unheard(row: Row, sender: int) -> bool:
    """Marked by a COMMIT whose reply was lost: it is adopted before anything else is marked."""
    return any(a.by == sender and a.at == At.MARKED for a in row.wire)
