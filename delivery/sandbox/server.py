"""The sandbox's SMTP server (aiosmtpd), on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import threading
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from delivery.errors import EdgeError
from delivery.sandbox.mailbox import Mailbox

SIZE_LIMIT = 25 * 1024 * 1024


class SandboxServer:
    """Accepts every message into ``directory``, in a thread of its own.

    Raises ValueError for a host that is not loopback: it takes mail from anybody who can
    reach it. With ``port`` 0 the system chooses one; ``port`` says which after ``start``.
    """

    def __init__(self, directory: Path | str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = _loopback(host)
        self.port = port
        self._directory = Path(directory)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen. Raises EdgeError when the directory or the port cannot be had."""
        listener = self._prepare()
        ready = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)), name="sandbox", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Stop listening; messages that are stored stay."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(5)
        self._thread = None

    def run(self) -> None:
        """Listen until SIGINT or SIGTERM; for the main thread of a process."""
        asyncio.run(self._serve(self._prepare(), threading.Event(), signals=True))

    def _prepare(self) -> socket.socket:
        # aiosmtpd writes every recipient to its log
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.create_server((self.host, self.port), family=family, backlog=128)
        except OSError as error:
            message = (
                f"Sandbox: cannot listen on {self.host} port {self.port} or write to its "
                f"directory ({error.strerror}); choose another port or SANDBOX_DIR"
            )
            raise EdgeError(message, permanent=True) from None
        self.port = listener.getsockname()[1]
        return listener

    async def _serve(
        self, listener: socket.socket, ready: threading.Event, *, signals: bool = False
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        if signals:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stopping.set)
        handler = _Handler(Mailbox(self._directory))
        opened: set[_Connection] = set()
        server = await loop.create_server(lambda: _Connection(handler, opened), sock=listener)
        ready.set()
        await self._stopping.wait()
        server.close()
        for connection in opened:
            connection.hang_up()
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next round


def run(directory: Path | str, host: str = "127.0.0.1", port: int = 2525) -> None:
    """Run the sandbox's server until SIGINT or SIGTERM."""
    SandboxServer(directory, host, port).run()


class _Handler:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        data = content if isinstance(content, bytes) else (content or "").encode()
        with contextlib.suppress(OSError):
            key = self._mailbox.add(envelope.mail_from or "", envelope.rcpt_tos, data)
            return f"250 2.0.0 kept as {key}"
        return "452 4.3.1 the sandbox's directory cannot be written to"


class _Connection(SMTP):
    """One connection; it stands in ``opened`` while it is open."""

    def __init__(self, handler: _Handler, opened: set[_Connection]) -> None:
        super().__init__(
            handler,
            data_size_limit=SIZE_LIMIT,
            enable_SMTPUTF8=True,
            hostname="sandbox.localhost",
            ident="Carteiro sandbox",
        )
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.discard(self)
        super().connection_lost(error)

    def hang_up(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(address).is_loopback:
            return address
    raise ValueError(
        "Sandbox: the host must be this machine (127.0.0.1, ::1 or localhost); "
        "the sandbox takes mail from everybody who can reach it"
    )
