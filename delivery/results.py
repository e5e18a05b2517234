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

from .models import EmailDelivery
from .models.email_delivery import DeliveryStatus, EmailDeliveryQuerySet
from .transports.outcomes import Outcome, Verdict

MAX_DOT_REFUSALS = 5


@dataclass(frozen=True)
class Result:
    delivery_id: int
    attempt: int
    outcome: Outcome


def record(issue: Issue, results: list[Result]) -> None:
    """Write the results in the caller's transaction; `issue` is as that transaction reads it."""
    for result in results:
        _RECORD[result.outcome.verdict](issue, result)


def _sent(issue: Issue, result: Result) -> None:
    _settle(result, DeliveryStatus.SENT, result.outcome.reason, late=("unknown", "failed"))


def _failed(issue: Issue, result: Result) -> None:
    # Its holder heard the refusal: that is evidence, also where the recovery had to call it unknown.
    _settle(result, DeliveryStatus.FAILED, result.outcome.reason, late=("unknown",))
    if result.outcome.suppress:
        _suppress(result)


def _unknown(issue: Issue, result: Result) -> None:
    _settle(result, DeliveryStatus.UNKNOWN, result.outcome.reason)


def _retry_channel(issue: Issue, result: Result) -> None:
    """Not accepted, and not the recipient's fault: at once due again, when the channel is."""
    refusals = {"dot_refusals": F("dot_refusals") + 1} if result.outcome.dot_tempfail else {}
    _give_back(issue, result, None, **refusals)
    if result.outcome.dot_tempfail:
        _fail_spent(result, "refused_at_the_dot", dot_refusals__gte=MAX_DOT_REFUSALS)


def _retry_recipient(issue: Issue, result: Result) -> None:
    spent = (
        EmailDelivery.objects.filter(pk=result.delivery_id)
        .values_list("attempts_spent", flat=True)
        .first()
        or 0
    )
    delay = random.uniform(0.5, 1) * settings.DELIVERY_RETRY_SECONDS * 2**spent  # noqa: S311
    at = database_now() + timedelta(seconds=delay)
    _give_back(issue, result, at, attempts_spent=F("attempts_spent") + 1)
    _fail_spent(result, "attempts_spent", attempts_spent__gte=settings.DELIVERY_ATTEMPTS)


_RECORD: dict[Verdict, Callable[[Issue, Result], None]] = {
    Verdict.SENT: _sent,
    Verdict.FAILED: _failed,
    Verdict.UNKNOWN: _unknown,
    Verdict.RETRY_CHANNEL: _retry_channel,
    Verdict.PAUSE: _retry_channel,
    Verdict.RETRY_RECIPIENT: _retry_recipient,
}


def _of(result: Result) -> EmailDeliveryQuerySet:
    return EmailDelivery.objects.filter(pk=result.delivery_id, attempt=result.attempt)


def _settle(result: Result, status: str, reason: str, late: tuple[str, ...] = ()) -> None:
    values: dict[str, Any] = {
        "status": status,
        "reason": "" if status == DeliveryStatus.SENT else reason[:100],
        "reply": result.outcome.reply[:500],
        "settled_at": database_now(),
        "sender": None,
    }
    if _of(result).filter(status=DeliveryStatus.SENDING).update(**values):
        if status != DeliveryStatus.SENT:
            _history(result, DeliveryStatus.SENDING, status, reason)
        return
    for old in late:
        if _of(result).filter(status=old).update(**values):
            _history(result, old, status, "late result of that attempt")


def _give_back(issue: Issue, result: Result, at: Any, **values: Any) -> None:
    """-> pending, or where the issue has ended meanwhile to what it can still be. Also from `unknown`: its holder
    knows better."""
    ended = {
        IssueState.CANCELLED: (DeliveryStatus.SKIPPED, "cancelled"),
        IssueState.SENT: (DeliveryStatus.FAILED, "not accepted, known after the close"),
    }
    status, reason = ended.get(
        IssueState(issue.state), (DeliveryStatus.PENDING, result.outcome.reason[:100])
    )
    for old in (DeliveryStatus.SENDING, DeliveryStatus.UNKNOWN):
        moved = (
            _of(result)
            .filter(status=old)
            .update(
                status=status,
                reason=reason,
                reply=result.outcome.reply[:500],
                next_attempt_at=at,
                settled_at=None if status == DeliveryStatus.PENDING else database_now(),
                sender=None,
                fence=None,
                **values,
            )
        )
        if moved:
            _history(result, old, status, result.outcome.reason)


def _fail_spent(result: Result, reason: str, **condition: int) -> None:
    moved = (
        _of(result)
        .pending()
        .filter(**condition)
        .update(status=DeliveryStatus.FAILED, reason=reason, settled_at=database_now())
    )
    if moved:
        _history(result, DeliveryStatus.PENDING, DeliveryStatus.FAILED, reason)


def _suppress(result: Result) -> None:
    key = EmailDelivery.objects.values_list("address_key", flat=True).get(pk=result.delivery_id)
    Suppression.objects.get_or_create(
        address_key=key,
        defaults={"reason": SuppressionReason.BAD_ADDRESS, "detail": result.outcome.reply[:500]},
    )


def _history(result: Result, old: str, new: str, reason: str) -> None:
    Transition.objects.record(
        Subject.DELIVERY, [result.delivery_id], old, new, reason, f"attempt {result.attempt}"
    )
