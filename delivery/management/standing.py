"""Whether everything is held, and what is under way: as `house` and `confirm_database` print it."""

from __future__ import annotations

from typing import Any

from delivery import holding, sending, witness
from delivery.models import House
from delivery.models.email_delivery import DeliveryStatus


def standing() -> dict[str, Any]:
    """As JSON takes it. `witness` is the number there; None: there is none, or `trouble` says why not."""
    house = House.read()
    said, trouble = None, ""
    try:
        said = witness.read()
    except witness.WitnessTrouble as error:
        trouble = error.message
    return {
        "standing": house.standing,
        "doubt": house.doubt,
        "doubted_at": house.doubted_at and house.doubted_at.isoformat(),
        "paused_reason": house.paused_reason,
        "paused_by": house.paused_by,
        "paused_at": house.paused_at and house.paused_at.isoformat(),
        "number": house.releases,
        "witness": said.releases if said else None,
        "trouble": trouble,
        "under_way": [sending.books(issue) for issue in holding.under_way()],
    }


def print_standing(out: Any) -> None:
    """The same for people."""
    found = standing()
    if found["standing"] == "open":
        out.write("Nothing is held.")
    if found["doubt"]:
        out.write(f"This database is not believed since {found['doubted_at']:.16} UTC:")
        out.write(f"  {found['doubt']}.")
        out.write("  Settle what is under way, then: confirm_database")
    if found["paused_at"]:
        out.write(
            f"Everything is paused since {found['paused_at']:.16} UTC by {found['paused_by']}:"
        )
        out.write(f"  {found['paused_reason']}")
        out.write("  To go on: house resume")
    known = "none" if found["witness"] is None else found["witness"]
    out.write(
        f"Number of turns: {found['number']} here, {found['trouble'] or known} in the witness."
    )
    for books in found["under_way"]:
        out.write(f"{books['issue']}: {_figures(books)}")
    if not found["under_way"]:
        out.write("Nothing is under way.")


def _figures(books: dict[str, Any]) -> str:
    counts = ", ".join(f"{books[status]} {status}" for status in DeliveryStatus.values)
    held = " (paused)" if books["paused"] else ""
    return f"{books['state']}{held}, " + (
        f"audience {books['audience']}: {counts}" if books["audience"] else "no audience yet"
    )
