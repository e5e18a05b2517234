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
from .ledger import move
from .models import EmailDelivery
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


def record(issue: Issue, results: list[Result]) -> list[Result]:
    """Write the results in the caller's transaction; those that changed a row.

    `issue` is as that transaction reads it.
    """
    return [result for result in results if _RECORD[result.outcome.verdict](issue, result)]


def _sent(issue: Issue, result: Result) -> bool:
    known = {"reason": "", "provider_message_id": result.outcome.message_id[:200]}
    if _move(moves.ACCEPT, result, **known):
        return True
    late = "late result of that attempt"
    if _move(moves.ACCEPT_LATE, result, note=late, **known):
        return True
    _note_late(result)
    return False


def _failed(issue: Issue, result: Result) -> bool:
    # Its holder heard the refusal: that is evidence, also where the recovery had to call it unknown.
    if not _move(moves.REFUSE, result, reason=result.outcome.reason[:100]):
        return False
    if result.outcome.suppress:
        _suppress(result)
    return True


def _unknown(issue: Issue, result: Result) -> bool:
    return _move(moves.DOUBT, result, reason=result.outcome.reason[:100])


def _retry_channel(issue: Issue, result: Result) -> bool:
    """Not accepted, and no attempt of the recipient's spent. The row that met it goes behind the others, where it was
    one row's answer: one reader whose server says 4.7.1 for ever must not be the first of every turn."""
    refusals = {"dot_refusals": F("dot_refusals") + 1} if result.outcome.dot_tempfail else {}
    of_the_row = result.outcome.phase in ROWS_OWN and result.outcome.reason not in SERVERS_OWN
    at = database_now() + timedelta(seconds=_full_jitter(0)) if of_the_row else None
    moved = _give_back(issue, result, at, **refusals)
    if result.outcome.dot_tempfail:
        _fail_spent(result, "refused_at_the_dot", dot_refusals__gte=MAX_DOT_REFUSALS)
    return moved


def _retry_recipient(issue: Issue, result: Result) -> bool:
    spent = (
        EmailDelivery.objects.filter(pk=result.delivery_id)
        .values_list("attempts_spent", flat=True)
        .first()
        or 0
    )
    at = database_now() + timedelta(seconds=_full_jitter(spent))
    moved = _give_back(issue, result, at, attempts_spent=F("attempts_spent") + 1)
    _fail_spent(result, "attempts_spent", attempts_spent__gte=settings.DELIVERY_ATTEMPTS)
    return moved


def _full_jitter(spent: int) -> float:
    """Anything up to twice the last bound: recipients that were deferred together do not come back together."""
    bound = min(2.0 * settings.DELIVERY_RETRY_SECONDS * 2.0**spent, LONGEST_WAIT)
    return random.uniform(0, bound)  # noqa: S311


_RECORD: dict[Verdict, Callable[[Issue, Result], bool]] = {
    Verdict.SENT: _sent,
    Verdict.FAILED: _failed,
    Verdict.UNKNOWN: _unknown,
    Verdict.RETRY_CHANNEL: _retry_channel,
    Verdict.PAUSE: _retry_channel,
    Verdict.RETRY_RECIPIENT: _retry_recipient,
}


def _move(line: Move, result: Result, **values: Any) -> bool:
    """The move of one result's row, where it is still that attempt's to make."""
    facts = {"attempt": result.attempt}
    rows = EmailDelivery.objects.filter(pk=result.delivery_id)
    reply = result.outcome.reply[:500]
    actor = f"attempt {result.attempt}"
    return bool(move(line, rows, facts=facts, actor=actor, reply=reply, **values))


def _give_back(issue: Issue, result: Result, at: Any, **values: Any) -> bool:
    """-> pending, also from `unknown`: its holder knows better. A cancelled issue sends no more: -> skipped."""
    values |= {"next_attempt_at": at, "fence": None}
    if issue.state == IssueState.CANCELLED:
        note = result.outcome.reason
        return _move(moves.DROP, result, reason="cancelled", note=note, **values)
    return _move(moves.GIVE_BACK, result, reason=result.outcome.reason[:100], **values)


def _fail_spent(result: Result, reason: str, **spent: int) -> None:
    facts = {"spent": spent}
    rows = EmailDelivery.objects.filter(pk=result.delivery_id, attempt=result.attempt)
    actor = f"attempt {result.attempt}"
    move(moves.FAIL_SPENT, rows, facts=facts, actor=actor, reason=reason)


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
