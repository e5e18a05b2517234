"""What issue 5 asks for, and whether the figures reach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]
RATIOS = {("sqlite", 8): 0.40, ("sqlite", 32): 0.60, ("postgres", 8): 0.30, ("postgres", 32): 0.50}
TO_DJANGO, FLAT, FAR = 8.0, 0.90, 0.90
FREEZE, IMPORT = 15.0, 60.0  # seconds
MEMORY, GROWTH = 200.0, 0.05  # MB; of 10,000 at a million
ADMIN, PUBLIC = 300.0, 50.0  # milliseconds


@dataclass(frozen=True)
class Goal:
    """A line of the table: from the figures of its part comes what is shown, and whether that is enough.

    `bound` is by database; None: shown, and nothing was asked for.
    """

    part: str
    what: str
    value: Callable[[Figures], float]
    shown: Callable[[float], str]
    bound: dict[str, float] | None = None
    at_least: bool = True

    def met(self, value: float, database: str) -> bool | None:
        if self.bound is None:
            return None
        bound = self.bound[database]
        return value >= bound if self.at_least else value <= bound

    def asked(self) -> str:
        """The bound in words; two where the databases differ."""
        if self.bound is None:
            return ""
        sign = "≥" if self.at_least else "≤"
        words = [f"{sign} {self.shown(bound)}" for bound in self.bound.values()]
        return words[0] if len(set(words)) == 1 else " / ".join(words)


def both(bound: float) -> dict[str, float]:
    return {"sqlite": bound, "postgres": bound}


def rate(value: float) -> str:
    return f"{value:,.0f}/s"


def ratio(value: float) -> str:
    return f"{value:.2f}"


def times(value: float) -> str:
    return f"{value:.1f} ×"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def megabytes(value: float) -> str:
    return f"{value:.0f} MB"
