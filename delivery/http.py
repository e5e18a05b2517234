"""The one guarded httpx factory: every URL that somebody typed in is asked through here.

It answers to three dangers: a URL that leads into our own network (each connection is made to an
address that was checked, redirects included), a server that never ends (one monotonic deadline, a
cap on the unpacked body), and a secret in a webhook's path (messages name the host, nothing more).
httpx's client is not used: it logs whole URLs, keeps cookies and unpacks without a limit.
"""

from __future__ import annotations

import re
import ssl
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

import httpx

from .errors import EdgeError
from .pinned import Deadline, Networks, PinnedBackend, Transport

LONGEST_RETRY_AFTER = 86_400.0

_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_LATER = (408, 425, 429)
_HOST = re.compile(rb"[\w.:-]+", re.ASCII)  # a name in ASCII or a literal address
_GZIP = zlib.MAX_WBITS | 16


@dataclass(frozen=True)
class Limits:
    """Bounds of one fetch, all redirects together; ``max_bytes`` counts the unpacked body."""

    total_seconds: float = 20.0
    connect_seconds: float = 5.0
    max_bytes: int = 5_000_000
    max_redirects: int = 5


@dataclass(frozen=True)
class Page:
    """A final answer. ``url`` is the last hop's and may hold a secret: never print it.

    ``retry_after`` is in seconds from now, at most a day; None where it was not said.
    """

    status: int
    url: str = field(repr=False)
    body: bytes = field(repr=False)
    content_type: str
    retry_after: float | None

    @property
    def host(self) -> str:
        """The host of ``url``, fit for a message."""
        return _host(httpx.URL(self.url))


DEFAULT_LIMITS = Limits()


