"""What a provider's webhook tells of a message, in one form for all of them. Pure.

SES: https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
Postmark: https://postmarkapp.com/developer/webhooks/webhooks-overview
Resend: https://resend.com/docs/dashboard/webhooks/event-types
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = Mapping[str, Any]

YEARS = range(2000, 2101)  # in which an event can have happened

# Of the receiver's policy, or of a full mailbox: the address is a good one (RFC 3463).
_NOT_THE_ADDRESS = re.compile(r"\b[45]\.(?:7\.\d{1,3}|2\.2)\b")


@dataclass(frozen=True)
class Told:
    """One event. ``kind`` is a value of `EventKind`.

    ``delivery_id`` is what went along with the mail (0: none came back), ``recipient`` the address as the provider has
    it. ``bad_address``: it bounced for good, and because of the address. ``detail`` is in the provider's words.
    """

    kind: str
    message_id: str = ""
    delivery_id: int = 0
    recipient: str = ""
    occurred_at: datetime | None = None
    bad_address: bool = False
    detail: str = ""


def read(provider: str, event: Json) -> Told:
    """An event as the webhook of one of the providers brings it; what is not understood is of the kind `other`."""
    return _READERS[provider](event)


_SES = {
    "Send": "sent",
    "Delivery": "delivered",
    "DeliveryDelay": "deferred",
    "Bounce": "bounced",
    "Reject": "rejected",
    "Rendering Failure": "rejected",
    "Complaint": "complained",
}


def _ses(notification: Json) -> Told:
    """The SES event that the Message of an SNS notification holds."""
    try:
        event = _object(json.loads(_whole(notification.get("Message"))))
    except (ValueError, RecursionError):
        return Told("other")  # SNS's own words
    name = _text(event.get("eventType") or event.get("notificationType"))
    mail = _object(event.get("mail"))
    what = _object(event.get(name[:1].lower() + name[1:]))
    bounced = _first(_recipients(what))
    said = _text(bounced.get("diagnosticCode") or what.get("smtpResponse") or what.get("reason"))
    status = f"{_text(bounced.get('status'))} {said}".strip()
    permanent = name == "Bounce" and what.get("bounceType") == "Permanent"
    return Told(
        _SES.get(name, "other"),
        message_id=_text(mail.get("messageId")),
        delivery_id=_number(_first_of(_object(mail.get("tags")).get("delivery"))),
        recipient=_bare(bounced.get("emailAddress") or _first_of(mail.get("destination"))),
        occurred_at=_time(what.get("timestamp") or mail.get("timestamp")),
        bad_address=permanent and not _NOT_THE_ADDRESS.search(status),
        detail=" ".join(filter(None, [name, _text(what.get("bounceSubType")), status])),
    )


def _recipients(what: Json) -> Any:
    names = ("bouncedRecipients", "complainedRecipients", "delayedRecipients")
    return next((what[name] for name in names if name in what), None)


_POSTMARK = {
    "Delivery": "delivered",
    "Bounce": "bounced",
    "SpamComplaint": "complained",
}
# Where `Type` says something else: https://postmarkapp.com/developer/api/bounce-api#bounce-types
_POSTMARK_BOUNCES = {
    "Transient": "deferred",
    "DnsError": "deferred",
    "SpamComplaint": "complained",
    "Unsubscribe": "unsubscribed",
    "BadEmailAddress": "rejected",
    "ManuallyDeactivated": "rejected",
    "Unconfirmed": "rejected",
    "SMTPApiError": "rejected",
    "DMARCPolicy": "rejected",
    "TemplateRenderingFailed": "rejected",
    # An answer by itself proves neither a bounce nor its contrary.
    "Subscribe": "other",
    "AutoResponder": "other",
    "AddressChange": "other",
    "ChallengeVerification": "other",
    "OpenRelayTest": "other",
    "InboundError": "other",
}


def _postmark(event: Json) -> Told:
    record, kind_of_bounce = _text(event.get("RecordType")), _text(event.get("Type"))
    kind = _POSTMARK.get(record, "other")
    if record == "Bounce":
        kind = _POSTMARK_BOUNCES.get(kind_of_bounce, kind)
    elif record == "SubscriptionChange":
        kind = _subscription_change(event)
    detail = _text(event.get("Details") or event.get("Description"))
    hard = kind_of_bounce in ("HardBounce", "BadEmailAddress")
    return Told(
        kind,
        message_id=_text(event.get("MessageID")),
        delivery_id=_number(_object(event.get("Metadata")).get("delivery")),
        recipient=_bare(event.get("Email") or event.get("Recipient")),
        occurred_at=_time(
            event.get("DeliveredAt") or event.get("BouncedAt") or event.get("ChangedAt")
        ),
        bad_address=hard and not _NOT_THE_ADDRESS.search(detail),
        detail=" ".join(filter(None, [record, kind_of_bounce, detail])),
    )


def _subscription_change(event: Json) -> str:
    """Postmark's own list of whom it does not mail; a bounce has an event of its own."""
    if not event.get("SuppressSending"):
        return "other"
    reason, origin = event.get("SuppressionReason"), event.get("Origin")
    if reason == "SpamComplaint":
        return "complained"
    return "unsubscribed" if (reason, origin) == ("ManualSuppression", "Recipient") else "other"


_RESEND = {
    "email.sent": "sent",
    "email.delivered": "delivered",
    "email.delivery_delayed": "deferred",
    "email.bounced": "bounced",
    "email.complained": "complained",
    "email.failed": "rejected",
    "email.suppressed": "rejected",
}


def _resend(event: Json) -> Told:
    name, data = _text(event.get("type")), _object(event.get("data"))
    bounce = _object(data.get("bounce"))
    said = _text(bounce.get("message") or _object(data.get("failed")).get("reason"))
    permanent = name == "email.bounced" and bounce.get("type", "Permanent") == "Permanent"
    return Told(
        _RESEND.get(name, "other"),
        message_id=_text(data.get("email_id")),
        delivery_id=_number(_tag(data.get("tags"))),
        recipient=_bare(_first_of(data.get("to"))),
        occurred_at=_time(event.get("created_at")),
        bad_address=permanent and not _NOT_THE_ADDRESS.search(said),
        detail=" ".join(filter(None, [name, _text(bounce.get("subType")), said])),
    )


def _tag(tags: Any) -> Any:
    """Tags come back as an object; as a list of names and values in older events."""
    if isinstance(tags, list):
        found = (_object(tag) for tag in tags)
        return next((tag.get("value") for tag in found if tag.get("name") == "delivery"), None)
    return _object(tags).get("delivery")


_READERS = {"ses": _ses, "postmark": _postmark, "resend": _resend}


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> Json:
    return _object(_first_of(value))


def _first_of(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _whole(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(value: Any) -> str:
    """Storable everywhere: PostgreSQL takes no NUL, no database a lone surrogate."""
    text = _whole(value)
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:500]


def _number(value: Any) -> int:
    """A row's id: positive, and within the database's integers."""
    text = str(value)
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0


def _bare(value: Any) -> str:
    """The address of `Name <address>`."""
    found = re.search(r"<([^<>]*)>\s*$", _text(value))
    return found[1] if found else _text(value).strip()


def _time(value: Any) -> datetime | None:
    """In UTC; nothing where no mail can have been. Years that no zone can hold: stored, they cannot be read again."""
    try:
        at = datetime.fromisoformat(_text(value))
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return at if at.year in YEARS else None
