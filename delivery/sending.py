"""The send: freeze the audience, drain the ledger, close by the balance."""

from __future__ import annotations

import secrets
import time
from datetime import datetime, timedelta
from functools import partial

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Min

from newsletter.models import Issue, database_now
from newsletter.models.gate import queue_for_issue
from newsletter.models.issue import IssueState
from newsletter.rendering import Slots, render_email

from . import breakers, moves, notifying, queue, witness
from .channel import CHANNEL
from .claims import lease_name, unclaimed
from .errors import BreakerOpen, ChannelTrouble
from .ledger import move
from .message import Mailbox, compile_message
from .models import CompiledIssue, EmailDelivery, Heartbeat, Lease, LedgerTally
from .models.email_delivery import OPEN, DeliveryStatus
from .models.job import Lane
from .moves import Move
from .outcome import Discard, Done, Outcome, Wait
from .retries import HOUR, Backoff, On
from .sender import Sender

log = structlog.get_logger(__name__)

BACKOFF = Backoff()
SETTLED_AT_ONCE = 2000  # rows a transaction
TICK_SECONDS = 10.0  # of a tick, for what was cancelled or is over
REQUEST_SECONDS = 2.0  # of a request; the ticks do the rest
# The rows of a server that stays away expire one by one; the job outlives them to say so.
DELIVER = (
    On(
        (ChannelTrouble, BreakerOpen, witness.WitnessTrouble),
        BACKOFF,
        times=10_000,
        within=lambda: (settings.DELIVERY_EXPIRY_HOURS + 24) * HOUR,
    ),
)

# The audience rule: confirmed for this newsletter, not erased, not suppressed. In the order of the keys: a million at
# random places of the ledger's unique index take five times as long.
FREEZE = """
INSERT INTO delivery_emaildelivery
    (issue_id, subscription_id, address, address_key, name, status,
     reason, reply, attempt, attempts_spent, dot_refusals, resend_no, provider_message_id)
SELECT %s, subscription.id, subscriber.address, subscriber.address_key, subscriber.name, 'pending',
     '', '', 0, 0, 0, 0, ''
FROM newsletter_subscription subscription
JOIN newsletter_subscriber subscriber ON subscriber.id = subscription.subscriber_id
WHERE subscription.newsletter_id = %s AND subscription.state = 'confirmed' AND subscriber.address <> ''
  AND NOT EXISTS (SELECT 1 FROM newsletter_suppression suppression
                  WHERE suppression.address_key = subscriber.address_key)
ORDER BY subscriber.address_key {collate}
"""
BY_BYTES = {"postgresql": 'COLLATE "C"'}  # SQLite's own order; a language's is slow to sort by


def compile_issue(issue: Issue) -> CompiledIssue:
    """The issue's MIME with its slots filled; not saved. Made once: the freeze stores it."""
    document = issue.approved_document()
    podcast = getattr(issue, "podcast", None)
    in_time = podcast.slot if podcast and podcast.state == "ready" else None
    approved = issue.snapshot or {}
    sender = Mailbox(document.sender_name, approved["from_email"])
    message = compile_message(
        render_email(document, Slots(in_time, issue.web_url)),
        sender=sender,
        list_id=approved["list_id"],
        date=database_now(),
        nonce=secrets.token_hex(12),
    )
    return CompiledIssue(issue=issue, content=message.to_json(), mail_from=sender.address)


def freeze(issue: Issue, compiled: CompiledIssue, *, actor: str) -> bool:
    """published -> sending, with the ledger of everybody who is owed a copy. False: nobody to mail, or not ours to do.

    Call it in the transaction of the step that it ends.
    """
    with transaction.atomic():
        queue_for_issue(issue.pk)
        fresh = Issue.objects.select_for_update().get(pk=issue.pk)
        if fresh.state != IssueState.PUBLISHED or fresh.audience_frozen_at or fresh.paused_at:
            return False
        audience = _insert_audience(fresh)
        if not audience:
            return False
        compiled.save(force_insert=True)
        LedgerTally.objects.create(issue=fresh, pending=audience)
        now = database_now()
        fresh.move(
            IssueState.SENDING,
            reason=f"audience frozen: {audience}",
            actor=actor,
            audience_frozen_at=now,
            audience=audience,
        )
        wake(fresh)
    return True


