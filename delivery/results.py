"""What came of an attempt, written to its row. A result matches on (id, attempt); a second time it changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import F

from newsletter.models import Issue, Suppression, Transition, database_now
from newsletter.models.issue import IssueState
from newsletter.models.suppression import SuppressionReason
from newsletter.models.transition import Subject

from . import moves
from .ledger import ATTEMPT, ID, MESSAGE_ID, REPLY, Prepared, move
from .models import EmailDelivery
from .models.ledger_tally import Changes
from .moves import Move
from .transports.outcomes import Outcome, Phase, Verdict

MAX_DOT_REFUSALS = 5
ROWS_OWN = (
    Phase.RCPT,
    Phase.DATA,
    Phase.DOT,
)  # an answer about this message, not about the connection
SERVERS_OWN = ("service_closing", "dropped", "timed_out")
LONGEST_WAIT = 6 * 3600.0  # seconds between two attempts for one recipient


@dataclass(frozen=True)
class Result:
    delivery_id: int
    attempt: int
    outcome: Outcome


def prepared_accept(issue_id: int) -> Prepared:
    """ACCEPT for all the copies that were just taken; `accepted` has what it is given."""
    given = (ID, ATTEMPT, REPLY, MESSAGE_ID)
    return Prepared(
        moves.ACCEPT,
        issue_id,
        given,
        facts={"attempt": ATTEMPT},
        reason="",
        reply=REPLY,
        provider_message_id=MESSAGE_ID,
    )


def accepted(result: Result) -> tuple[int, int, str, str]:
    """A row for `prepared_accept`."""
    outcome = result.outcome
    return result.delivery_id, result.attempt, outcome.reply[:500], outcome.message_id[:200]


def record(issue: Issue, results: list[Result], changes: Changes | None = None) -> list[Result]:
    """Write the results in the caller's transaction; those that changed a row.

    `issue` is as that transaction reads it. `changes` are the caller's to write.
    """
    counted = changes if changes is not None else Changes()
    changed = [r for r in results if _RECORD[r.outcome.verdict](issue, r, counted)]
    if changes is None:
        counted.write()
    return changed


def _sent(issue: Issue, result: Result, changes: Changes) -> bool:
    known = {"reason": "", "provider_message_id": result.outcome.message_id[:200]}
    if _move(moves.ACCEPT, result, changes, **known):
        return True
    late = "late result of that attempt"
    if _move(moves.ACCEPT_LATE, result, changes, note=late, **known):
        return True
    _note_late(result)
    return False


def _failed(issue: Issue, result: Result, changes: Changes) -> bool:
    # Its holder heard the refusal: that is evidence, also where the recovery had to call it unknown.
    if not _move(moves.REFUSE, result, changes, reason=result.outcome.reason[:100]):
        return False
    if result.outcome.suppress:
        _suppress(result)
    return True


def _unknown(issue: Issue, result: Result, changes: Changes) -> bool:
    return _move(moves.DOUBT, result, changes, reason=result.outcome.reason[:100])


def _retry_channel(issue: Issue, result: Result, changes: Changes) -> bool:
    """Not accepted, and no attempt of the recipient's spent. The row that met it goes behind the others, where it was
    one row's answer: one reader whose server says 4.7.1 for ever must not be the first of every turn."""
    refusals = {"dot_refusals": F("dot_refusals") + 1} if result.outcome.dot_tempfail else {}
    of_the_row = result.outcome.phase in ROWS_OWN and result.outcome.reason not in SERVERS_OWN
    at = database_now() + timedelta(seconds=_full_jitter(0)) if of_the_row else None
    moved = _give_back(issue, result, changes, at, **refusals)
    if result.outcome.dot_tempfail:
        _fail_spent(result, changes, "refused_at_the_dot", dot_refusals__gte=MAX_DOT_REFUSALS)
    return moved


def _retry_recipient(issue: Issue, result: Result, changes: Changes) -> bool:
    spent = (
        EmailDelivery.objects.filter(pk=result.delivery_id)
        .values_list("attempts_spent", flat=True)
        .first()
        or 0
    )
    at = database_now() + timedelta(seconds=_full_jitter(spent))
    moved = _give_back(issue, result, changes, at, attempts_spent=F("attempts_spent") + 1)
    spent_all = {"attempts_spent__gte": settings.DELIVERY_ATTEMPTS}
    _fail_spent(result, changes, "attempts_spent", **spent_all)
    return moved


def _full_jitter(spent: int) -> float:
    """Anything up to twice the last bound: recipients that were deferred together do not come back together."""
    bound = min(2.0 * settings.DELIVERY_RETRY_SECONDS * 2.0**spent, LONGEST_WAIT)
    return random.uniform(0, bound)  # noqa: S311


_RECORD: dict[Verdict, Callable[[Issue, Result, Changes], bool]] = {
    Verdict.SENT: _sent,
    Verdict.FAILED: _failed,
    Verdict.UNKNOWN: _unknown,
    Verdict.RETRY_CHANNEL: _retry_channel,
    Verdict.PAUSE: _retry_channel,
    Verdict.RETRY_RECIPIENT: _retry_recipient,
}


def _move(line: Move, result: Result, changes: Changes, **values: Any) -> bool:
    """The move of one result's row, where it is still that attempt's to make."""
    facts = {"attempt": result.attempt}
    rows = EmailDelivery.objects.filter(pk=result.delivery_id)
    reply = result.outcome.reply[:500]
    actor = f"attempt {result.attempt}"
    won = move(line, rows, facts=facts, actor=actor, changes=changes, reply=reply, **values)
    return bool(won)


def _give_back(issue: Issue, result: Result, changes: Changes, at: Any, **values: Any) -> bool:
    """-> pending, also from `unknown`: its holder knows better. A cancelled issue sends no more: -> skipped."""
    values |= {"next_attempt_at": at, "fence": None}
    if issue.state == IssueState.CANCELLED:
        note = result.outcome.reason
        return _move(moves.DROP, result, changes, reason="cancelled", note=note, **values)
    return _move(moves.GIVE_BACK, result, changes, reason=result.outcome.reason[:100], **values)


def _fail_spent(result: Result, changes: Changes, reason: str, **spent: int) -> None:
    facts = {"spent": spent}
    rows = EmailDelivery.objects.filter(pk=result.delivery_id, attempt=result.attempt)
    actor = f"attempt {result.attempt}"
    move(moves.FAIL_SPENT, rows, facts=facts, actor=actor, changes=changes, reason=reason)


def _note_late(result: Result) -> None:
    """Accepted, and the row has gone on meanwhile: evidence for whoever asks, and nothing to apply."""
    row = EmailDelivery.objects.filter(pk=result.delivery_id).first()
    if row is None or (row.status == moves.SENT and row.attempt == result.attempt):
        return  # the same result once more
    text = f"late evidence: attempt {result.attempt} was accepted"
    actor = f"attempt {result.attempt}"
    Transition.objects.record(Subject.DELIVERY, [row.pk], row.status, row.status, text, actor)


def _suppress(result: Result) -> None:
    """Not by `add`: a sender holds the gate already, shared, and it is nobody's no."""
    key = EmailDelivery.objects.values_list("address_key", flat=True).get(pk=result.delivery_id)
    Suppression.objects.get_or_create(
        address_key=key,
        defaults={"reason": SuppressionReason.BAD_ADDRESS, "detail": result.outcome.reply[:500]},
    )
