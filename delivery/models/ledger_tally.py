"""The ledger in figures, for pages: who changes rows writes here what it changed, in the same transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from django.db import models
from django.db.models import Sum

from delivery.moves import STATUSES, Move
from newsletter.models import Issue, Statement, run_together

_COLUMNS = ", ".join(STATUSES)
_ADDED = ", ".join(f"{name} = delivery_ledgertally.{name} + excluded.{name}" for name in STATUSES)
_INSERT = f"INSERT INTO delivery_ledgertally (issue_id, holder, {_COLUMNS})"
_ADD = f"ON CONFLICT (issue_id, holder) DO UPDATE SET {_ADDED} RETURNING 1"
_GIVEN = f"{_INSERT} VALUES (%s, %s, {', '.join(['%s'] * len(STATUSES))}) {_ADD}"


class LedgerTallyQuerySet(models.QuerySet["LedgerTally"]):
    def figures(self, issue_id: int) -> dict[str, int] | None:
        """Status -> rows of the issue. None: it has no tally, and only a count can tell."""
        return self.figures_of([issue_id]).get(issue_id)

    def figures_of(self, issue_ids: Iterable[int]) -> dict[int, dict[str, int]]:
        """The same for several issues; those without a tally are left out."""
        sums = {name: Sum(name) for name in STATUSES}
        rows = self.filter(issue__in=issue_ids).order_by().values("issue_id", "issue__audience")
        found = {}
        for issue_id, audience, *counted in rows.annotate(**sums).values_list(
            "issue_id", "issue__audience", *sums
        ):
            # A move changes no sum: where it is another than the audience, the freeze did not begin this tally.
            if sum(counted) == audience:
                found[issue_id] = dict(zip(STATUSES, map(int, counted), strict=True))
        return found


class LedgerTally(models.Model):
    """One row for each (issue, holder): senders have their own, so that none of them waits for another."""

    issue = models.ForeignKey(Issue, models.CASCADE, db_index=False)
    # A sender's lease; 0: the freeze, and everybody else.
    holder = models.BigIntegerField(default=0)
    pending = models.BigIntegerField(default=0)
    sending = models.BigIntegerField(default=0)
    sent = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    unknown = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)

    objects = LedgerTallyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="ledger_tally_once", fields=["issue", "holder"])
        ]

    def __str__(self) -> str:
        return f"tally of {self.issue_id} by {self.holder}"


class Changes:
    """What moves have changed; written once, at the end of their transaction."""

    def __init__(self, holder: int = 0) -> None:
        self._holder = holder
        self._changed: dict[int, Counter[str]] = {}

    def count(self, issue_id: int, old: str, new: str, rows: int) -> None:
        """So many rows of the issue went from `old` to `new`."""
        if old == new or not rows:
            return
        changed = self._changed.setdefault(issue_id, Counter())
        changed[old] -= rows
        changed[new] += rows

    def write(self) -> None:
        """Add them to the tally; issues in the order of their ids, so that no two wait for each other."""
        figures = (
            (issue_id, self._holder, *(changed[status] for status in STATUSES))
            for issue_id, changed in sorted(self._changed.items())
        )
        run_together([Statement(_GIVEN, row) for row in figures if any(row[2:])])
        self._changed.clear()


def adding(issue_id: int, holder: int, won: Mapping[str, Move]) -> Statement:
    """What adds moves to the tally in the statement that makes them, where each has a table of its rows, so named."""
    count = {name: f"(SELECT count(*) FROM {name})" for name in won}  # noqa: S608 - made of our own names
    figures = []
    for status in STATUSES:
        come = [f"+ {count[name]}" for name, line in won.items() if line.new == status]
        gone = [f"- {count[name]}" for name, line in won.items() if line.old[0] == status]
        figures.append(" ".join(["0", *come, *gone]))
    return Statement(f"{_INSERT} SELECT %s, %s, {', '.join(figures)} {_ADD}", [issue_id, holder])
