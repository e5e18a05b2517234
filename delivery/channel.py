"""The configured way out: EMAIL_URL as a transport."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.conf import settings

from .transports import Transport
from .transports.smtp import SmtpTransport, Timeouts
from .transports.smtp_url import parse_smtp_url

CHANNEL = "smtp"  # the name of its breaker and its rate


def transport(patience: float = 600.0) -> Transport:
    """A transport that waits for no reply longer than `patience` seconds; nothing crosses the network yet."""
    seconds = min(settings.SMTP_TIMEOUT_SECONDS, patience)
    return SmtpTransport(
        parse_smtp_url(settings.EMAIL_URL),
        timeouts=Timeouts(
            connect=min(10, seconds),
            greeting=min(15, seconds),
            command=min(10, seconds),
            data=min(15, seconds),
            dot=seconds,
        ),
        local_hostname=_own_name(),
    )


def _own_name() -> str:
    """For EHLO (RFC 5321 section 4.1.1.1): our public name, where it is one that the protocol takes."""
    host = urlsplit(settings.PUBLIC_URL).hostname or ""
    return host if re.fullmatch(r"[A-Za-z0-9.-]+", host) else "localhost"
