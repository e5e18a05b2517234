"""What a provider's events change here: evidence for `unknown` rows, suppressions, a consent that is gone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import structlog
from django.db import InterfaceError, OperationalError, transaction

from newsletter.models import Suppression, address_key, database_now, normalise_address
from newsletter.models.suppression import SuppressionReason

from . import moves, provider_events, settling
from .models import EmailDelivery, ProviderEvent
from .models.provider_event import EventKind
from .outcome import Discard, Done, Outcome
from .provider_events import Told
from .redaction import redact_text

log = structlog.get_logger(__name__)

# The provider has the message, whatever became of it afterwards.
ACCEPTED = (
    EventKind.SENT,
    EventKind.DELIVERED,
    EventKind.DEFERRED,
    EventKind.BOUNCED,
    EventKind.COMPLAINED,
)
# Events overtake our own commit by seconds; who is not known after this is somebody else's.
PATIENCE = timedelta(minutes=10)
SETTLES = timedelta(seconds=20)  # the event's own job comes first
LOOKED_AT = 500  # events a tick
STILL = "the delivery is still on the wire"
FAULT = "it could not be applied: the log tells why"


def apply_event(event_id: int) -> Outcome:
    """Apply one stored event, once. Where its row is still on the wire, the ticks look again."""
    event = ProviderEvent.objects.filter(pk=event_id).first()
    if event is None:
        return Discard("the event is gone")
    if event.applied_at:
        return Done("it was applied before")
    return Done(f"{event.provider}: {event.kind}", partial(_look_at, event_id))


def look_again() -> int:
    """Events that came before our own commit, or while their row was on the wire; how many are done with now."""
    waiting = ProviderEvent.objects.filter(
        applied_at=None, received_at__lt=database_now() - SETTLES
    ).exclude(delivery__status=moves.SENDING)
    return _look_at_all(waiting.order_by("id").values_list("pk", flat=True)[:LOOKED_AT])


def _look_at_all(ids: Iterable[int]) -> int:
    done = 0
    for event_id in list(ids):
        try:
            with transaction.atomic():
                done += _look_at(event_id)
        except (InterfaceError, OperationalError):
            raise  # the database's trouble, not the event's
        except Exception:
            log.exception("feedback.failed", row=event_id)
            done += _give_up(event_id)
    return done


def _give_up(event_id: int) -> int:
    """It must not keep the others waiting, nor be met again in each minute. Unread: perhaps it cannot be."""
    rows = ProviderEvent.objects.filter(pk=event_id, applied_at=None)
    return rows.update(applied_at=database_now(), note=FAULT)


def _look_at(event_id: int) -> bool:
    """In the caller's transaction. True: nothing is left to do for it."""
    event = ProviderEvent.objects.select_for_update().filter(pk=event_id, applied_at=None).first()
    if event is None:
        return True
    told = provider_events.read(event.provider, json.loads(event.raw))
    row = _find(told)
    event.delivery = row
    event.note, done = _apply(event, row, told)
    event.applied_at = database_now() if done else None
    event.save(update_fields=["delivery", "note", "applied_at"])
    return done


def _find(told: Told) -> EmailDelivery | None:
    rows = EmailDelivery.objects.select_related("subscription")
    if told.delivery_id:
        return rows.filter(pk=told.delivery_id).first()
    return rows.filter(provider_message_id=told.message_id).first() if told.message_id else None


def _apply(event: ProviderEvent, row: EmailDelivery | None, told: Told) -> tuple[str, bool]:
    """What it changed, or why nothing; and whether that is the end of it."""
    if row is None:
        if told.delivery_id or event.received_at < database_now() - PATIENCE:
            return "there is no such delivery", True
        return "no delivery has this message id yet", False
    if told.recipient and not _is_of(row, told.recipient):
        return "another recipient than the delivery's: not applied", True
    if row.status == moves.SENDING:
        return STILL, False
    # First: it waits for the house's gate, which senders hold while they wait for rows.
    changed = _heed(event.provider, row, told)
    settled = _settle(event.provider, row, told)
    if row.status == moves.SENDING:  # by now
        return STILL, False
    return "; ".join([settled or f"the delivery is {row.status}", *filter(None, [changed])]), True


def _is_of(row: EmailDelivery, address: str) -> bool:
    with suppress(ValueError):
        return address_key(normalise_address(address)) == row.address_key
    return False


def _heed(provider: str, row: EmailDelivery, told: Told) -> str:
    """What the reader, or the lack of one, says for all mail to come."""
    detail = redact_text(f"{provider}: {told.detail}")
    if told.kind == EventKind.COMPLAINED:
        Suppression.objects.add(row.address_key, SuppressionReason.COMPLAINT, detail)
        _unsubscribe(row, provider, "a complaint")
        return "suppressed: a complaint"
    if told.kind == EventKind.UNSUBSCRIBED:
        _unsubscribe(row, provider, "unsubscribed at the provider")
        return "unsubscribed"
    if told.bad_address and told.kind in (EventKind.BOUNCED, EventKind.REJECTED):
        Suppression.objects.add(row.address_key, SuppressionReason.BAD_ADDRESS, detail)
        return "suppressed: a bad address"
    return ""


def _unsubscribe(row: EmailDelivery, provider: str, reason: str) -> None:
    if row.subscription:
        row.subscription.unsubscribe(actor=provider, reason=reason)


def _settle(provider: str, row: EmailDelivery, told: Told) -> str:
    """Evidence for the row itself, where it is of the copy that we know of."""
    accepted = told.kind in ACCEPTED
    if not accepted and told.kind != EventKind.REJECTED:
        return ""
    known = row.provider_message_id
    if known and told.message_id and known != told.message_id:
        return "of another copy than the one that is known"
    if not accepted and row.resend_no:
        text = f"{provider} says {told.kind}"
        settling.note_evidence(row, text, source=f"{provider} event")
        return "of the copy before an operator's resend, perhaps: not applied"
    won = settling.prove(
        [row.pk],
        sent=accepted,
        source=f"{provider} event",
        detail=" ".join(filter(None, [told.kind, told.detail])),
        provider_message_id=told.message_id,
    )
    before = row.status
    row.refresh_from_db(fields=["status"])
    if won:
        return f"{before} -> {row.status}"
    if accepted and row.status in (moves.PENDING, moves.SKIPPED):
        text = f"{provider} says {told.kind}"
        settling.note_evidence(row, text, source=f"{provider} event")
    return ""
