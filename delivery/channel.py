"""The configured way out: EMAIL_URL as a transport."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings

from .transports import Transport
from .transports.smtp import SmtpTransport, Timeouts
from .transports.smtp_url import parse_smtp_url


def transport() -> Transport:
    """A transport; nothing crosses the network yet."""
    seconds = settings.SMTP_TIMEOUT_SECONDS
    return SmtpTransport(
        parse_smtp_url(settings.EMAIL_URL),
        timeouts=Timeouts(
            connect=min(10, seconds),
            greeting=min(15, seconds),
            command=min(10, seconds),
            data=min(15, seconds),
            dot=seconds,
        ),
        local_hostname=urlsplit(settings.PUBLIC_URL).hostname or "localhost",
    )
