"""SMTP, one step at a time, so that every failure is known by its phase (RFC 5321).

One attempt a call: nothing is sent again behind the caller's back. The one exception is a kept
connection that turns out to be dead at MAIL, before any message was on its way.

What delivers is a generator of steps (steps.py), so that one thread can hold many dialogues.
Opening a connection blocks (name resolution and smtplib do), and is done aside.
"""

from __future__ import annotations

import base64
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from delivery.transports import Envelope, unusable
from delivery.transports.outcomes import Outcome, Phase, Reply, expected, judge
from delivery.transports.smtp_url import SmtpUrl, parse_smtp_url
from delivery.transports.steps import Aside, Steps, finish
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
    """Submits to one server; makes as many connections as are asked for.

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


class _Offer(NamedTuple):
    """What the server announced, as far as a message has to know it."""

    pipelining: bool
    smtputf8: bool
    size: bool
    eight_bit: bool
    largest: int  # bytes; 0: no limit (RFC 1870)


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
        self._steps = (
            _Step(Phase.MAIL, timeouts.command),
            _Step(Phase.RCPT, timeouts.command),
            _Step(Phase.DATA, timeouts.data),
        )
        self._wire: Wire | None = None
        self._offer = _Offer(False, False, False, False, 0)
        self._phase = Phase.CONNECT
        self._until = 0.0  # the end of this attempt, by the monotonic clock

    def send(self, envelope: Envelope) -> Outcome:
        """Make one attempt, blocking."""
        return finish(self.attempt(envelope))

    def close(self) -> None:
        """Say QUIT and close, blocking."""
        finish(self.closing())

    def attempt(self, envelope: Envelope) -> Steps[Outcome]:
        """Make one attempt. Never raises for anything that the network or the server does."""
        if error := unusable(envelope):
            return judge(Phase.MAIL, None, error, "the address holds forbidden characters")
        self._until = time.monotonic() + self._timeouts.whole
        try:
            kept = self._is_kept()
            outcome = yield from self._attempt(envelope)
            if kept and outcome.reason == "dropped" and outcome.phase is Phase.MAIL:
                outcome = yield from self._attempt(envelope)
            return outcome
        except BaseException:  # a signal in mid-dialogue: who knows where it stands
            self._drop()
            raise

    def closing(self) -> Steps[None]:
        """Say QUIT and close; what the server makes of it changes nothing."""
        try:
            if self._wire is not None:
                yield from self._ask("QUIT", _QUIT_SECONDS)
        finally:
            self._drop()

    def _is_kept(self) -> bool:
        """Whether an open connection is left; one that closed or spoke while idle is not."""
        if self._wire is not None and self._wire.heard() is not None:
            self._drop()
        return self._wire is not None

    def _attempt(self, envelope: Envelope) -> Steps[Outcome]:
        try:
            if self._wire is None:
                yield Aside(self._open)
            return (yield from self._deliver(envelope))
        except BrokenWire as broken:
            self._drop()
            return judge(self._phase, None, broken.error, broken.detail)
        except _Refused as refused:
            return (yield from self._judge_refusal(refused))

    def _open(self) -> None:
        self._wire = wire = Wire(self._local_hostname)
        self._enter(wire, Phase.CONNECT, self._timeouts.connect)
        wire.open(self._url.host, self._url.port)
        if self._url.security == "tls":
            self._encrypt(wire)
        self._enter(wire, Phase.GREETING, self._timeouts.greeting)
        self._check(*wire.getreply())
        self._hello(wire)
        if self._url.security == "starttls":
            self._start_tls(wire)
        if self._url.username:
            self._login(wire)
        self._offer = _offer(wire)
        wire.expect_silence()

    def _start_tls(self, wire: Wire) -> None:
        self._enter(wire, Phase.TLS, self._timeouts.command)
        self._check(*wire.ask_for_tls())
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
        self._enter(wire, Phase.AUTH, self._timeouts.command)
        if refused := wire.log_in(self._url.username, self._url.password):
            code, text = refused
            self._check(code, self._without_secrets(text))

    def _without_secrets(self, text: bytes | str) -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        user, password = self._url.username.encode(), self._url.password.encode()
        for secret in (password, b"\0" + user + b"\0" + password):
            for shown in (secret, base64.b64encode(secret)):
                raw = raw.replace(shown, b"...")
        return raw

    def _deliver(self, envelope: Envelope) -> Steps[Outcome]:
        wire = self._wire
        assert wire is not None
        body, size = _wire_form(envelope)
        offer = self._offer
        if unfit := _unfit(offer, envelope, size):
            return unfit
        commands = _commands(offer, envelope, size)
        if offer.pipelining:
            yield from self._say_together(wire, "".join(commands))
        else:
            for step, command in zip(self._steps, commands, strict=True):
                yield from self._say(wire, step, command)
        yield from self._write(wire, body)
        return judge(Phase.DOT, self._check(*(yield from wire.replying())))

    def _say(self, wire: Wire, step: _Step, command: str) -> Steps[None]:
        self._enter(wire, step.phase, step.seconds)
        yield from wire.sending(command)
        self._check(*(yield from wire.replying()))

    def _say_together(self, wire: Wire, commands: str) -> Steps[None]:
        """One write for MAIL, RCPT and DATA (RFC 2920); each reply has its own step's time."""
        self._enter(wire, Phase.MAIL, self._timeouts.command)
        yield from wire.sending(commands)
        for at, (phase, seconds) in enumerate(self._steps, 1):
            self._enter(wire, phase, seconds)
            try:
                self._check(*(yield from wire.replying()))
            except _Refused as refused:
                refused.unread = self._steps[at:]
                raise

    def _write(self, wire: Wire, body: bytes) -> Steps[None]:
        """Write the body, then the dot on its own: until it leaves nothing can be accepted.

        A server that has answered the body is not listening: its early 4xx would be taken for the dot's, and the copy
        that it then accepts would be followed by another.
        """
        self._enter(wire, Phase.BODY, self._timeouts.data)
        yield from wire.sending(body)
        wire.expect_silence()
        self._enter(wire, Phase.DOT, self._timeouts.dot)
        yield from wire.sending(b".\r\n")

    def _enter(self, wire: Wire, phase: Phase, seconds: float) -> None:
        self._phase = phase
        wire.limit(seconds, self._until)

    def _check(self, code: int, text: bytes) -> Reply:
        reply = Reply.parse(code, text)
        if not expected(self._phase, reply):
            raise _Refused(reply)
        return reply

    def _judge_refusal(self, refused: _Refused) -> Steps[Outcome]:
        if self._phase is Phase.DOT and (yield from self._contradicted(refused.reply)):
            outcome = judge(Phase.DOT, None, "out_of_step", refused.reply.text)
        else:
            outcome = judge(self._phase, refused.reply)
        if not (yield from self._recovered(refused)):
            self._drop()
        return outcome

    def _contradicted(self, reply: Reply) -> Steps[bool]:
        """Whether a refusal was not the dot's: an answer to the body that came after we looked.

        The dot's own is then the next, before the one to QUIT (221, RFC 5321 section 4.2.3).
        """
        if reply.code is None or not 400 <= reply.code <= 599:
            return False
        try:
            following = yield from self._answer(self._timeouts.command, "QUIT")
        except BrokenWire:
            return False
        return 200 <= following <= 299 and following != 221

    def _recovered(self, refused: _Refused) -> Steps[bool]:
        """Whether the connection can be kept: after a clean refusal the next message starts afresh."""
        return (
            _is_refusal(refused.reply.code)
            and self._phase in (Phase.MAIL, Phase.RCPT, Phase.DATA)
            and (yield from self._caught_up(refused.unread))
            and (yield from self._ask("RSET", _RSET_SECONDS))
        )

    def _caught_up(self, unread: Sequence[_Step]) -> Steps[bool]:
        """Read the answers to what was said after the refused command; False: the step is lost.

        A server may say 354 although no recipient is left: then it gets an empty message, which
        it must refuse (RFC 2920, section 3.1). One that took the recipient gets none.
        """
        try:
            for step in unread:
                code = yield from self._answer(step.seconds)
                if step.phase is Phase.DATA and code == 354:
                    code = yield from self._answer(step.seconds, ".")
                if not _is_refusal(code):
                    return False
        except BrokenWire:
            return False
        return True

    def _answer(self, seconds: float, command: str = "") -> Steps[int]:
        """Read one reply, to `command` if there is one. The phase stays where the refusal was."""
        assert self._wire is not None
        self._enter(self._wire, self._phase, seconds)
        if command:
            yield from self._wire.sending(f"{command}\r\n")
        return (yield from self._wire.replying())[0]

    def _ask(self, command: str, seconds: float) -> Steps[bool]:
        assert self._wire is not None
        try:
            self._wire.limit(min(seconds, self._timeouts.command))
            yield from self._wire.sending(f"{command}\r\n")
            return (yield from self._wire.replying())[0] == 250
        except BrokenWire:
            return False

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def _is_refusal(code: int | None) -> bool:
    """A reply after which the server still listens."""
    return code is not None and 400 <= code <= 599 and code != 421


