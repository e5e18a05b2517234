"""What becomes of `unknown` rows: evidence settles them, or an operator's word. Silence never does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.db import transaction
from django.db.models import F

from newsletter.models import Issue, Refused, Transition, database_now
from newsletter.models.gate import queue_for_issue
from newsletter.models.issue import IssueState
from newsletter.models.transition import Subject

from . import moves, sending
from .ledger import move
from .models import EmailDelivery, IssueReport
from .models.email_delivery import EmailDeliveryQuerySet
from .models.ledger_tally import Changes
from .moves import Move
from .redaction import redact_text

BATCH = 500  # rows a transaction

Apply = Callable[[Issue, EmailDeliveryQuerySet, Changes], int]


def prove(
    ids: Iterable[int],
    *,
    sent: bool,
    source: str,
    detail: str = "",
    provider_message_id: str = "",
    resend_no: int | None = None,
) -> int:
    """Somebody else's record says what became of these rows; how many it settled.

    Accepted: `unknown` and `failed` -> `sent`. Not accepted: `unknown` -> `failed`. `source` names the record, `detail`
    quotes it; both stand in the row and in its history. `resend_no`: the copy that it speaks of; that one was not
    accepted says nothing of the next. Twice is harmless.
    """
    line = moves.PROVE_SENT if sent else moves.PROVE_FAILED
    quoted = redact_text(detail)
    values: dict[str, Any] = {"reason": source[:100]}
    if quoted:
        values["reply"] = quoted[:500]
    if provider_message_id:
        values["provider_message_id"] = provider_message_id[:200]
    note = f"{source}: {quoted}" if quoted else source
    won = 0
    for batch in _batches(ids):
        with transaction.atomic():
            rows = EmailDelivery.objects.filter(pk__in=batch)
            if resend_no is not None and not sent:
                rows = rows.filter(resend_no=resend_no)
            won += len(move(line, rows, note=note, actor=source, **values))
    return won


def mark_sent(ids: Iterable[int], *, actor: str, reason: str) -> int:
    """An operator's word: `unknown` and `failed` -> `sent`; how many. Refused without a reason."""
    return _by_word(moves.WORD_SENT, ids, actor, reason)


def mark_failed(ids: Iterable[int], *, actor: str, reason: str) -> int:
    """An operator's word: `unknown` -> `failed`; how many. Refused without a reason."""
    return _by_word(moves.WORD_FAILED, ids, actor, reason)


def resend(ids: Iterable[int], *, actor: str, reason: str) -> int:
    """An operator's decision for a second copy: `unknown` -> `pending`, with the next resend number; how many.

    The attempts, and the hours until it expires, begin anew; the senders are woken, also where the issue is `sent`.
    Refused without a reason, or where an issue is cancelled.
    """
    why = _required(reason)

    def again(issue: Issue, rows: EmailDeliveryQuerySet, changes: Changes) -> int:
        if issue.state == IssueState.CANCELLED:
            raise Refused(f"{issue.label} is cancelled: nothing of it is sent any more.")
        won = move(
            moves.RESEND,
            rows,
            note=f"resent by an operator: {why}",
            actor=actor,
            changes=changes,
            resend_no=F("resend_no") + 1,
            resent_at=database_now(),
            attempts_spent=0,
            dot_refusals=0,
            next_attempt_at=None,
            reason="",
        )
        if won:
            sending.wake(issue, hurry=True)
        return len(won)

    return _told(ids, again, "resent", actor, why)


def note_evidence(row: EmailDelivery, text: str, *, source: str) -> None:
    """Evidence that the row's status does not follow: for whoever asks what became of it."""
    said = f"late evidence: {redact_text(text)}"
    Transition.objects.record(Subject.DELIVERY, [row.pk], row.status, row.status, said, source)


def _by_word(line: Move, ids: Iterable[int], actor: str, reason: str) -> int:
    why = _required(reason)

    def say(issue: Issue, rows: EmailDeliveryQuerySet, changes: Changes) -> int:
        note = f"an operator's word: {why}"
        won = move(line, rows, note=note, actor=actor, changes=changes, reason="operator")
        return len(won)

    return _told(ids, say, f"marked {line.new}", actor, why)


def _required(reason: str) -> str:
    if not reason.strip():
        raise Refused("Say why: the reason stands in the history of each row.")
    return reason.strip()


def _told(ids: Iterable[int], apply: Apply, what: str, actor: str, reason: str) -> int:
    """Apply it issue by issue, in one transaction. Each row has it in its history, each issue one line for all."""
    won: Counter[Issue] = Counter()
    changes = Changes()  # written last: who waits for rows holds no figures
    with transaction.atomic():
        for batch in _batches(ids):
            rows = EmailDelivery.objects.filter(pk__in=batch)
            for issue in _issues_of(rows):
                # A cancel that comes now waits, and then skips what is pending.
                queue_for_issue(issue.pk, shared=True)
                issue.refresh_from_db(fields=["state"])
                won[issue] += apply(issue, rows.of(issue.pk), changes)
        for issue, count in won.items():
            if count:
                issue.note(f"{count} of unknown fate {what}: {reason}", actor=actor)
                # What comes of a resend may leave the tally as it was: the stored report would stand for good.
                IssueReport.objects.filter(pk=issue.pk).delete()
        changes.write()
    return won.total()


def _issues_of(rows: EmailDeliveryQuerySet) -> list[Issue]:
    issues = Issue.objects.select_related("newsletter").filter(pk__in=rows.values("issue_id"))
    return list(issues.order_by("pk"))


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), BATCH):
        yield wanted[start : start + BATCH]
