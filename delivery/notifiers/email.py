"""A notice as an e-mail's bytes; the room above sends them through its own transport."""

from __future__ import annotations

import re
from datetime import datetime
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import format_datetime

from delivery.errors import EdgeError
from delivery.notifiers import UNPRINTABLE, Notice, plain, shortened

SUBJECT = 200
PREFIXES = {"info": "", "warning": "Warning: ", "error": "Error: "}
_POLICY = policy.SMTP.clone(cte_type="7bit")
_MESSAGE_ID = re.compile(r"<[^\s<>@]{1,120}@[^\s<>@]{1,120}>", re.ASCII)


def compose(
    notice: Notice, *, from_address: str, to_address: str, date: datetime, message_id: str
) -> bytes:
    """A plain-text message with CRLF line ends, in ASCII throughout; ``date`` is aware.

    Raises a permanent `EdgeError` for what would forge or break a header.
    """
    if date.tzinfo is None:
        raise _refused("Date", "has no time zone")
    if not _MESSAGE_ID.fullmatch(message_id) or not message_id.isascii():
        raise _refused("Message-ID", "is not of the form <something@domain>")
    message = EmailMessage(policy=_POLICY)
    message["Date"] = format_datetime(date)
    message["Message-ID"] = message_id
    _add_address(message, "From", from_address)
    _add_address(message, "To", to_address)
    _add(message, "Subject", shortened(PREFIXES[notice.level] + notice.title, SUBJECT))
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday answers
    message.set_content(_text(notice))
    return message.as_bytes()


def _add(message: EmailMessage, name: str, value: str) -> None:
    """Add a header that is one line, also after its encoded words are decoded.

    Python 3.11.7 decodes those when a header is set, and writes the line breaks that come out
    (CVE-2024-6923).
    """
    if UNPRINTABLE.search(value):
        raise _refused(name, "holds a line break or another control character")
    try:
        message[name] = value
        decoded = str(message[name])
    except (ValueError, TypeError, LookupError, MessageError):
        raise _refused(name, "cannot be read") from None
    if UNPRINTABLE.search(decoded):
        raise _refused(name, "hides a line break or another control character")


def _add_address(message: EmailMessage, name: str, value: str) -> None:
    _add(message, name, value)
    addresses = message[name].addresses
    group = any(group.display_name is not None for group in message[name].groups)
    if group or len(addresses) != 1 or message[name].defects or not addresses[0].domain:
        raise _refused(name, "must be one e-mail address")
    if not addresses[0].addr_spec.isascii():
        raise _refused(name, "must be an address in ASCII")


def _text(notice: Notice) -> str:
    lines = [plain(notice.title), "", *map(plain, notice.lines)]
    if notice.url:
        lines += ["", plain(notice.url)]
    return "\n".join([*lines, "", f"({plain(notice.event)})", ""])


def _refused(name: str, why: str) -> EdgeError:
    return EdgeError(f"The notice's {name} {why}: check where it was entered", permanent=True)