def wake(issue: Issue, *, hurry: bool = False) -> bool:
    """Make sure that senders are at work on the issue's ledger; True where one was missing."""
    want = queue.enqueue if hurry else queue.ensure
    missing = [
        want("deliver", key=f"deliver:{issue.pk}:{n}", issue_id=issue.pk, id=issue.pk, slot=n)
        for n in range(settings.WORKERS_BULK * _hosts())
    ]
    return any(missing)


def _hosts() -> int:
    """How many `work`s have bulk workers that live; one where none has told yet."""
    return max(1, Heartbeat.objects.fresh(database_now()).filter(lane=Lane.BULK).count())


def deliver(issue_id: int, slot: int) -> Outcome:
    """One sender's turn: hold the slot's lease, drain for SENDER_SECONDS, say how it goes on."""
    issue = Issue.objects.select_related("newsletter").filter(pk=issue_id).first()
    if issue is None:
        return Discard("the issue is gone")
    if not issue.may_send:
        return Done(f"nothing to send: {'paused' if issue.paused_at else issue.state}")
    if held := witness.look().why_held:
        return Done(f"nothing leaves: {held}")
    leased_at = time.monotonic()
    lease = Lease.acquire(lease_name(issue_id, slot))
    if lease is None:
        return Wait(settings.LEASE_SECONDS / 3, "another sender holds this slot")
    breaker = None
    try:
        witness.testify()
        breaker = breakers.enter(CHANNEL)
        sender = Sender(issue, lease, breaker, leased_at)
        sender.run()
        if sender.channel_trouble and (sender.doubted or not sender.answered):
            breaker.failed(sender.channel_trouble, sender.retry_after)
    finally:
        if breaker:
            breaker.leave()
        # Rows that are still `sending` here are unknown: the recovery finds them by the released lease.
        lease.release()
    return _how_it_goes_on(issue, sender)


def close(issue: Issue) -> Outcome:
    """sending -> sent: nothing pending or sending, and a fresh count equals the audience of the freeze."""
    if issue.state != IssueState.SENDING:
        return Done(f"nothing to close: {issue.state}")
    if owes(issue):
        return Done("rows are still open", partial(wake, issue))
    return Done("the books are closed", partial(_close, issue))


def books(issue: Issue) -> dict[str, int | bool | str | None]:
    """The ledger in figures: a fresh count by status, and whether it equals the frozen audience."""
    counts = EmailDelivery.objects.of(issue.pk).count_by_status()
    frozen = issue.audience is not None
    return {
        "issue": issue.label,
        "state": issue.state,
        "paused": issue.paused_at is not None,
        "audience": issue.audience,
        **counts,
        "balanced": frozen and sum(counts.values()) == issue.audience,
    }


def owes(issue: Issue) -> bool:
    """Whether a copy of it is pending or on the wire."""
    return EmailDelivery.objects.of(issue.pk).filter(status__in=OPEN).exists()


def skip_cancelled(issue: Issue, actor: str, seconds: float = TICK_SECONDS) -> int:
    """pending -> skipped, of a cancelled issue; the number of rows. What it does not reach in time is for the ticks."""
    return _settle_pending(issue, moves.SKIP_CANCELLED, "cancelled", actor, seconds)


def expire(issue: Issue) -> int:
    """pending -> failed, DELIVERY_EXPIRY_HOURS after the freeze, or the resend; the number of rows. What one tick does
    not reach is for the next."""
    before = database_now() - timedelta(hours=settings.DELIVERY_EXPIRY_HOURS)
    if not issue.audience_frozen_at or issue.audience_frozen_at > before:
        return 0
    facts = {"before": before}
    return _settle_pending(issue, moves.EXPIRE, "expired", "recovery", TICK_SECONDS, facts)


def _settle_pending(
    issue: Issue,
    line: Move,
    reason: str,
    actor: str,
    seconds: float,
    facts: dict[str, datetime] | None = None,
) -> int:
    """Batch by batch, each in a transaction of its own where the caller has none: a million rows fit in no memory."""
    end = time.monotonic() + seconds
    settled = 0
    while time.monotonic() < end:
        rows = EmailDelivery.objects.of(issue.pk).open_to(line, **(facts or {}))
        ids = list(rows.values_list("pk", flat=True)[:SETTLED_AT_ONCE])
        with transaction.atomic():
            batch = EmailDelivery.objects.filter(pk__in=ids)
            won = move(line, batch, facts=facts, reason=reason, actor=actor, fence=None)
        settled += len(won)
        if len(ids) < SETTLED_AT_ONCE:
            break
    return settled


