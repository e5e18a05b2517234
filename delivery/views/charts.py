"""Small bar charts, drawn on the server: the policy forbids styles of a script's making, and they need no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

HEIGHT = 60
STEP, GAP = 10, 2  # of a bar, in the drawing's units


@dataclass(frozen=True)
class Bar:
    x: int
    y: float
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    """`label` says in words what the bars show, for those who do not see them."""

    title: str
    label: str
    total: str
    most: str
    bars: tuple[Bar, ...]
    first: datetime | None
    width: int
    height: int = HEIGHT
    thickness: int = STEP - GAP


def chart(title: str, points: Sequence[tuple[datetime, int]]) -> Chart:
    """A bar for each (hour in UTC, number), as high as its share of the highest."""
    most = max((number for _, number in points), default=0)
    total = sum(number for _, number in points)
    label = f"{title} an hour: {total:,} in {len(points)} hours"
    if most:
        peak = next(hour for hour, number in points if number == most)
        label += f", most {most:,} from {peak:%H:%M} UTC"
    bars = tuple(_bar(index, *point, most) for index, point in enumerate(points))
    first = points[0][0] if points else None
    return Chart(title, label, f"{total:,}", f"{most:,}", bars, first, STEP * len(points))


def _bar(index: int, hour: datetime, number: int, most: int) -> Bar:
    height = max(1.0, round(HEIGHT * number / most, 1)) if number else 0.0
    return Bar(STEP * index, HEIGHT - height, height, f"{hour:%H:%M} UTC: {number:,}")
