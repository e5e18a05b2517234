"""How a job meets trouble: by exception, how long and how often it is tried again, and what is done in the end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Bound = float | Callable[[], float]
HOUR = 3600.0


class Pause(Protocol):
    """Seconds before the next try, after so many failures in a row (1, 2, ...)."""

    def seconds(self, count: int) -> float: ...


@dataclass(frozen=True)
class Fixed:
    """The same each time: for polling."""

    each: float

    def seconds(self, count: int) -> float:
        return self.each


@dataclass(frozen=True)
class Backoff:
    """Exponential with full jitter and a cap: for faults, so that many who failed together do not come back together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    first: float = 10.0
    cap: float = 600.0
    least: float = 1.0

    def seconds(self, count: int) -> float:
        top = min(self.cap, self.first * 2.0 ** min(count - 1, 30))
        return random.uniform(min(self.least, top), top)  # noqa: S311


@dataclass(frozen=True)
class On:
    """What is done at one kind of exception.

    It is spent after `times` failures in a row of this kind, or `within` seconds after `since` (by default the first
    of them), whichever comes first; and at once where the error is permanent. Then `then(row, reason)` runs in the
    transaction that finishes the job; without it, the job is dead.
    """

    error: type[Exception] | tuple[type[Exception], ...]
    wait: Pause
    times: int
    within: Bound
    then: Callable[..., None] | None = None
    since: Callable[..., datetime | None] | None = None

    @property
    def bound(self) -> float:
        return self.within() if callable(self.within) else self.within