class Fetch(Protocol):
    """`fetch` with ``allow_private`` already applied: what podcasts and notifiers are given."""

    def __call__(
        self,
        url: str,
        *,
        method: str = "GET",
        json: object = None,
        headers: Mapping[str, str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        user_agent: str = "Carteiro",
    ) -> Page: ...


def fetch(
    url: str,
    *,
    method: str = "GET",
    json: object = None,
    headers: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    allow_private: Networks = (),
    user_agent: str = "Carteiro",
) -> Page:
    """Ask once, follow the redirects of GET and HEAD, and return the final answer of any status.

    ``json`` is sent as the body unless it is None; it and ``headers`` go to the first origin only.
    ``allow_private`` names networks that may be asked although they are not public.
    Raises `EdgeError`: permanent for a URL, address, redirect or size that is refused, temporary
    for a name, connection, time or answer that failed.
    """
    target, asked = _checked(url), dict(headers or {})
    deadline = Deadline(limits.total_seconds)
    backend = PinnedBackend(deadline, limits.connect_seconds, allow_private)
    with Transport(backend) as transport:
        for _ in range(limits.max_redirects + 1):
            request = _request(method, target, json, asked, user_agent)
            with _told(_host(target), limits):
                answer = _exchange(transport, request, limits)
            if isinstance(answer, Page):
                return answer
            target = _next_hop(request, answer)
            if _origin(target) != _origin(request.url):
                asked, json = {}, None  # may authorise, and were meant for the first origin
    raise EdgeError(
        f"{_host(target)}: more than {limits.max_redirects} redirects in a row; "
        "enter the address where they end",
        permanent=True,
    )


def expect_success(page: Page, what: str) -> None:
    """Raise `EdgeError` unless the status is 2xx; ``what`` begins the message: "The feed".

    Temporary with the wait that was asked for: 408, 425, 429 (RFC 9110, 8470, 6585) and 5xx.
    """
    if 200 <= page.status < 300:
        return
    temporary = page.status in _TRY_LATER or page.status >= 500
    advice = "it may be busy or down" if temporary else "check its address and permissions"
    raise EdgeError(
        f"{what}: {page.host} answered with status {page.status}; {advice}",
        permanent=not temporary,
        retry_after=page.retry_after if temporary else None,
    )


def _checked(url: str) -> httpx.URL:
    """The parsed URL; what is refused here is refused before any name is looked up."""
    try:
        return _required(httpx.URL(url))
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise EdgeError(
            "The URL is malformed: check it for typing errors", permanent=True
        ) from None


def _required(url: httpx.URL) -> httpx.URL:
    """The URL again; ValueError where it has no usable host or port."""
    if url.scheme not in ("http", "https") or not url.host:
        raise EdgeError("The URL must begin with https:// or http:// and a host", permanent=True)
    if not _HOST.fullmatch(url.raw_host) or not 0 < (url.port or 80) < 65_536:
        raise ValueError
    if url.userinfo:
        raise EdgeError(
            f"The URL for {_host(url)} holds a user name or password: remove it", permanent=True
        )
    return url


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def _request(
    method: str, url: httpx.URL, json: object, headers: Mapping[str, str], user_agent: str
) -> httpx.Request:
    """One hop's request. Only gzip is asked for, because only gzip is unpacked here."""
    sent = httpx.Headers({"Accept": "*/*", **headers})
    sent.update({"User-Agent": user_agent, "Accept-Encoding": "gzip", "Connection": "close"})
    return httpx.Request(method.upper(), url, headers=sent, json=json)


def _exchange(transport: Transport, request: httpx.Request, limits: Limits) -> Page | str:
    """The answer, or the Location that it points to."""
    with closing(transport.handle_request(request)) as response:
        location = response.headers.get("location")
        if response.status_code in _REDIRECTS and location:
            return str(location)
        return Page(
            status=response.status_code,
            url=str(request.url),
            body=_body(response, _host(request.url), limits.max_bytes),
            content_type=response.headers.get("content-type", ""),
            retry_after=_seconds(response.headers.get("retry-after", "")),
        )


def _next_hop(request: httpx.Request, location: str) -> httpx.URL:
    host = _host(request.url)
    if request.method not in ("GET", "HEAD"):
        raise EdgeError(
            f"{host} redirects a {request.method}, which is not followed: "
            "enter the address that it points to",
            permanent=True,
        )
    try:
        target = _required(request.url.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise EdgeError(f"{host} redirects to a malformed URL", permanent=True) from None
    if request.url.scheme == "https" and target.scheme == "http":
        raise EdgeError(
            f"{host} redirects from https to http, which is not followed", permanent=True
        )
    return target


def _body(response: httpx.Response, host: str, max_bytes: int) -> bytes:
    """The unpacked body, never holding more than twice ``max_bytes`` of it."""
    coding = response.headers.get("content-encoding", "").strip().lower()
    chunks: Iterable[bytes] = response.iter_raw()
    if coding in ("gzip", "x-gzip"):
        chunks = _unpacked(chunks, host, max_bytes + 1)
    elif coding not in ("", "identity"):
        raise EdgeError(f"{host} sent its answer in an encoding that was not asked for")
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise EdgeError(f"{host} sent more than {max_bytes:,} bytes", permanent=True)
    return bytes(body)


def _unpacked(chunks: Iterable[bytes], host: str, most: int) -> Iterator[bytes]:
    """Gzip members one after another (RFC 1952), in pieces of at most ``most`` bytes."""
    member, begun = zlib.decompressobj(_GZIP), False
    for chunk in chunks:
        begun = True
        while chunk:
            if member.eof:
                member = zlib.decompressobj(_GZIP)
            try:
                yield member.decompress(chunk, most)
            except zlib.error:
                raise EdgeError(f"{host} sent damaged gzip data") from None
            chunk = member.unconsumed_tail or member.unused_data
    if begun and not member.eof:
        raise EdgeError(f"{host} sent gzip data that breaks off")


def _seconds(retry_after: str) -> float | None:
    """Seconds from either form of Retry-After (RFC 9110, 10.2.3); None for neither."""
    text = retry_after.strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text, re.ASCII):
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


@contextmanager
def _told(host: str, limits: Limits) -> Iterator[None]:
    """Turn httpx's errors, whose text and request hold the URL, into ones that name the host."""
    try:
        yield
    except httpx.ConnectTimeout:
        raise EdgeError(f"{host} did not accept a connection in time") from None
    except httpx.TimeoutException:
        raise EdgeError(
            f"{host} did not answer in full within {limits.total_seconds:g} seconds"
        ) from None
    except httpx.ConnectError as error:
        raise EdgeError(f"{host} {_why_not_connected(error)}") from None
    except httpx.HTTPError:
        raise EdgeError(f"{host} broke off, or answered with something that is not HTTP") from None


def _why_not_connected(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return "shows a TLS certificate that is not valid for it: it must be renewed there"
        if isinstance(error, ssl.SSLError):
            return "could not agree on a TLS connection: check that it serves https"
        error = error.__cause__ or error.__context__
    return "refused the connection: check that it is up and the port is right"