def _insert_audience(issue: Issue) -> int:
    statement = FREEZE.format(collate=BY_BYTES.get(connection.vendor, ""))
    with connection.cursor() as cursor:
        cursor.execute(statement, [issue.pk, issue.newsletter_id])
        return int(cursor.rowcount)


def _how_it_goes_on(issue: Issue, sender: Sender) -> Outcome:
    sent = sender.sent
    if sender.pause_reason:
        pause = partial(_pause, issue, sender.pause_reason)
        return Done(f"paused: {sender.pause_reason}", pause, items=sent)
    if sender.channel_trouble:
        return _after_trouble(issue, sender)
    if not owes(issue):
        note = f"drained: {sent} sent in this turn"
        return Done(note, partial(_enqueue_close, issue), items=sent)
    if sender.wait_for_rate > settings.SENDER_SECONDS / 2:
        return _after_quota(issue, sender)
    if unclaimed(issue.pk).due().exists():
        return Wait(0, f"goes on: {sent} sent in this turn", items=sent)
    later = unclaimed(issue.pk).aggregate(at=Min("next_attempt_at"))["at"]
    if later is None:
        return Done("the other senders hold the rest", items=sent)
    seconds = max(1.0, (later - database_now()).total_seconds())
    return Wait(seconds, "waits for the next retry", items=sent)


def _after_quota(issue: Issue, sender: Sender) -> Outcome:
    """So far off that nobody waits for it at the wire."""
    note = f"the rate or the quota a day has no room: {sender.wait_for_rate / 60:.0f} minutes to go"
    if settings.DELIVERY_DAILY_QUOTA:
        notifying.tell(
            "quota_spent",
            f"“{issue.title}” waits for the quota of the day",
            note,
            "It goes on by itself. DELIVERY_DAILY_QUOTA is how many a day may leave.",
            level="warning",
            issue=issue,
            once=f"{database_now():%Y%m%d}",
        )
    return Wait(min(sender.wait_for_rate, 600.0), note, items=sender.sent)


def _after_trouble(issue: Issue, sender: Sender) -> Outcome:
    """The channel backs off; the rows' attempts are unspent, and 72 h after the freeze end it."""
    note = f"the mail server did not take it: {sender.channel_trouble}"
    if sender.sent and not sender.doubted:
        return Wait(BACKOFF.seconds(1), note, items=sender.sent)
    notifying.tell(
        "smtp_trouble",
        f"The mail server does not take “{issue.title}”",
        note,
        "Tried again by itself, at growing intervals. Check EMAIL_URL and the server.",
        level="error",
        issue=issue,
    )
    raise ChannelTrouble(note)


def _pause(issue: Issue, reason: str) -> None:
    if issue.pause(reason=reason, actor="sender"):
        notifying.tell(
            "paused",
            f"“{issue.title}” was paused",
            reason,
            "Nothing is lost. Put it right, then resume.",
            level="error",
            issue=issue,
            once=str(issue.paused_at),
        )


def _enqueue_close(issue: Issue) -> None:
    """What was resent after the close changes rows, and closes nothing."""
    if issue.state == IssueState.SENDING:
        queue.enqueue("close", key=f"close:{issue.pk}", issue_id=issue.pk, id=issue.pk)


def _close(issue: Issue) -> None:
    queue_for_issue(issue.pk)
    fresh = Issue.objects.select_for_update().get(pk=issue.pk)
    figures = books(fresh)
    if fresh.state != IssueState.SENDING or figures["pending"] or figures["sending"]:
        return
    if not figures["balanced"]:
        _tell_imbalance(fresh, figures)
        return
    fresh.move(
        IssueState.SENT,
        reason=f"the books balance: {figures['sent']} sent of {fresh.audience}",
        actor="close",
        closed_at=database_now(),
    )
    queue.enqueue("report", key=f"report:{issue.pk}", issue_id=issue.pk, id=issue.pk)
    if settings.DEADMAN_URL:
        key = f"ping_deadman:{issue.pk}"
        queue.enqueue("ping_deadman", key=key, issue_id=issue.pk, id=issue.pk)


def _tell_imbalance(issue: Issue, figures: dict[str, int | bool | str | None]) -> None:
    counted = sum(int(figures[status] or 0) for status in DeliveryStatus.values)
    reason = f"the books do not balance: {counted} rows, {issue.audience} at the freeze"
    if issue.block(reason=reason, actor="close"):
        notifying.tell(
            "imbalance", f"“{issue.title}” cannot be closed", reason, level="error", issue=issue
        )
