"""The bytes of an SMTP dialogue: smtplib's commands over a socket with one deadline a step.

smtplib's own time-outs start anew with each byte, so that a server that writes one byte a second
holds a sender for ever; its ``getreply`` also turns an over-long reply into a 500 and believes a
line that was cut off. This reader does neither.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LINE_LIMIT = 8192
REPLY_LIMIT = 64 * 1024
CHUNK = 64 * 1024

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)


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
        self._buffer = bytearray()
        self._deadline = 0.0

    def limit(self, seconds: float) -> None:
        """Start a step: from now on everything together may take so long."""
        self._deadline = time.monotonic() + seconds

    def open(self, host: str, port: int) -> None:
        """Connect. Name resolution has the resolver's own time-out, not ours."""
        try:
            self.sock = socket.create_connection((host, port), self._remaining())
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
            encrypted.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise BrokenWire("certificate_refused", error.verify_message) from None
        except TimeoutError:
            raise BrokenWire("timed_out", "the TLS handshake took too long") from None
        except (OSError, ValueError) as error:
            raise BrokenWire("tls_failed", _why(error)) from None

    def send(self, s: Any) -> None:
        """Write all of ``s`` (bytes, or str in the command encoding)."""
        left = memoryview(s.encode(self.command_encoding) if isinstance(s, str) else s)
        while left:
            left = left[self._guarded(self._write, left[:CHUNK]) :]

    def getreply(self) -> tuple[int, bytes]:
        """Read one reply, of one line or several, all with the same code (RFC 5321, 4.2.1)."""
        codes, texts, size = set(), [], 0
        more = True
        while more:
            line = self._line()
            found = _LINE.fullmatch(line)
            size += len(line)
            if size > REPLY_LIMIT:
                raise BrokenWire("over_long_reply", f"more than {REPLY_LIMIT} bytes")
            if not found:
                raise BrokenWire("garbled_reply", line.decode("utf-8", "replace"))
            codes.add(found[1])
            texts.append((found[3] or b"").strip())
            more = found[2] == b"-"
        if len(codes) > 1:
            raise BrokenWire("garbled_reply", "the lines of a reply carry different codes")
        return int(codes.pop()), b"\n".join(texts)

    def heard(self) -> bytes | None:
        """What arrived unasked: None is silence, b"" is the end of the connection."""
        if self._buffer:
            return bytes(self._buffer)
        if self.sock is None:
            return b""
        try:
            self.sock.settimeout(0)
            return self.sock.recv(LINE_LIMIT)
        except (BlockingIOError, ssl.SSLWantReadError):
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
            raise BrokenWire("dropped", "the server closed the connection")

    def close(self) -> None:
        """Close the socket; never raise."""
        with contextlib.suppress(OSError):
            super().close()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n", 0, LINE_LIMIT)) < 0:
            if len(self._buffer) >= LINE_LIMIT:
                raise BrokenWire("over_long_reply", f"a line of more than {LINE_LIMIT} bytes")
            got = self._guarded(self._read)
            if not got:
                raise BrokenWire("dropped", "the server closed the connection")
            self._buffer += got
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _write(self, data: memoryview) -> int:
        return self._socket().send(data)

    def _read(self) -> bytes:
        return self._socket().recv(LINE_LIMIT)

    def _guarded(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except TimeoutError:
            raise BrokenWire("timed_out", "the server did not answer in time") from None
        except OSError as error:
            raise BrokenWire("dropped", _why(error)) from None

    def _socket(self) -> socket.socket:
        if self.sock is None:
            raise BrokenWire("dropped", "the connection is closed")
        self.sock.settimeout(self._remaining())
        return self.sock

    def _remaining(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise BrokenWire("timed_out", "the server did not answer in time")
        return left


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
