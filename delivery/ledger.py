"""The one door for a change of a delivery: a conditional UPDATE from the table of moves, and its history.

In two forms: `move` for any rows, written anew each time, and `Prepared` for the moves that every copy makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import BigIntegerField, Case, CharField, When
from django.db.models.functions import Now

from newsletter.models import Given, GivenUpdate, Statement, Transition, update_returning
from newsletter.models.transition import Subject

from .models import EmailDelivery
from .models.email_delivery import OPEN, EmailDeliveryQuerySet, legal
from .models.ledger_tally import Changes
from .moves import PENDING, Move

ID = Given("id", BigIntegerField())
ATTEMPT = Given("attempt", BigIntegerField())
REPLY = Given("reply", CharField())
MESSAGE_ID = Given("message_id", CharField())


def move(
    line: Move,
    rows: EmailDeliveryQuerySet,
    *,
    facts: Mapping[str, Any] | None = None,
    fields: tuple[str, ...] = ("id",),
    note: str = "",
    actor: str = "",
    changes: Changes | None = None,
    **values: Any,
) -> list[tuple[Any, ...]]:
    """Move those of `rows` for which the line's needs hold; the `fields` of those that were won, the id first.

    `facts` are what the needs ask for. `values` are further columns. In the caller's transaction history gets a line
    for each row, with `note` (else the column's `reason`) and `actor`; a plain move needs none. What pages show is
    counted in `changes`, which its owner writes; without them it is written at once.
    """
    won = []
    counted = changes if changes is not None else Changes()
    wanted = (*fields, "issue_id")
    for old in line.old:
        allowed = rows.filter(status=old).open_to(line, **dict(facts or {}))
        found = update_returning(allowed, wanted, **(_columns(line) | values))
        if not line.plain:
            ids = (row[0] for row in found)
            why = note or str(values.get("reason", ""))
            Transition.objects.record(Subject.DELIVERY, ids, old, line.new, why, actor)
        for issue_id, number in Counter(row[-1] for row in found).items():
            counted.count(issue_id, old, line.new, number)
        won += [row[:-1] for row in found]
    if changes is None:
        counted.write()
    return won


class Prepared:
    """A plain move from one status, of rows of one issue that are given by their id and what else `given` names.

    Written once. Its needs, facts and columns are those of `move`, where a value may be one of `given`.
    """

    def __init__(
        self,
        line: Move,
        issue_id: int,
        given: Sequence[Given] = (ID,),
        *,
        facts: Mapping[str, Any] | None = None,
        fields: tuple[str, ...] = ("id",),
        **values: Any,
    ) -> None:
        assert line.plain, "history is written by `move`"
        self.line, self._issue = line, issue_id
        # In a CASE no planner sees through it: with statistics from before the freeze both databases looked for the
        # rows by another index than their id, and read the whole ledger for each group.
        allowed = Case(When(legal(line, facts or {}), then=True), default=False)
        rows = EmailDelivery.objects.filter(allowed, id=ID)
        values = _columns(line) | values
        self.update = GivenUpdate(f"carteiro_{line.name}", rows, given, fields, **values)

    def statement(self, rows: Sequence[tuple[Any, ...]]) -> Statement | None:
        """For `run_together`; what it returns is for `counted`."""
        return self.update.statement(rows)

    def counted(self, won: list[tuple[Any, ...]], changes: Changes) -> list[tuple[Any, ...]]:
        """The `fields` of the rows that were won, the id first."""
        changes.count(self._issue, self.line.old[0], self.line.new, len(won))
        return won


def _columns(line: Move) -> dict[str, Any]:
    changes: dict[str, Any] = {"status": line.new}
    if line.new == PENDING:
        changes |= {"settled_at": None, "sender": None, "fence": None}
    elif line.new not in OPEN:
        changes |= {"settled_at": Now(), "sender": None}
    return changes
