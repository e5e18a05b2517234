"""The configured way out: EMAIL_URL as a transport."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.conf import settings

from .transports import Transport
from .transports.api import ApiTransport
from .transports.api_url import ApiUrl, parse_email_url
from .transports.probe import Probe
from .transports.probe import probe as probe_server
from .transports.smtp import SmtpTransport, Timeouts

MARGIN = 5.0  # seconds between the end of the longest attempt and the end of its job


def transport(patience: float = 600.0) -> Transport:
    """A transport that waits for no reply longer than `patience` seconds; nothing crosses the network yet."""
    url = parse_email_url(settings.EMAIL_URL)
    seconds = min(settings.SMTP_TIMEOUT_SECONDS, patience)
    if isinstance(url, ApiUrl):
        return ApiTransport(url, timeouts=timeouts(seconds))
    return SmtpTransport(url, timeouts=timeouts(seconds), local_hostname=_own_name())


def probe(connections: int) -> Probe | None:
    """What the SMTP server tells of itself, up to so many connections; None for a provider's API.

    Raises EdgeError where it lets nobody in.
    """
    url = parse_email_url(settings.EMAIL_URL)
    if isinstance(url, ApiUrl):
        return None
    return probe_server(url, connections=connections, local_hostname=_own_name())


def replays() -> float:
    """Seconds, from an attempt on, for which a second one with its key sends nothing; 0: there is no such thing."""
    url = parse_email_url(settings.EMAIL_URL)
    return url.replays if isinstance(url, ApiUrl) else 0.0


def timeouts(seconds: float) -> Timeouts:
    """So that one attempt that begins at the end of a sender's turn still ends before its job's time-out."""
    turn = settings.JOB_TIMEOUT_SECONDS - settings.SENDER_SECONDS
    return Timeouts(
        connect=min(10, seconds),
        greeting=min(15, seconds),
        command=min(10, seconds),
        data=min(15, seconds),
        dot=seconds,
        whole=max(seconds, turn - MARGIN),
    )


def _name() -> str:
    url = parse_email_url(settings.EMAIL_URL)
    return url.provider if isinstance(url, ApiUrl) else "smtp"


def _own_name() -> str:
    """For EHLO (RFC 5321 section 4.1.1.1): our public name, where it is one that the protocol takes."""
    host = urlsplit(settings.PUBLIC_URL).hostname or ""
    return host if re.fullmatch(r"[A-Za-z0-9.-]+", host) else "localhost"


CHANNEL = _name()  # of its breaker and its rate; one in a process
