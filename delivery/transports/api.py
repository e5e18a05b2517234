"""A provider's HTTP API, through django-anymail: one request an attempt, judged by the one table."""

from __future__ import annotations

import email.utils
import importlib
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from delivery.transports import Envelope, unusable
from delivery.transports.api_url import ApiUrl
from delivery.transports.outcomes import Answer, Outcome, Phase, judge, judge_http
from delivery.transports.smtp import Timeouts
from delivery.transports.steps import Aside, Steps

if TYPE_CHECKING:
    from delivery.transports.exchange import Seen

# A connection that was idle for longer is not used again: the server may be about to close it, and
# a request that meets the end of the connection is one that nobody knows the fate of.
_IDLE_SECONDS = 5.0
_LONGEST_WAIT = 3600.0


class ApiTransport:
    """Hands messages to one provider; makes as many connections as are asked for.

    Of ``timeouts`` it uses ``connect``, ``dot`` (for the answer) and ``whole``. ``ca_file`` is for
    a private certificate authority.
    """

    def __init__(self, url: ApiUrl, *, timeouts: Timeouts | None = None, ca_file: str = "") -> None:
        self._url = url
        self._timeouts = timeouts or Timeouts()
        self._ca_file = ca_file
        # Here and not above: a house that sends by SMTP need not pay for anymail and boto3.
        self._provider = importlib.import_module(f"delivery.transports.providers.{url.provider}")

    def connect(self) -> ApiConnection:
        """Return a connection that opens itself at its first send."""
        return ApiConnection(self._url, self._provider, self._timeouts, self._ca_file)


class ApiConnection:
    """One kept connection to the API."""

    def __init__(self, url: ApiUrl, provider: Any, timeouts: Timeouts, ca_file: str) -> None:
        from delivery.transports.exchange import Exchange, open_session  # brings requests

        self._url = url
        self._provider = provider
        self._whole = timeouts.whole
        self._exchange = Exchange()
        session = open_session(self._exchange, ca_file)
        self._backend = provider.backend(url, session, timeouts)
        self._used_at = 0.0

    def send(self, envelope: Envelope) -> Outcome:
        """Make one attempt, of one request. Never raises for what the network or the API does."""
        if error := unusable(envelope) or _beyond(envelope):
            return judge(Phase.MAIL, None, error, "the address cannot be handed to the provider")
        if time.monotonic() - self._used_at > _IDLE_SECONDS:
            self.close()
        try:
            self._backend.open()
        except Exception as fault:  # noqa: BLE001  (boto3's are of many families)
            return judge(Phase.CONNECT, None, "provider_unusable", type(fault).__name__)
        try:
            message = self._provider.message(envelope)
        except ValueError as fault:
            return judge(Phase.MAIL, None, "message_unusable", str(fault))
        return self._attempt(message)

    def close(self) -> None:
        """Close the connection, if one is open."""
        self._backend.close()

    def attempt(self, envelope: Envelope) -> Steps[Outcome]:
        """`send`, in another thread: the providers' libraries block."""
        outcome: Outcome = yield Aside(partial(self.send, envelope))
        return outcome

    def closing(self) -> Steps[None]:
        """`close`, in another thread."""
        yield Aside(self.close)

    def _attempt(self, message: Any) -> Outcome:
        """What was seen of the request decides; the libraries' faults only say why there is no answer."""
        causes: list[BaseException] = [Exception()]
        try:
            with self._exchange.attempt(self._whole):
                self._backend.send_messages([message])
        except Exception as fault:  # noqa: BLE001  (anymail raises whatever an answer made it meet)
            causes = list(_causes(fault))
        self._used_at = time.monotonic()
        seen = self._exchange.seen
        if not seen.asked:
            return judge(Phase.MAIL, None, "message_unusable", type(causes[0]).__name__)
        if seen.body is None:
            self.close()
        return self._unanswered(seen, causes) if seen.status is None else self._answered(seen)

    def _unanswered(self, seen: Seen, causes: list[BaseException]) -> Outcome:
        error = "dropped" if seen.out else "connect_failed"
        if seen.timed_out or any(isinstance(cause, TimeoutError) for cause in causes):
            error = "timed_out"
        elif any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            error = "certificate_refused"
        provider, why = self._url.provider, _why(causes)
        return judge_http(provider, None, out=seen.out, error=error, detail=why)

    def _answered(self, seen: Seen) -> Outcome:
        name, code, text = self._provider.read(seen.headers, _object(seen.body or b""))
        answer = Answer(
            seen.status or 0,
            code=str(code or ""),
            text=self._without_secrets(str(text or "")),
            message_id=_storable(name)[:200] if isinstance(name, str) else "",
            retry_after=_retry_after(seen.headers.get("Retry-After", "")),
            whole=seen.body is not None,
        )
        return judge_http(self._url.provider, answer, out=True)

    def _without_secrets(self, text: str) -> str:
        for secret in (self._url.user, self._url.secret):
            text = text.replace(secret, "...") if secret else text
        return text


def _storable(name: str) -> str:
    """Without what a database refuses: JSON can spell a NUL, and half of a surrogate pair."""
    return "".join(char for char in name if char.isprintable())


def _beyond(envelope: Envelope) -> str:
    """Which address no provider takes: none of them speaks SMTPUTF8 (RFC 6531)."""
    if not envelope.mail_from.isascii():
        return "sender_needs_smtputf8"
    return "" if envelope.rcpt_to.isascii() else "recipient_needs_smtputf8"


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after(value: str) -> float | None:
    """Seconds, from a number of them or a date (RFC 9110, section 10.2.3); an hour at most."""
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _causes(fault: BaseException) -> Iterator[BaseException]:
    """The fault and what it was raised from, down to the socket's own."""
    cause: BaseException | None = fault
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _why(causes: list[BaseException]) -> str:
    """In words, without the libraries' own: those quote the request."""
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(causes[-1]).__name__
