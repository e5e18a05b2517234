"""The bytes of an SMTP dialogue: smtplib's commands over a socket with one deadline a step.

smtplib's own time-outs start anew with each byte, so that a server that writes one byte a second
holds a sender for ever; its ``getreply`` also turns an over-long reply into a 500 and believes a
line that was cut off. This reader does neither. The socket never blocks: what waits is a generator
of steps, and smtplib's own calls drive the same ones to their end.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import time
from typing import Any

from delivery.transports.steps import Steps, Wait, finish

LINE_LIMIT = 8192
REPLY_LIMIT = 64 * 1024
CHUNK = 64 * 1024

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_LAST = {b"%d " % code: code for code in range(200, 600)}  # how a reply's last line begins
_CLOSED = "the server closed the connection"
_LATE = "the server did not answer in time"


class BrokenWire(Exception):
    """The dialogue cannot go on. ``error`` is a machine word, ``detail`` is for people."""

    def __init__(self, error: str, detail: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.detail = detail


class Wire(smtplib.SMTP):
    """One connection. Every method that waits stops at the deadline that ``limit`` set."""

    def __init__(self, local_hostname: str) -> None:
        super().__init__(local_hostname=local_hostname)
        self.command_encoding = "utf-8"  # ASCII, unless SMTPUTF8 was agreed on
        self._buffer = b""
        self._deadline = 0.0

    def limit(self, seconds: float, latest: float = float("inf")) -> None:
        """Start a step: from now on everything together may take so long, never beyond ``latest``."""
        end = time.monotonic() + seconds
        self._deadline = end if end < latest else latest

    def open(self, host: str, port: int) -> None:
        """Connect. Name resolution has the resolver's own time-out, not ours."""
        try:
            self.sock = socket.create_connection((host, port), self._remaining())
            self.sock.setblocking(False)
            with contextlib.suppress(OSError):  # it may have been reset already
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except TimeoutError:
            raise BrokenWire("timed_out", f"no connection to {host}:{port} in time") from None
        except (OSError, UnicodeError) as error:
            detail = f"no connection to {host}:{port}: {_why(error)}"
            raise BrokenWire("connect_failed", detail) from None

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS, checking the certificate against ``host`` as ``context`` demands."""
        if self._buffer:  # RFC 3207 section 6: an answer injected in the clear
            raise BrokenWire("early_reply", "bytes in the clear after the reply to STARTTLS")
        try:
            # Ours before the handshake: one that a signal cuts off is closed by `close` then.
            self.sock = encrypted = context.wrap_socket(
                self._socket(), server_hostname=host, do_handshake_on_connect=False
            )
            encrypted.settimeout(self._remaining())
            encrypted.do_handshake()
            encrypted.setblocking(False)
        except ssl.SSLCertVerificationError as error:
            raise BrokenWire("certificate_refused", error.verify_message) from None
        except TimeoutError:
            raise BrokenWire("timed_out", "the TLS handshake took too long") from None
        except (OSError, ValueError) as error:
            raise BrokenWire("tls_failed", _why(error)) from None

    def send(self, s: Any) -> None:
        """Write all of ``s`` (bytes, or str in the command encoding); blocks."""
        finish(self.sending(s))

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply; blocks."""
        return finish(self.replying())

    def sending(self, s: bytes | str) -> Steps[None]:
        """Write all of ``s`` (bytes, or str in the command encoding); nothing once it is late."""
        left: bytes | memoryview = s.encode(self.command_encoding) if isinstance(s, str) else s
        if len(left) > CHUNK:
            left = memoryview(left)
        while left:
            self._remaining()
            sock = self._socket()
            try:
                left = left[sock.send(left[:CHUNK]) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                yield Wait(sock, True, self._deadline)
            except ssl.SSLWantReadError:
                yield Wait(sock, False, self._deadline)
            except OSError as error:
                raise BrokenWire("dropped", _why(error)) from None

    def replying(self) -> Steps[tuple[int, bytes]]:
        """Read one reply, of one line or several, all with the same code (RFC 5321, 4.2.1)."""
        first, size = b"", 0
        texts: list[bytes] = []
        while True:
            while (line := self._line()) is None:
                yield from self._receiving()
            if not texts and (only := _LAST.get(line[:4])):
                return only, line[4:].strip()
            found = _LINE.fullmatch(line)
            size += len(line)
            if size > REPLY_LIMIT:
                raise BrokenWire("over_long_reply", f"more than {REPLY_LIMIT} bytes")
            if not found:
                raise BrokenWire("garbled_reply", line.decode("utf-8", "replace"))
            code, sign, text = found.groups()
            first = first or code
            if code != first:
                raise BrokenWire("garbled_reply", "the lines of a reply carry different codes")
            texts.append((text or b"").strip())
            if sign != b"-":
                return int(code), b"\n".join(texts)

    def largest(self) -> int:
        """The largest message that was announced, in bytes; 0: there is no limit (RFC 1870)."""
        limit = self.esmtp_features.get("size", "")
        return int(limit[:20]) if limit.isascii() and limit.isdigit() else 0

    def ask_for_tls(self) -> tuple[int, bytes]:
        """The reply to STARTTLS; blocks."""
        if not self.has_extn("starttls"):
            raise BrokenWire("starttls_not_offered", "the server does not announce STARTTLS")
        self.putcmd("STARTTLS")
        return self.getreply()

    def log_in(self, username: str, password: str) -> tuple[int, bytes | str] | None:
        """One mechanism and one try: three wrong tries of smtplib's can lock an account. The refusal, if there is one.

        It may quote what was sent. Blocks.
        """
        offered = self.esmtp_features.get("auth", "").upper().split()
        open_text = ("PLAIN", "LOGIN")
        hidden = isinstance(self.sock, ssl.SSLSocket)
        order = (*open_text, "CRAM-MD5") if hidden else ("CRAM-MD5", *open_text)
        mechanism = next((name for name in order if name in offered), None)
        if mechanism is None:
            detail = "the server announces no AUTH with PLAIN, LOGIN or CRAM-MD5"
            raise BrokenWire("auth_not_offered", detail)
        self.user, self.password = username, password
        answer = getattr(self, "auth_" + mechanism.lower().replace("-", "_"))
        try:
            self.auth(mechanism, answer)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code, error.smtp_error
        except (smtplib.SMTPException, ValueError):
            raise BrokenWire("garbled_reply", "the AUTH challenge cannot be read") from None
        return None

    def heard(self) -> bytes | None:
        """What arrived unasked: None is silence, b"" is the end of the connection."""
        if self._buffer:
            return self._buffer
        if self.sock is None:
            return b""
        try:
            return self.sock.recv(LINE_LIMIT)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            return b""

    def expect_silence(self) -> None:
        """Make sure that the next reply to be read is the answer to the next command.

        Fails too where the step has no time left.
        """
        self._remaining()
        heard = self.heard()
        if heard:
            raise BrokenWire("early_reply", heard.decode("utf-8", "replace"))
        if heard is not None:
            raise BrokenWire("dropped", _CLOSED)

    def close(self) -> None:
        """Close the socket; never raise."""
        with contextlib.suppress(OSError):
            super().close()

    def _line(self) -> bytes | None:
        """The next line of what has come, without its end; None: it is not whole yet."""
        line, end, rest = self._buffer.partition(b"\n")
        if len(line) >= LINE_LIMIT:
            raise BrokenWire("over_long_reply", f"a line of more than {LINE_LIMIT} bytes")
        if not end:
            return None
        self._buffer = rest
        return line.removesuffix(b"\r")

    def _receiving(self) -> Steps[None]:
        """Add to the buffer what comes. Once it is late, only what is there already is taken."""
        sock, writing = self._socket(), False
        while True:
            late = time.monotonic() >= self._deadline
            if not late and not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
                yield Wait(sock, writing, self._deadline)
            try:
                got = sock.recv(LINE_LIMIT)
                break
            except (BlockingIOError, ssl.SSLWantReadError):
                writing = False
            except ssl.SSLWantWriteError:
                writing = True
            except OSError as error:
                raise BrokenWire("dropped", _why(error)) from None
            if late:
                raise BrokenWire("timed_out", _LATE)
        if not got:
            raise BrokenWire("dropped", _CLOSED)
        self._buffer += got

    def _socket(self) -> socket.socket:
        if self.sock is None:
            raise BrokenWire("dropped", "the connection is closed")
        return self.sock

    def _remaining(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise BrokenWire("timed_out", _LATE)
        return left


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
