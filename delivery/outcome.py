"""What a job's body returns; the runner in `queue.py` applies it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Advance = Callable[[], object]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Done:
    """The work is done, or there was none. `advance` runs in the transaction of the finish, if the token holds."""

    note: str = ""
    advance: Advance = _nothing


@dataclass(frozen=True)
class Wait:
    """Not yet: once more in so many seconds. Expected waiting, no failure."""

    seconds: float
    note: str
    advance: Advance = _nothing


@dataclass(frozen=True)
class Retry:
    """It failed for now: once more after a backoff with full jitter, and not before `seconds`, where the other side
    named a time. `endless`: it is never dead by its count, because the work has a wall-clock end of its own."""

    note: str
    seconds: float | None = None
    endless: bool = False


@dataclass(frozen=True)
class Discard:
    """It cannot be done any more and need not be: its row is gone."""

    note: str


Outcome = Done | Wait | Retry | Discard
