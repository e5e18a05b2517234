"""SMTP, one step at a time, so that every failure is known by its phase (RFC 5321).

One attempt a call: nothing is sent again behind the caller's back. The one exception is a kept
connection that turns out to be dead at MAIL, before any message was on its way.
"""

from __future__ import annotations

import base64
import re
import smtplib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from delivery.transports import Envelope, unusable
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
    writing the body. ``dot``: the reply to the end of DATA. ``whole``: all of one attempt, the
    opening of the connection included; no step lasts beyond it.
    """

    connect: float = 10
    greeting: float = 30
    command: float = 30
    data: float = 60
    dot: float = 60
    whole: float = 180


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


class _Step(NamedTuple):
    phase: Phase
    seconds: float
    command: str


class _Refused(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__("refused")
        self.reply = reply
        self.unread: Sequence[_Step] = ()  # said together with what was refused


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
        self._until = 0.0  # the end of this attempt, by the monotonic clock

    def send(self, envelope: Envelope) -> Outcome:
        """Make one attempt. Never raises for anything that the network or the server does."""
        if error := unusable(envelope):
            return judge(Phase.MAIL, None, error, "the address holds forbidden characters")
        self._until = time.monotonic() + self._timeouts.whole
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
            return self._judge_refusal(refused)

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
        wire.expect_silence()
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
        wire.expect_silence()
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
        steps = self._steps(wire, envelope, size)
        if wire.has_extn("pipelining"):
            self._say_together(wire, steps)
        else:
            for step in steps:
                self._say(wire, step)
        self._write(wire, body)
        return judge(Phase.DOT, self._listen(wire))

    def _steps(self, wire: Wire, envelope: Envelope, size: int) -> Sequence[_Step]:
        options = _mail_options(wire, envelope, size)
        command, data = self._timeouts.command, self._timeouts.data
        return (
            _Step(Phase.MAIL, command, f"MAIL FROM:<{envelope.mail_from}>{options}"),
            _Step(Phase.RCPT, command, f"RCPT TO:<{envelope.rcpt_to}>"),
            _Step(Phase.DATA, data, "DATA"),
        )

    def _say(self, wire: Wire, step: _Step) -> None:
        self._enter(wire, step.phase, step.seconds)
        wire.putcmd(step.command)
        self._listen(wire)

    def _say_together(self, wire: Wire, steps: Sequence[_Step]) -> None:
        """One write for MAIL, RCPT and DATA (RFC 2920); each reply has its own step's time."""
        self._enter(wire, steps[0].phase, steps[0].seconds)
        wire.send("".join(f"{step.command}\r\n" for step in steps))
        for at, step in enumerate(steps, 1):
            self._enter(wire, step.phase, step.seconds)
            try:
                self._listen(wire)
            except _Refused as refused:
                refused.unread = steps[at:]
                raise

    def _write(self, wire: Wire, body: bytes) -> None:
        """Write the body, then the dot on its own: until it leaves nothing can be accepted.

        A server that has answered the body is not listening: its early 4xx would be taken for the dot's, and the copy
        that it then accepts would be followed by another.
        """
        self._enter(wire, Phase.BODY, self._timeouts.data)
        wire.send(body)
        wire.expect_silence()
        self._enter(wire, Phase.DOT, self._timeouts.dot)
        wire.send(b".\r\n")

    def _enter(self, wire: Wire, phase: Phase, seconds: float) -> None:
        self._phase = phase
        wire.limit(min(seconds, self._until - time.monotonic()))

    def _listen(self, wire: Wire) -> Reply:
        return self._check(*wire.getreply())

    def _check(self, code: int, text: bytes) -> Reply:
        reply = Reply.parse(code, text)
        if not expected(self._phase, reply):
            raise _Refused(reply)
        return reply

    def _judge_refusal(self, refused: _Refused) -> Outcome:
        if self._phase is Phase.DOT and self._contradicted(refused.reply):
            outcome = judge(Phase.DOT, None, "out_of_step", refused.reply.text)
        else:
            outcome = judge(self._phase, refused.reply)
        if not self._recovered(refused):
            self._drop()
        return outcome

    def _contradicted(self, reply: Reply) -> bool:
        """Whether a refusal was not the dot's: an answer to the body that came after we looked.

        The dot's own is then the next, before the one to QUIT (221, RFC 5321 section 4.2.3).
        """
        if reply.code is None or not 400 <= reply.code <= 599:
            return False
        try:
            following = self._answer(self._timeouts.command, "QUIT")
        except BrokenWire:
            return False
        return 200 <= following <= 299 and following != 221

    def _recovered(self, refused: _Refused) -> bool:
        """Whether the connection can be kept: after a clean refusal the next message starts afresh."""
        return (
            _is_refusal(refused.reply.code)
            and self._phase in (Phase.MAIL, Phase.RCPT, Phase.DATA)
            and self._caught_up(refused.unread)
            and self._ask("RSET", _RSET_SECONDS)
        )

    def _caught_up(self, unread: Sequence[_Step]) -> bool:
        """Read the answers to what was said after the refused command; False: the step is lost.

        A server may say 354 although no recipient is left: then it gets an empty message, which
        it must refuse (RFC 2920, section 3.1). One that took the recipient gets none.
        """
        try:
            for step in unread:
                code = self._answer(step.seconds)
                if step.phase is Phase.DATA and code == 354:
                    code = self._answer(step.seconds, ".")
                if not _is_refusal(code):
                    return False
        except BrokenWire:
            return False
        return True

    def _answer(self, seconds: float, command: str = "") -> int:
        """Read one reply, to `command` if there is one. The phase stays where the refusal was."""
        assert self._wire is not None
        self._enter(self._wire, self._phase, seconds)
        if command:
            self._wire.putcmd(command)
        return self._wire.getreply()[0]

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


def _is_refusal(code: int | None) -> bool:
    """A reply after which the server still listens."""
    return code is not None and 400 <= code <= 599 and code != 421


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
