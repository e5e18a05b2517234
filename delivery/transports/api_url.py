"""A mail provider's API as one URL, beside the SMTP server's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from delivery.transports.smtp_url import SmtpUrl, is_loopback, parse_smtp_url

# The options that each provider knows, besides `api`.
_OPTIONS = {"postmark": "stream", "resend": "", "ses": "configuration_set"}
# Seconds for which a second request with the same key sends nothing (docs/providers.md).
_REPLAYS = {"resend": 24 * 3600.0}
_FORM = {
    "postmark": "anymail+postmark://TOKEN@",
    "resend": "anymail+resend://KEY@",
    "ses": "anymail+ses://ACCESS:SECRET@REGION",
}


@dataclass(frozen=True)
class ApiUrl:
    """Which provider, and as whom. ``api`` is the API's address where it is not the usual one."""

    provider: str
    user: str = field(repr=False)  # a token, or Amazon's access key
    secret: str = field(default="", repr=False)
    region: str = ""
    stream: str = ""  # Postmark's message stream
    configuration_set: str = ""  # of SES
    api: str = ""

    @property
    def replays(self) -> float:
        """Seconds for which the provider honours an idempotency key; 0 where it knows none."""
        return _REPLAYS.get(self.provider, 0.0)


def parse_email_url(url: str) -> SmtpUrl | ApiUrl:
    """Read EMAIL_URL: an SMTP server's or a provider's. Raises ValueError, without any secret."""
    return parse_api_url(url) if url.startswith("anymail+") else parse_smtp_url(url)


def parse_api_url(url: str) -> ApiUrl:
    """Read ``anymail+postmark://TOKEN@``, ``anymail+resend://KEY@``, ``anymail+ses://ACCESS:SECRET@REGION``.

    Percent-encoded, with options after '?'. Raises ValueError, without any secret in it.
    """
    try:
        parts = urlsplit(url)
        provider = parts.scheme.removeprefix("anymail+")
        port = parts.port
    except ValueError:  # its message may quote the secret
        raise ValueError("provider URL: it cannot be read; percent-encode / ? # @ : [ ]") from None
    if provider not in _FORM:
        raise ValueError("provider URL: anymail+postmark, anymail+resend and anymail+ses are known")
    user, secret = unquote(parts.username or ""), unquote(parts.password or "")
    ses = provider == "ses"
    usable = re.fullmatch(r"[!-~]+", user) and re.fullmatch(r"[!-~]+", secret or "-")
    located = re.fullmatch(r"[a-z0-9-]+", parts.hostname or "") if ses else not parts.hostname
    # What stands behind the host is a secret that was not percent-encoded: it is not quoted.
    if parts.path or parts.fragment or port or not usable or not located or bool(secret) != ses:
        raise ValueError(f"provider URL: write {_FORM[provider]}, percent-encoded")
    options = _options(parts, provider)
    return ApiUrl(provider, user, secret, parts.hostname or "", **options)


def _options(parts: SplitResult, provider: str) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {"api", _OPTIONS[provider]} - {""}
    if not options.keys() <= known:
        raise ValueError(f"provider URL: the options after '?' are {', '.join(sorted(known))}")
    if any(not re.fullmatch(r"[A-Za-z0-9_-]+", options[name]) for name in options.keys() - {"api"}):
        raise ValueError("provider URL: an option takes letters, digits, _ and -")
    if "api" in options:
        _check_api(options["api"])
    return options


def _check_api(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("provider URL: api takes an address such as https://api.example.org")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("provider URL: api takes https, and http on this machine only")
