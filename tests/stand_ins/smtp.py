"""A real SMTP server that remembers every copy and misbehaves on command.

It is written on sockets, shares no line with what it tests, and so can be an independent witness::

    with SmtpStandIn() as server:
        server.on("rcpt", say("550 5.1.1 no such user"), recipient="bob@example.org")
        server.on("dot", accept_then_drop(), times=1)
        ...
        assert server.accepted() == Counter({"alice@example.org": 1})

Phases: greeting, ehlo, starttls, auth, mail, rcpt, data, body, dot, rset, noop, quit. An act at ``body``
happens when the first bytes of the body have come in. A copy is recorded before its reply goes out.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Self

from tests.stand_ins.certificate import client_context, server_context
from tests.stand_ins.smtp_acts import (
    Act,
    accept_then_drop,
    drop,
    garbled,
    long_line,
    say,
    say_then_drop,
    stall,
    trickle,
)

__all__ = [
    "Act",
    "Copy",
    "SmtpStandIn",
    "accept_then_drop",
    "drop",
    "garbled",
    "long_line",
    "say",
    "say_then_drop",
    "stall",
    "trickle",
    "trusting",
]


@dataclass(frozen=True)
class Copy:
    """One message as it came in; ``data`` without dot-stuffing, in part if it was cut off."""

    mail_from: str
    rcpt_to: tuple[str, ...]
    data: bytes
    accepted: bool
    connection: int  # 1, 2, ...
    at: float  # time.monotonic()


@dataclass
class _Order:
    phase: str
    act: Act
    recipient: str
    times: float


class SmtpStandIn:
    """``security``: plain, starttls or tls. ``auth``: (user, password) that are demanded.

    ``size``: the SIZE that is announced. ``extensions``: further EHLO keywords. ``keep_data``
    False forgets the bodies, for runs with many messages.
    """

    def __init__(
        self,
        *,
        security: str = "plain",
        auth: tuple[str, str] | None = None,
        size: int = 26_214_400,
        extensions: tuple[str, ...] = ("8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "PIPELINING"),
        keep_data: bool = True,
    ) -> None:
        self.security, self.auth, self.keep_data = security, auth, keep_data
        self.extensions = (f"SIZE {size}", *extensions)
        self.port = 0
        self.connections = 0
        self.ahead = 0  # the most commands that ever lay behind the one that was being answered
        self.commands: deque[tuple[int, str]] = deque(maxlen=20_000)  # (connection, line)
        self.stopping = threading.Event()
        self._copies: list[Copy] = []
        self._orders: list[_Order] = []
        self._lock = threading.Lock()
        self._open: dict[_Session, threading.Thread] = {}

    @property
    def url(self) -> str:
        """The SMTP URL, with user and password if they are demanded."""
        scheme = {"plain": "smtp", "starttls": "smtp+starttls", "tls": "smtps"}[self.security]
        user = "{}:{}@".format(*self.auth) if self.auth else ""
        return f"{scheme}://{user}127.0.0.1:{self.port}"

    @property
    def copies(self) -> list[Copy]:
        """Every copy so far, in the order in which their ends came in."""
        with self._lock:
            return list(self._copies)

    def accepted(self) -> Counter[str]:
        """How many accepted copies each recipient has."""
        return Counter(to for copy in self.copies if copy.accepted for to in copy.rcpt_to)

    def said(self, verb: str) -> list[str]:
        """The command lines so far that begin with ``verb``."""
        return [line for _, line in list(self.commands) if line.upper().startswith(verb.upper())]

    def on(self, phase: str, act: Act, *, recipient: str = "", times: float = float("inf")) -> None:
        """Misbehave at ``phase``, for one recipient or all, so many times; oldest order first."""
        with self._lock:
            self._orders.append(_Order(phase, act, recipient, times))

    def behave(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()

    def wait_for(self, copies: int, seconds: float = 10) -> list[Copy]:
        """Return the copies as soon as there are so many; fail after ``seconds``."""
        end = time.monotonic() + seconds
        while len(found := self.copies) < copies:
            assert time.monotonic() < end, f"{len(found)} of {copies} copies came in"
            time.sleep(0.005)
        return found

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after a ``stop``, on the same port again."""
        self.stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Close everything at once, as a crash would."""
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        self.hang_up()

    def hang_up(self) -> None:
        """Close all open connections, and wait until they are gone; the server goes on."""
        with self._lock:
            sessions = dict(self._open)
        for session, thread in sessions.items():
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)
            thread.join(5)

    def record(self, copy: Copy) -> None:
        """Remember a copy."""
        with self._lock:
            self._copies.append(copy if self.keep_data else replace(copy, data=b""))

    def act(self, phase: str, recipients: tuple[str, ...]) -> Act | None:
        """The act that is ordered for now, counted as done."""
        if not self._orders:
            return None
        with self._lock:
            for order in self._orders:
                fits = not order.recipient or order.recipient in recipients
                if order.phase == phase and fits and order.times > 0:
                    order.times -= 1
                    return order.act
        return None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with contextlib.suppress(OSError):  # the client may be gone already
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                session = _Session(self, sock, self.connections)
                thread = threading.Thread(target=self._serve, args=(session,), daemon=True)
                with self._lock:
                    self._open[session] = thread
                thread.start()

    def _serve(self, session: _Session) -> None:
        with contextlib.suppress(OSError, _Gone):  # ssl.SSLError is an OSError
            session.run()
        with self._lock:
            self._open.pop(session, None)
        with contextlib.suppress(OSError):
            session.sock.close()


class _Gone(Exception):
    pass


class _Session:
    """One connection's dialogue."""

    def __init__(self, server: SmtpStandIn, sock: socket.socket, number: int) -> None:
        self.server, self.sock, self.number = server, sock, number
        self.buffer = bytearray()
        self.mail_from = ""
        self.begun = False
        self.recipients: tuple[str, ...] = ()
        self.encrypted = self.trusted = False

    def run(self) -> None:
        if self.server.security == "tls":
            self.encrypt()
        self.answer("greeting", "220 stand-in.test ESMTP")
        while True:
            line = self.line().decode("utf-8", "surrogateescape")
            self.server.commands.append((self.number, line))
            self.server.ahead = max(self.server.ahead, self.buffer.count(b"\r\n"))
            verb = line.partition(" ")[0].upper()
            handler = getattr(self, f"do_{verb.lower()}", None)
            if handler is None:
                self.send(b"502 5.5.1 command not known\r\n")
            else:
                handler(line)

    def do_ehlo(self, line: str) -> None:
        keywords = list(self.server.extensions)
        if self.server.security == "starttls" and not self.encrypted:
            keywords.append("STARTTLS")
        if self.server.auth:
            keywords.append("AUTH PLAIN LOGIN")
        lines = ["stand-in.test", *keywords]
        shown = [f"250-{text}" for text in lines[:-1]] + [f"250 {lines[-1]}"]
        self.answer("ehlo", "\r\n".join(shown))

    def do_starttls(self, line: str) -> None:
        if self.answer("starttls", "220 2.0.0 go ahead") == 220:
            self.encrypt()

    def do_auth(self, line: str) -> None:
        assert self.server.auth
        user, password = self.server.auth
        proof = line.rpartition(" ")[2]
        right = base64.b64encode(f"\0{user}\0{password}".encode()).decode() == proof
        usual = "235 2.7.0 welcome" if right else "535 5.7.8 who are you?"
        self.trusted = self.answer("auth", usual) == 235

    def do_mail(self, line: str) -> None:
        self.mail_from, self.recipients = _path(line), ()
        asked = self.server.auth and not self.trusted
        usual = "530 5.7.0 sign in first" if asked else "250 2.1.0 ok"
        self.begun = self.answer("mail", usual) // 100 == 2

    def do_rcpt(self, line: str) -> None:
        recipient = _path(line)
        usual = "250 2.1.5 ok" if self.begun else "503 5.5.1 MAIL first"
        if self.answer("rcpt", usual, (recipient,)) // 100 == 2:
            self.recipients += (recipient,)

    def do_data(self, line: str) -> None:
        usual = "354 go on" if self.recipients else "503 5.5.1 no recipients"
        if self.answer("data", usual) != 354:
            return
        data = self.body()
        act = self.server.act("dot", self.recipients) or Act()
        reply = b"250 2.0.0 queued\r\n" if act.reply is None else act.reply
        accepted = reply[:1] == b"2" if act.accepted is None else act.accepted
        self.record(data, accepted)
        self.recipients = ()
        self.perform(act, reply)

    def do_rset(self, line: str) -> None:
        self.recipients = ()
        self.answer("rset", "250 2.0.0 ok")

    def do_noop(self, line: str) -> None:
        self.answer("noop", "250 2.0.0 ok")

    def do_quit(self, line: str) -> None:
        self.answer("quit", "221 2.0.0 bye")
        raise _Gone

    def body(self) -> bytes:
        started = False
        seen = 0
        while True:
            if self.buffer[:3] == b".\r\n":
                del self.buffer[:3]
                return b""
            if self.buffer and not started:
                started = True
                self.begin_body()
            if (end := self.buffer.find(b"\r\n.\r\n", max(0, seen - 4))) >= 0:
                data = bytes(self.buffer[: end + 2])
                del self.buffer[: end + 5]
                return _unstuffed(data)
            seen = len(self.buffer)
            self.receive()

    def begin_body(self) -> None:
        act = self.server.act("body", self.recipients)
        if act is None:
            return
        if act.drop:
            self.record(_unstuffed(bytes(self.buffer)), accepted=False)
        self.perform(act, act.reply or b"")

    def record(self, data: bytes, accepted: bool) -> None:
        now = time.monotonic()
        copy = Copy(self.mail_from, self.recipients, data, accepted, self.number, now)
        self.server.record(copy)

    def answer(self, phase: str, usual: str, recipients: tuple[str, ...] = ()) -> int:
        """Answer and return the code that was said (0: none)."""
        act = self.server.act(phase, recipients or self.recipients) or Act()
        reply = f"{usual}\r\n".encode() if act.reply is None else act.reply
        self.perform(act, reply)
        return int(reply[:3]) if reply[:3].isdigit() else 0

    def perform(self, act: Act, reply: bytes) -> None:
        if act.wait and self.server.stopping.wait(act.wait):
            raise _Gone
        if act.pace:
            for at in range(len(reply)):
                self.send(reply[at : at + 1])
                if self.server.stopping.wait(act.pace):
                    raise _Gone
        elif reply:
            self.send(reply)
        if act.reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if act.drop:
            raise _Gone

    def encrypt(self) -> None:
        self.sock = server_context().wrap_socket(self.sock, server_side=True)
        self.encrypted = True
        self.buffer.clear()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n")) < 0:
            self.receive()
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return line

    def receive(self) -> None:
        got = self.sock.recv(262_144)
        if not got:
            raise _Gone
        self.buffer += got


def _path(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]


def _unstuffed(data: bytes) -> bytes:
    data = data.replace(b"\r\n..", b"\r\n.")
    return data[1:] if data.startswith(b"..") else data


def trusting() -> ssl.SSLContext:
    """A client's context that trusts the stand-in's certificate."""
    return client_context()
