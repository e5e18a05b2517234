"""SMTP, one step at a time, so that every failure is known by its phase (RFC 5321).

One attempt a call: nothing is sent again behind the caller's back. The one exception is a kept
connection that turns out to be dead at MAIL, before any message was on its way.
"""

from __future__ import annotations

import base64
import re
import smtplib
import ssl
from dataclasses import dataclass

from delivery.transports import Envelope
from delivery.transports.outcomes import Outcome, Phase, Reply, expected, judge
from delivery.transports.smtp_url import SmtpUrl, parse_smtp_url
from delivery.transports.wire import BrokenWire, Wire

__all__ = ["SmtpConnection", "SmtpTransport", "SmtpUrl", "Timeouts", "parse_smtp_url"]

_QUIT_SECONDS = 2.0
_RSET_SECONDS = 5.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds for a whole step, however slowly its bytes come.

    ``command``: EHLO, TLS, AUTH, MAIL, RCPT each. ``data``: the reply to DATA, and again for
    writing the body. ``dot``: the reply to the end of DATA.
    """

    connect: float = 10
    greeting: float = 30
    command: float = 30
    data: float = 60
    dot: float = 60


class SmtpTransport:
    """Submits to one server; makes a connection for each thread that sends.

    ``local_hostname`` is what EHLO says. ``tls_context`` is for a private certificate authority;
    by default the system's authorities are asked and the host's name is checked.
    """

    def __init__(
        self,
        url: SmtpUrl,
        *,
        timeouts: Timeouts | None = None,
        local_hostname: str,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", local_hostname):
            raise ValueError("SMTP: the local host name must be a domain name or [address]")
        self._url = url
        self._timeouts = timeouts or Timeouts()
        self._local_hostname = local_hostname
        encrypted = url.security != "plain"
        self._tls = tls_context or (ssl.create_default_context() if encrypted else None)

    def connect(self) -> SmtpConnection:
        """Return a connection that opens itself at its first send."""
        return SmtpConnection(self._url, self._timeouts, self._local_hostname, self._tls)


class _Refused(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__("refused")
        self.reply = reply


class SmtpConnection:
    """One kept connection, opened when needed and opened anew when it has lost its step."""

    def __init__(
        self, url: SmtpUrl, timeouts: Timeouts, local_hostname: str, tls: ssl.SSLContext | None
    ) -> None:
        self._url = url
        self._timeouts = timeouts
        self._local_hostname = local_hostname
        self._tls = tls
        self._wire: Wire | None = None
        self._phase = Phase.CONNECT

    def send(self, envelope: Envelope) -> Outcome:
        """Make one attempt. Never raises for anything that the network or the server does."""
        if error := _unusable(envelope):
            return judge(Phase.MAIL, None, error, "the address holds forbidden characters")
        try:
            kept = self._is_kept()
            outcome = self._attempt(envelope)
            if kept and outcome.phase is Phase.MAIL and outcome.reason == "dropped":
                outcome = self._attempt(envelope)
            return outcome
        except BaseException:  # a signal in mid-dialogue: who knows where it stands
            self._drop()
            raise

    def close(self) -> None:
        """Say QUIT and close; what the server makes of it changes nothing."""
        if self._wire is not None:
            self._ask("QUIT", _QUIT_SECONDS)
        self._drop()

    def _is_kept(self) -> bool:
        """Whether an open connection is left; one that closed or spoke while idle is not."""
        if self._wire is not None and self._wire.heard() is not None:
            self._drop()
        return self._wire is not None

    def _attempt(self, envelope: Envelope) -> Outcome:
        try:
            return self._deliver(self._opened(), envelope)
        except BrokenWire as broken:
            self._drop()
            return judge(self._phase, None, broken.error, broken.detail)
        except _Refused as refused:
            self._recover(refused.reply)
            return judge(self._phase, refused.reply)

    def _opened(self) -> Wire:
        if self._wire is not None:
            return self._wire
        self._wire = wire = Wire(self._local_hostname)
        self._enter(wire, Phase.CONNECT, self._timeouts.connect)
        wire.open(self._url.host, self._url.port)
        if self._url.security == "tls":
            self._encrypt(wire)
        self._enter(wire, Phase.GREETING, self._timeouts.greeting)
        self._listen(wire)
        self._hello(wire)
        if self._url.security == "starttls":
            self._start_tls(wire)
        if self._url.username:
            self._login(wire)
        return wire

    def _start_tls(self, wire: Wire) -> None:
        self._enter(wire, Phase.TLS, self._timeouts.command)
        if not wire.has_extn("starttls"):
            raise BrokenWire("starttls_not_offered", "the server does not announce STARTTLS")
        wire.putcmd("STARTTLS")
        self._listen(wire)
        self._encrypt(wire)
        self._hello(wire)

    def _encrypt(self, wire: Wire) -> None:
        self._enter(wire, Phase.TLS, self._timeouts.command)
        assert self._tls is not None, "an encrypted URL comes with a context"
        wire.encrypt(self._tls, self._url.host)

    def _hello(self, wire: Wire) -> None:
        self._enter(wire, Phase.EHLO, self._timeouts.command)
        self._check(*wire.ehlo())

    def _login(self, wire: Wire) -> None:
        """One mechanism and one try: three wrong tries of smtplib's can lock an account."""
        self._enter(wire, Phase.AUTH, self._timeouts.command)
        offered = wire.esmtp_features.get("auth", "").upper().split()
        open_text = ("PLAIN", "LOGIN")
        order = ("CRAM-MD5", *open_text) if self._tls is None else (*open_text, "CRAM-MD5")
        mechanism = next((name for name in order if name in offered), None)
        if mechanism is None:
            detail = "the server announces no AUTH with PLAIN, LOGIN or CRAM-MD5"
            raise BrokenWire("auth_not_offered", detail)
        wire.user, wire.password = self._url.username, self._url.password
        answer = getattr(wire, "auth_" + mechanism.lower().replace("-", "_"))
        try:
            wire.auth(mechanism, answer)
        except smtplib.SMTPAuthenticationError as error:
            self._check(error.smtp_code, self._without_secrets(error.smtp_error))
        except (smtplib.SMTPException, ValueError):
            raise BrokenWire("garbled_reply", "the AUTH challenge cannot be read") from None

    def _without_secrets(self, text: bytes | str) -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        user, password = self._url.username.encode(), self._url.password.encode()
        for secret in (password, b"\0" + user + b"\0" + password):
            for shown in (secret, base64.b64encode(secret)):
                raw = raw.replace(shown, b"...")
        return raw

    def _deliver(self, wire: Wire, envelope: Envelope) -> Outcome:
        body, size = _wire_form(envelope.data)
        if unfit := _unfit(wire, envelope, size):
            return unfit
        seconds = self._timeouts
        options = _mail_options(wire, envelope, size)
        self._step(wire, Phase.MAIL, seconds.command, f"MAIL FROM:<{envelope.mail_from}>{options}")
        self._step(wire, Phase.RCPT, seconds.command, f"RCPT TO:<{envelope.rcpt_to}>")
        self._step(wire, Phase.DATA, seconds.data, "DATA")
        self._enter(wire, Phase.BODY, seconds.data)
        wire.send(body)
        wire.expect_silence()
        return judge(Phase.DOT, self._step(wire, Phase.DOT, seconds.dot, "."))

    def _step(self, wire: Wire, phase: Phase, seconds: float, command: str) -> Reply:
        self._enter(wire, phase, seconds)
        wire.putcmd(command)
        return self._listen(wire)

    def _enter(self, wire: Wire, phase: Phase, seconds: float) -> None:
        self._phase = phase
        wire.limit(seconds)

    def _listen(self, wire: Wire) -> Reply:
        return self._check(*wire.getreply())

    def _check(self, code: int, text: bytes) -> Reply:
        reply = Reply.parse(code, text)
        if not expected(self._phase, reply):
            raise _Refused(reply)
        return reply

    def _recover(self, reply: Reply) -> None:
        """Keep the connection after a clean refusal; the next message starts afresh."""
        clean = reply.code is not None and reply.code >= 400 and reply.code != 421
        if clean and self._phase is Phase.DOT:
            return
        in_message = self._phase in (Phase.MAIL, Phase.RCPT, Phase.DATA)
        if not (clean and in_message and self._ask("RSET", _RSET_SECONDS)):
            self._drop()

    def _ask(self, command: str, seconds: float) -> bool:
        assert self._wire is not None
        try:
            self._wire.limit(min(seconds, self._timeouts.command))
            self._wire.putcmd(command)
            return self._wire.getreply()[0] == 250
        except BrokenWire:
            return False

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


