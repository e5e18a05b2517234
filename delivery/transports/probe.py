"""What an SMTP server tells of itself, without a mail: how far it is, what it can, how many connections it lets in."""

from __future__ import annotations

import base64
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from delivery.errors import EdgeError
from delivery.transports.smtp_url import SmtpUrl
from delivery.transports.wire import BrokenWire, Wire

NOOPS = 10
STEP_SECONDS = 10.0
QUIT_SECONDS = 2.0


@dataclass(frozen=True)
class Probe:
    """`round_trip` and `opening` in seconds (median of NOOPs; first byte to the end of AUTH).

    `extensions` are EHLO's keywords in upper case; `size` is the largest message in bytes (0: no limit is announced);
    `admitted` connections were open at once; `refusal` is what the next one met, empty where all were let in.
    """

    round_trip: float
    opening: float
    extensions: frozenset[str]
    size: int
    admitted: int
    refusal: str


class _No(Exception):
    """What the server said, or what went wrong with it."""


def probe(
    url: SmtpUrl,
    *,
    connections: int,
    local_hostname: str,
    seconds: float = 30.0,
    tls_context: ssl.SSLContext | None = None,
) -> Probe:
    """Open up to `connections`, one after the other, with TLS and AUTH as configured; each ends with QUIT.

    No further one is opened after the first refusal, nor once `seconds` are over. Raises EdgeError, without a
    secret, where not even one is let in.
    """
    encrypted = url.security != "plain"
    caller = _Caller(
        url, local_hostname, tls_context or (ssl.create_default_context() if encrypted else None)
    )
    end = time.monotonic() + seconds
    try:
        began = time.monotonic()
        wire = caller.open()
        opening = time.monotonic() - began
        round_trip = median(caller.ask_nothing() for _ in range(NOOPS))
        refusal = caller.open_more(connections, end)
        return _described(wire, round_trip, opening, len(caller.wires), refusal)
    except _No as no:
        raise EdgeError(str(no)) from None
    finally:
        caller.leave()


def _described(wire: Wire, round_trip: float, opening: float, admitted: int, refusal: str) -> Probe:
    return Probe(
        round_trip=round_trip,
        opening=opening,
        extensions=frozenset(name.upper() for name in wire.esmtp_features),
        size=wire.largest(),
        admitted=admitted,
        refusal=refusal,
    )


class _Caller:
    """Opens connections to one server, and keeps those that it let in."""

    def __init__(self, url: SmtpUrl, local_hostname: str, tls: ssl.SSLContext | None) -> None:
        self.url = url
        self.local_hostname = local_hostname
        self.tls = tls
        self.wires: list[Wire] = []
        self.step = ""

    def open(self) -> Wire:
        """One more. Raises _No."""
        wire = Wire(self.local_hostname)
        try:
            self._open(wire)
        except BrokenWire as broken:
            wire.close()
            raise self._no(broken.detail or broken.error) from None
        except _No:
            wire.close()
            raise
        self.wires.append(wire)
        return wire

    def open_more(self, connections: int, end: float) -> str:
        """Up to so many in all, until the monotonic time `end`; what the first refused one met."""
        while len(self.wires) < connections and time.monotonic() < end:
            try:
                self.open()
            except _No as no:
                return str(no)
        return ""

    def ask_nothing(self) -> float:
        """Seconds of a round trip, whatever the answer is."""
        wire = self.wires[0]
        self._enter(wire, "NOOP")
        began = time.monotonic()
        try:
            wire.putcmd("NOOP")
            code, text = wire.getreply()
        except BrokenWire as broken:
            raise self._no(broken.detail or broken.error) from None
        if code == 421:
            raise self._no(f"{code} {text.decode('utf-8', 'replace')}")
        return time.monotonic() - began

    def leave(self) -> None:
        """QUIT to all; those that hang are waited for together."""
        end = time.monotonic() + QUIT_SECONDS
        for wire in self.wires:
            with suppress(BrokenWire):
                wire.limit(end - time.monotonic())
                wire.putcmd("QUIT")
        for wire in self.wires:
            with suppress(BrokenWire):
                wire.limit(end - time.monotonic())
                wire.getreply()
            wire.close()

    def _open(self, wire: Wire) -> None:
        self._enter(wire, "connect")
        wire.open(self.url.host, self.url.port)
        if self.url.security == "tls":
            self._encrypt(wire)
        self._enter(wire, "greeting")
        self._expect(220, *wire.getreply())
        self._hello(wire)
        if self.url.security == "starttls":
            self._enter(wire, "STARTTLS")
            self._expect(220, *wire.ask_for_tls())
            self._encrypt(wire)
            self._hello(wire)
        if self.url.username:
            self._login(wire)

    def _encrypt(self, wire: Wire) -> None:
        assert self.tls is not None, "an encrypted URL comes with a context"
        self._enter(wire, "TLS")
        wire.encrypt(self.tls, self.url.host)

    def _hello(self, wire: Wire) -> None:
        self._enter(wire, "EHLO")
        wire.expect_silence()
        self._expect(250, *wire.ehlo())

    def _login(self, wire: Wire) -> None:
        self._enter(wire, "AUTH")
        if refused := wire.log_in(self.url.username, self.url.password):
            code, said = refused
            text = said if isinstance(said, str) else said.decode("utf-8", "replace")
            raise self._no(f"{code} {text}")

    def _enter(self, wire: Wire, step: str) -> None:
        self.step = step
        wire.limit(STEP_SECONDS)

    def _expect(self, wanted: int, code: int, text: bytes) -> None:
        if code != wanted:
            raise self._no(f"{code} {text.decode('utf-8', 'replace')}")

    def _no(self, said: str) -> _No:
        """In one printable line, without user or password, whoever quotes them."""
        user, password = self.url.username, self.url.password
        for secret in (password, f"\0{user}\0{password}", user):
            for shown in (secret, base64.b64encode(secret.encode()).decode()):
                said = said.replace(shown, "...") if secret else said
        words = "".join(char if char.isprintable() else " " for char in said).split()
        return _No(f"{self.step}: {' '.join(words)[:300]}")
