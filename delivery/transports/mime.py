"""Our own MIME as the message that a provider's API takes in parts."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any

from anymail.message import AnymailMessage

from delivery.transports import Envelope

# The provider writes these itself, from the fields of its API.
_ITS_OWN = frozenset(
    ("from", "to", "subject", "mime-version", "content-type", "content-transfer-encoding")
)


def in_parts(envelope: Envelope, **more: Any) -> AnymailMessage:
    """Read the envelope's bytes; all headers that are not the provider's own go along.

    Raises ValueError where a header hides a line break (CVE-2024-6923) or there is no text.
    """
    mime = message_from_bytes(envelope.data, policy=policy.default)
    headers = {name: _line(value) for name, value in mime.items() if name.lower() not in _ITS_OWN}
    message = AnymailMessage(
        subject=_line(mime["Subject"]),
        body=_text(mime, "plain"),
        from_email=_line(mime["From"]),
        to=[_recipient(mime, envelope.rcpt_to)],
        headers=headers,
        **more,
    )
    if html := _text(mime, "html"):
        message.attach_alternative(html, "text/html")
    return message


def _recipient(mime: EmailMessage, address: str) -> str:
    """Whom the envelope names, by the name that the message gives them."""
    named = mime["To"].addresses[0].display_name if mime["To"] else ""
    local, _, domain = address.rpartition("@")
    return str(Address(_line(named), local, domain))


def _text(mime: EmailMessage, kind: str) -> str:
    part = mime.get_body((kind,))
    return part.get_content().replace("\r\n", "\n") if part else ""


def _line(value: Any) -> str:
    text = str(value or "")
    if "\n" in text or "\r" in text:
        raise ValueError("a header of the message hides a line break")
    return text
