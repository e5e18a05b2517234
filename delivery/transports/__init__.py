"""How one copy leaves the building: the two protocols that every transport follows."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from delivery.transports.outcomes import Outcome
from delivery.transports.steps import Steps


class Envelope(NamedTuple):
    """One copy for one recipient.

    ``mail_from`` and ``rcpt_to`` are bare addresses (no display name, no angle brackets),
    domains as A-labels. ``data`` is the complete message: CRLF line ends, not dot-stuffed.
    ``key`` names the copy to a provider that knows idempotency keys, the same each time that it is
    handed over; ``delivery_id`` goes along to come back with what the provider tells later (0: none).
    ``wire_ready``: the maker knows that every CR and LF of ``data`` is of a CRLF, that it ends with
    one, and that no line begins with a dot; else the transport has to look at each byte.
    """

    mail_from: str
    rcpt_to: str
    data: bytes
    key: str = ""
    delivery_id: int = 0
    wire_ready: bool = False


_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>]|[\ud800-\udfff]")


def unusable(envelope: Envelope) -> str:
    """Say which address could carry a second command or parameter; empty where none can."""
    if _FORBIDDEN.search(envelope.mail_from):
        return "sender_unusable"
    if not envelope.rcpt_to or _FORBIDDEN.search(envelope.rcpt_to):
        return "recipient_unusable"
    return ""


class Connection(Protocol):
    """What has one dialogue at a time. Not for use by several threads at once."""

    def attempt(self, envelope: Envelope) -> Steps[Outcome]:
        """Make one attempt and say what came of it; never raise for what the other side does."""
        ...

    def closing(self) -> Steps[None]:
        """Let go of what is open, politely and quickly; never raise."""
        ...

    def send(self, envelope: Envelope) -> Outcome:
        """`attempt`, blocking: for who sends one mail."""
        ...

    def close(self) -> None:
        """`closing`, blocking."""
        ...


class Transport(Protocol):
    """A configured way out; makes connections."""

    def connect(self) -> Connection:
        """Return a connection; nothing crosses the network before its first send."""
        ...
