"""The ledger in figures, for pages: who changes rows writes here what it changed, in the same transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from django.db import models
from django.db.models import Sum

from delivery.moves import STATUSES
from newsletter.models import Issue, Statement, run_together

_COLUMNS = ", ".join(STATUSES)
_ADDED = ", ".join(f"{name} = delivery_ledgertally.{name} + excluded.{name}" for name in STATUSES)
_ADD = f"""
INSERT INTO delivery_ledgertally (issue_id, holder, {_COLUMNS}) VALUES (%s, %s, {", ".join(["%s"] * len(STATUSES))})
ON CONFLICT (issue_id, holder) DO UPDATE SET {_ADDED} RETURNING 1
"""  # noqa: S608 - made of our own names


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

    def foretold(self) -> list[Statement]:
        """What adds them to the tally before they happened, so that it goes along with what is to change the rows.

        Count afterwards what came of that: `write` adds the difference, mostly none.
        """
        statements = self._statements()
        for changed in self._changed.values():
            for status in changed:
                changed[status] = -changed[status]
        return statements

    def write(self) -> None:
        """Add them to the tally."""
        run_together(self._statements())
        self._changed.clear()

    def _statements(self) -> list[Statement]:
        """Issues in the order of their ids, so that no two wait for each other."""
        figures = (
            (issue_id, self._holder, *(changed[status] for status in STATUSES))
            for issue_id, changed in sorted(self._changed.items())
        )
        return [Statement(_ADD, row) for row in figures if any(row[2:])]
