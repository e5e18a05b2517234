"""What a job's body returns; the runner in `queue/` applies it. A body that failed raises, and its policy decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Advance = Callable[[], object]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Done:
    """The work is done, or there was none. `advance` runs in the transaction of the finish, if the token holds.
    `items`: what it moved, such as the mails of a sender's turn."""

    note: str = ""
    advance: Advance = _nothing
    items: int = 0


@dataclass(frozen=True)
class Wait:
    """Not yet: once more in so many seconds. Expected waiting, no failure."""

    seconds: float
    note: str
    advance: Advance = _nothing
    items: int = 0


@dataclass(frozen=True)
class Discard:
    """It cannot be done any more and need not be: its row is gone."""

    note: str


Outcome = Done | Wait | Discard