def _offer(wire: Wire) -> _Offer:
    pipelining, smtputf8 = wire.has_extn("pipelining"), wire.has_extn("smtputf8")
    return _Offer(
        pipelining, smtputf8, wire.has_extn("size"), wire.has_extn("8bitmime"), wire.largest()
    )


def _unfit(offer: _Offer, envelope: Envelope, size: int) -> Outcome | None:
    """What the server has already said that it cannot take; nothing was sent yet."""
    if not offer.smtputf8:
        detail = "the address is not ASCII and the server does not announce SMTPUTF8"
        if not envelope.mail_from.isascii():
            return judge(Phase.MAIL, None, "sender_needs_smtputf8", detail)
        if not envelope.rcpt_to.isascii():
            return judge(Phase.MAIL, None, "recipient_needs_smtputf8", detail)
    if 0 < offer.largest < size:
        detail = f"the message has {size} bytes, the server takes {offer.largest}"
        return judge(Phase.MAIL, None, "message_too_large", detail)
    return None


def _commands(offer: _Offer, envelope: Envelope, size: int) -> tuple[str, str, str]:
    options = f" SIZE={size}" if offer.size else ""
    if offer.eight_bit:
        options += " BODY=8BITMIME"
    sender, recipient = envelope.mail_from, envelope.rcpt_to
    if not (sender.isascii() and recipient.isascii()):
        options += " SMTPUTF8"
    return f"MAIL FROM:<{sender}>{options}\r\n", f"RCPT TO:<{recipient}>\r\n", "DATA\r\n"


def _wire_form(envelope: Envelope) -> tuple[bytes, int]:
    """Return what follows 354, without the final dot, and its size as RFC 1870 counts it."""
    data = envelope.data
    if envelope.wire_ready:
        return data, len(data)
    line_ends = data.count(b"\r\n")
    if not line_ends == data.count(b"\n") == data.count(b"\r"):  # a bare one smuggles (RFC 5321)
        data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    stuffed = data.replace(b"\r\n.", b"\r\n..")
    return (b"." + stuffed if stuffed.startswith(b".") else stuffed), len(data)