_FORBIDDEN = re.compile(r"[\x00-\x20\x7f<>]|[\ud800-\udfff]")


def _unusable(envelope: Envelope) -> str:
    """An address could otherwise carry a second command or parameter."""
    if _FORBIDDEN.search(envelope.mail_from):
        return "sender_unusable"
    if not envelope.rcpt_to or _FORBIDDEN.search(envelope.rcpt_to):
        return "recipient_unusable"
    return ""


def _unfit(wire: Wire, envelope: Envelope, size: int) -> Outcome | None:
    """What the server has already said that it cannot take; nothing was sent yet."""
    if not wire.has_extn("smtputf8"):
        detail = "the address is not ASCII and the server does not announce SMTPUTF8"
        if not envelope.mail_from.isascii():
            return judge(Phase.MAIL, None, "sender_needs_smtputf8", detail)
        if not envelope.rcpt_to.isascii():
            return judge(Phase.MAIL, None, "recipient_needs_smtputf8", detail)
    limit = wire.esmtp_features.get("size", "")
    if limit.isascii() and limit.isdigit() and 0 < int(limit[:20]) < size:  # 0: no limit, RFC 1870
        detail = f"the message has {size} bytes, the server takes {limit}"
        return judge(Phase.MAIL, None, "message_too_large", detail)
    return None


def _mail_options(wire: Wire, envelope: Envelope, size: int) -> str:
    options = ""
    if wire.has_extn("size"):
        options += f" SIZE={size}"
    if wire.has_extn("8bitmime"):
        options += " BODY=8BITMIME"
    if not (envelope.mail_from + envelope.rcpt_to).isascii():
        options += " SMTPUTF8"
    return options


def _wire_form(data: bytes) -> tuple[bytes, int]:
    """Return what follows 354, without the final dot, and its size as RFC 1870 counts it."""
    line_ends = data.count(b"\r\n")
    if not line_ends == data.count(b"\n") == data.count(b"\r"):  # a bare one smuggles (RFC 5321)
        data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return (b"." + stuffed if stuffed.startswith(b".") else stuffed), len(data)
