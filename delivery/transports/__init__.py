"""How one copy leaves the building: the two protocols that every transport follows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from delivery.transports.outcomes import Outcome


@dataclass(frozen=True)
class Envelope:
    """One copy for one recipient.

    ``mail_from`` and ``rcpt_to`` are bare addresses (no display name, no angle brackets),
    domains as A-labels. ``data`` is the complete message: CRLF line ends, not dot-stuffed.
    ``key`` names the copy to a provider that knows idempotency keys, the same each time that it is
    handed over; ``delivery_id`` goes along to come back with what the provider tells later (0: none).
    """

    mail_from: str
    rcpt_to: str
    data: bytes
    key: str = ""
    delivery_id: int = 0


_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>]|[\ud800-\udfff]")


def unusable(envelope: Envelope) -> str:
    """Say which address could carry a second command or parameter; empty where none can."""
    if _FORBIDDEN.search(envelope.mail_from):
        return "sender_unusable"
    if not envelope.rcpt_to or _FORBIDDEN.search(envelope.rcpt_to):
        return "recipient_unusable"
    return ""


class Connection(Protocol):
    """What one sending thread holds. Not for use by several threads at once."""

    def send(self, envelope: Envelope) -> Outcome:
        """Make one attempt and say what came of it; never raise for what the other side does."""
        ...

    def close(self) -> None:
        """Let go of what is open, politely and quickly; never raise."""
        ...


class Transport(Protocol):
    """A configured way out; makes connections."""

    def connect(self) -> Connection:
        """Return a connection; nothing crosses the network before its first send."""
        ...
