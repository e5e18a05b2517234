"""What a sender does at most of its commits: results in, next starts out, the tally told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from newsletter.models import GivenUpdates, run_together
from newsletter.models.gate import both_gates

from . import moves
from .ledger import Prepared
from .models import Lease
from .models.ledger_tally import Changes, adding

Rows = list[tuple[Any, ...]]


def prepared_start(issue_id: int, lease: Lease) -> Prepared:
    """START, by the holder of this lease; it returns (id, attempt)."""
    return Prepared(
        moves.START,
        issue_id,
        facts={"lease": lease},
        fields=("id", "attempt"),
        sender=lease.pk,
        fence=lease.fence,
        attempt=F("attempt") + 1,
        sending_at=Now(),
        next_attempt_at=None,
        reason="",
        reply="",
    )


class Exchange:
    """`accept` and `start` of an issue's rows, by the holder of a tally, in a transaction of their own.

    PostgreSQL is told it all in one message, and answers after its commit: BEGIN and COMMIT on their own were two
    more waits, a seventh of a sender's time with a window of 8.
    """

    def __init__(self, issue_id: int, accept: Prepared, start: Prepared, holder: int) -> None:
        self._issue, self._accept, self._start, self._holder = issue_id, accept, start, holder
        if connection.vendor != "postgresql":
            return
        told = adding(issue_id, holder, {"accepted": accept.line, "started": start.line})
        self._together = GivenUpdates(
            "carteiro_exchange",
            {"accepted": accept.update, "started": start.update},
            told,
            "SELECT id, NULL FROM accepted UNION ALL SELECT id, attempt FROM started",
        )

    def run(
        self,
        results: Sequence[tuple[Any, ...]],
        starts: Sequence[tuple[Any, ...]],
        meanwhile: Iterable[object] = (),
    ) -> tuple[Rows, Rows]:
        """The rows that were won of each: (id,) and (id, attempt). Committed, unless the caller has a transaction.

        `meanwhile` as in `run_together`.
        """
        if connection.vendor == "postgresql":
            asked = self._together.statement([results, starts])
            _, won = run_together([both_gates(self._issue), asked], meanwhile)
            accepted = [(id,) for id, attempt in won if attempt is None]
            return accepted, [row for row in won if row[1] is not None]
        changes = Changes(self._holder)
        with transaction.atomic():
            accepted, started = run_together(
                [self._accept.statement(results), self._start.statement(starts)]
            )
            self._accept.counted(accepted, changes)
            self._start.counted(started, changes)
            changes.write()
        return accepted, started
