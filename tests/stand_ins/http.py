"""A real HTTP server on 127.0.0.1 whose answers are scripted and whose requests are recorded.

    with HttpStandIn(reply(503), reply(body=b"ok")) as server:
        fetch(server.url("/feed.xml"), ...)
        assert server.requests[0].path == "/feed.xml"

The replies are given in their order, the last one again and again. ``routes`` has a list of its
own for a path. With ``tls`` it speaks https, and ``names`` records what clients asked for by SNI.
"""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, cast


@dataclass(frozen=True)
class Request:
    """What a client sent; ``headers`` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One scripted answer; build it with the functions below."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0  # seconds before the first byte
    drip: float = 0.0  # seconds after each byte of `raw`, or of the body
    raw: bytes | None = None  # in place of a well-formed answer; b"" is a dropped connection


def reply(
    status: int = 200,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    *,
    delay: float = 0.0,
) -> Reply:
    """A plain answer, ``delay`` seconds late."""
    data = body.encode() if isinstance(body, str) else body
    return Reply(status, dict(headers or {}), data, delay=delay)


def json_reply(data: object, status: int = 200) -> Reply:
    """An answer in JSON."""
    return reply(status, json.dumps(data), {"Content-Type": "application/json"})


def gzip_reply(body: bytes) -> Reply:
    """An answer with its body packed."""
    return reply(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})


def redirect(to: str, status: int = 302) -> Reply:
    """A redirect to a URL or path."""
    return reply(status, headers={"Location": to})


def drip(body: bytes, seconds: float) -> Reply:
    """The head at once, then the body one byte every ``seconds``."""
    return Reply(body=body, drip=seconds)


def raw(data: bytes, *, drip: float = 0.0) -> Reply:
    """These bytes instead of an HTTP answer, then the end of the connection."""
    return Reply(raw=data, drip=drip)


def drop() -> Reply:
    """The request is read, and the connection closed without an answer."""
    return raw(b"")


def cut_short(body: bytes, missing: int = 10) -> Reply:
    """A head that promises ``missing`` bytes more than come."""
    return raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + missing) + body)


class HttpStandIn:
    """The server; a context manager. ``requests`` grows before each answer goes out."""

    def __init__(
        self,
        *replies: Reply,
        routes: Mapping[str, list[Reply]] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.names: list[str | None] = []
        self._default = list(replies) or [reply()]
        self._routes = {path: list(of_path) for path, of_path in (routes or {}).items()}
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self._scheme = "https" if tls else "http"
        self._server = _Server(self, tls)
        self.port: int = self._server.server_address[1]

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """This server's URL for a path."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def answer(self, request: Request) -> Reply:
        """Record a request and take its reply."""
        with self._lock:
            self.requests.append(request)
            script = self._routes.get(request.path.partition("?")[0], self._default)
            return script.pop(0) if len(script) > 1 else script[0]

    def __enter__(self) -> HttpStandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class TlsServer(socketserver.ThreadingTCPServer):
    """On a port of its own, in the clear or behind TLS; a thread for each connection."""

    # Not http.server's: that one looks up this machine's name, which can take seconds.
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 50

    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls:  # the handshake is made at the first read, in the connection's own thread
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what many tests are about."""


class _Server(TlsServer):
    def __init__(self, stand_in: HttpStandIn, tls: ssl.SSLContext | None) -> None:
        self.stand_in = stand_in
        if tls:
            tls.sni_callback = lambda _, name, __: stand_in.names.append(name)
        super().__init__(_Handler, tls)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65_537)
        self.close_connection = True
        if not self.raw_requestline or not self.parse_request():
            return
        self.close_connection = True
        stand_in = cast(_Server, self.server).stand_in
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length)
        self._send(stand_in.answer(Request(self.command, self.path, headers, body)))

    def _send(self, answer: Reply) -> None:
        stopping = cast(_Server, self.server).stand_in.stopping
        stopping.wait(answer.delay)
        body = answer.body if answer.raw is None else answer.raw
        if answer.raw is None:
            self._send_head(answer)
        if self.command == "HEAD":
            return
        if not answer.drip:
            self.wfile.write(body)
            return
        for byte in body:
            self.wfile.write(bytes([byte]))
            if stopping.wait(answer.drip):
                return

    def _send_head(self, answer: Reply) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
