"""The SMTP server as one URL, so that one setting says where and how to submit mail."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

Security = Literal["plain", "starttls", "tls"]

_SCHEMES: dict[str, tuple[Security, int]] = {
    "smtp": ("plain", 25),
    "smtp+starttls": ("starttls", 587),
    "smtps": ("tls", 465),
}


@dataclass(frozen=True)
class SmtpUrl:
    """Where to submit mail, and as whom."""

    host: str
    port: int
    security: Security
    username: str = ""
    password: str = field(default="", repr=False)


def parse_smtp_url(url: str) -> SmtpUrl:
    """Read ``smtp://``, ``smtp+starttls://`` or ``smtps://[user:password@]host[:port]``.

    User and password are percent-encoded. Raises ValueError, without the password in it.
    """
    parts, port = _split(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            "SMTP URL: it must begin with smtp://, smtp+starttls:// or smtps://; "
            "a provider's URL begins with anymail+"
        )
    security, default_port = _SCHEMES[parts.scheme]
    if not parts.hostname:
        raise ValueError("SMTP URL: the host is missing")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError(
            "SMTP URL: nothing may follow the host and port; "
            "percent-encode / ? # @ : in the user name and password"
        )
    _check_query(parts, parts.hostname, security)
    username, password = _credentials(parts)
    return SmtpUrl(parts.hostname, port or default_port, security, username, password)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:  # its message quotes what it takes for a port: perhaps the password
        raise ValueError(
            "SMTP URL: host and port cannot be read; write scheme://user:password@host:port "
            "with / ? # @ : [ ] in the user name and password percent-encoded"
        ) from None


def _check_query(parts: SplitResult, host: str, security: Security) -> None:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    insecure = options.pop("insecure", None)
    if options:
        raise ValueError("SMTP URL: unknown option after '?'; only insecure=1 is known")
    if insecure not in (None, "1") or (insecure and security != "plain"):
        raise ValueError("SMTP URL: the option is insecure=1, and only smtp:// takes it")
    if security == "plain" and not insecure and not is_loopback(host):
        raise ValueError(
            "SMTP URL: smtp:// does not encrypt, and the host is not this machine; "
            "use smtp+starttls:// or smtps://, or add ?insecure=1"
        )


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine, without asking DNS."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(parts: SplitResult) -> tuple[str, str]:
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(username) != bool(password):
        raise ValueError("SMTP URL: give both user name and password, or neither")
    if not (username + password).isascii() or not (username + password + "x").isprintable():
        raise ValueError("SMTP URL: user name and password must be printable ASCII")
    return username, password
