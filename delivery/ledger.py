"""The one door for a change of a delivery: a conditional UPDATE from the table of moves, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from newsletter.models import Transition, database_now, update_returning
from newsletter.models.transition import Subject

from .models.email_delivery import OPEN, EmailDeliveryQuerySet
from .moves import PENDING, Move


def move(
    line: Move,
    rows: EmailDeliveryQuerySet,
    *,
    facts: Mapping[str, Any] | None = None,
    fields: tuple[str, ...] = ("id",),
    note: str = "",
    actor: str = "",
    **values: Any,
) -> list[tuple[Any, ...]]:
    """Move those of `rows` for which the line's needs hold; the `fields` of those that were won, the id first.

    `facts` are what the needs ask for. `values` are further columns. In the caller's transaction history gets a line
    for each row, with `note` (else the column's `reason`) and `actor`; a plain move needs none.
    """
    won = []
    for old in line.old:
        found = _update(line, rows.filter(status=old), dict(facts or {}), fields, values)
        if not line.plain:
            ids = (id for id, *_ in found)
            why = note or str(values.get("reason", ""))
            Transition.objects.record(Subject.DELIVERY, ids, old, line.new, why, actor)
        won += found
    return won


def _update(
    line: Move,
    rows: EmailDeliveryQuerySet,
    facts: dict[str, Any],
    fields: tuple[str, ...],
    values: dict[str, Any],
) -> list[tuple[Any, ...]]:
    changes: dict[str, Any] = {"status": line.new}
    if line.new == PENDING:
        changes |= {"settled_at": None, "sender": None, "fence": None}
    elif line.new not in OPEN:
        changes |= {"settled_at": database_now(), "sender": None}
    return update_returning(rows.open_to(line, **facts), fields, **(changes | values))
