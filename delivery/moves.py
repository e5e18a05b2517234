"""The ledger's one table of moves: the statements take their conditions from it, and so does the model.

Each move is one conditional UPDATE of rows of EmailDelivery (`ledger.move`): from one of `old` to `new`, where every
need holds in that very statement.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

PENDING, SENDING, SENT = "pending", "sending", "sent"
FAILED, UNKNOWN, SKIPPED = "failed", "unknown", "skipped"
STATUSES = (PENDING, SENDING, SENT, FAILED, UNKNOWN, SKIPPED)


class Need(enum.Enum):
    """What a statement asks beside the status. `email_delivery.CONDITIONS` has the SQL of each."""

    DUE = "its next attempt is due"
    LEASE = "who asks holds a lease that is not over"
    CONSENT = "its reader has said yes, not said no since, and is not suppressed"
    NO_CONSENT = "the reader said no, or is suppressed"
    MAY_SEND = (
        "its issue is sending or sent, neither paused nor blocked, and nothing holds the house"
    )
    ATTEMPT = "the attempt that the result names is the row's last"
    NOT_CANCELLED = "its issue is not cancelled"
    CANCELLED = "its issue is cancelled"
    ORPHANED = "its sender's lease is over, or passed on"
    SPENT = "it has no attempt left"
    LATE = "its time is over"
    EVIDENCE = "somebody else's record says what became of it"
    OPERATOR = "an operator has said so, with a reason"


@dataclass(frozen=True)
class Move:
    """One line of the table. `plain`: the row's own columns tell it, history has no line."""

    name: str
    old: tuple[str, ...]
    new: str
    needs: frozenset[Need] = field(default_factory=frozenset)
    plain: bool = False


def _move(name: str, old: str, new: str, *needs: Need, plain: bool = False) -> Move:
    return Move(name, tuple(old.split()), new, frozenset(needs), plain)


START = _move(
    "start", "pending", SENDING, Need.LEASE, Need.DUE, Need.CONSENT, Need.MAY_SEND, plain=True
)
SKIP_UNWILLING = _move("skip_unwilling", "pending", SKIPPED, Need.LEASE, Need.NO_CONSENT)
SKIP_CANCELLED = _move("skip_cancelled", "pending", SKIPPED, Need.CANCELLED)
EXPIRE = _move("expire", "pending", FAILED, Need.LATE)
FAIL_SPENT = _move("fail_spent", "pending", FAILED, Need.SPENT)

# What the holder of an attempt has heard; also late, where the recovery had to call it unknown before.
ACCEPT = _move("accept", "sending", SENT, Need.ATTEMPT, plain=True)
ACCEPT_LATE = _move("accept_late", "unknown failed", SENT, Need.ATTEMPT)
REFUSE = _move("refuse", "sending unknown", FAILED, Need.ATTEMPT)
DOUBT = _move("doubt", "sending", UNKNOWN, Need.ATTEMPT)
GIVE_BACK = _move("give_back", "sending unknown", PENDING, Need.ATTEMPT, Need.NOT_CANCELLED)
DROP = _move("drop", "sending unknown", SKIPPED, Need.ATTEMPT, Need.CANCELLED)
LOSE = _move("lose", "sending", UNKNOWN, Need.ORPHANED)

PROVE_SENT = _move("prove_sent", "unknown failed", SENT, Need.EVIDENCE)
PROVE_FAILED = _move("prove_failed", "unknown", FAILED, Need.EVIDENCE)
WORD_SENT = _move("word_sent", "unknown failed", SENT, Need.OPERATOR)
WORD_FAILED = _move("word_failed", "unknown", FAILED, Need.OPERATOR)
RESEND = _move("resend", "unknown", PENDING, Need.OPERATOR, Need.NOT_CANCELLED)

MOVES = tuple(value for value in list(globals().values()) if isinstance(value, Move))
