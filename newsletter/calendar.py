"""Local times, with what daylight saving does to them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def at_local(day: date, at: time, zone: str) -> datetime:
    """The UTC instant at which the zone's clocks show `day at`; in a gap the next valid minute, in an overlap
    the first of the two (PEP 495)."""
    local = datetime.combine(day, at, ZoneInfo(zone)).replace(fold=0)
    while not _exists(local):
        local = (local.replace(tzinfo=None) + timedelta(minutes=1)).replace(tzinfo=ZoneInfo(zone))
    return local.astimezone(UTC)


def _exists(local: datetime) -> bool:
    back = local.astimezone(UTC).astimezone(local.tzinfo)
    return back.replace(tzinfo=None) == local.replace(tzinfo=None)
