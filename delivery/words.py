"""The ledger's machine words as people read them."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

# A row's reason -> what it means. The verdicts' own words are in `transports/outcomes.py`.
REASONS = {
    "attempts_spent": "each attempt was deferred, and none is left",
    "authentication_deferred": "the mail server did not take our sign-in just then",
    "authentication_refused": "the mail server refused our sign-in",
    "auth_not_offered": "the mail server offers no sign-in that we know",
    "cancelled": "the issue was cancelled",
    "cannot_be_made": "the copy cannot be made for this reader: the address or the name does not fit in a mail",
    "certificate_refused": "the mail server's certificate was not accepted",
    "connect_failed": "no connection to the mail server",
    "data_deferred": "the mail server did not take the message just then",
    "data_refused": "the mail server refused the message before it saw it",
    "expired": "its time was over: still waiting so long after the freeze, or after the resend",
    "garbled_reply": "the mail server's reply could not be read",
    "mailbox_full": "the reader's mailbox is full",
    "mailbox_unavailable": "there is no such mailbox; the address is suppressed",
    "message_deferred": "the mail server refused the whole message for now",
    "message_refused": "the mail server refused the message for good",
    "message_too_large": "the message is larger than the mail server takes",
    "no_reply": "no reply came",
    "operator": "an operator said so",
    "over_long_reply": "the mail server's reply was over-long",
    "policy_deferral": "the mail server slows us down by policy",
    "recipient_deferred": "the reader's server said: not now",
    "recipient_needs_smtputf8": "the address needs SMTPUTF8, which the mail server does not offer",
    "recipient_policy_refusal": "the reader's server refused it by policy",
    "recipient_refused": "the reader's server refused the recipient",
    "recipient_unusable": "the address cannot be written in SMTP",
    "refused_at_the_dot": "the whole message was refused for now, five times",
    "sender_address_refused": "the reader's server refused our sender's address",
    "sender_lost": "its sender died, or was lost, while it was on the wire",
    "sender_refused": "the mail server refused our sender's address",
    "service_closing": "the mail server closed the connection (421)",
    "system_not_accepting": "the mail server takes no mail just then",
    "timed_out": "no reply came in time",
    "tls_failed": "the mail server's TLS failed",
    "tls_refused": "the mail server refused TLS",
    "transport_fault": "a fault of ours while it was on the wire",
    "unexpected_reply": "the mail server's reply made no sense",
}

STATUSES = {
    "pending": "it waits for its turn",
    "sending": "it is on the wire",
    "sent": "the mail server has accepted it",
    "failed": "it was not delivered",
    "unknown": "nobody can tell whether it was accepted",
    "skipped": "it was not sent",
}

SUPPRESSIONS = {
    "bad_address": "the mail server said that there is no such mailbox",
    "complaint": "the reader called a mail spam",
    "operator": "somebody here decided it",
}

EVENTS = {
    "sent": "has taken it over",
    "delivered": "delivered it to the reader's server",
    "deferred": "could not deliver it yet",
    "bounced": "got it back: it bounced",
    "rejected": "did not send it",
    "complained": "was told that the reader called it spam",
    "unsubscribed": "was told that the reader wants no more",
    "other": "told something that settles nothing",
}


def reason_in_words(reason: str) -> str:
    """A sentence's part without its full stop; a word that the table does not know is told as it is."""
    return REASONS.get(reason) or reason.replace("_", " ")


def when(at: datetime, zone: ZoneInfo) -> str:
    """`2026-06-01 07:00:12 WEST`."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def and_reason(sentence: str, reason: str) -> str:
    """`it failed: no reply came`; the sentence alone where there is no reason."""
    return f"{sentence}: {reason_in_words(reason)}" if reason else sentence
