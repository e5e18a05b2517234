"""One HTTP request of an attempt, and what is known of it: did any of it go out, what came back.

The client libraries' exceptions cannot tell a TLS handshake that failed from an answer that was cut
off, and their time-outs start anew with each byte. Here the connection itself says when the first
byte of the request leaves, and a timer ends the whole.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

BODY_LIMIT = 64 * 1024  # of an answer: the rest is not read


@dataclass
class Seen:
    """What is known of a request. ``status`` None: no answer. ``body`` None: not read to its end."""

    asked: bool = False  # the libraries found no fault with the message
    out: bool = False  # bytes of it may have left
    timed_out: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Exchange:
    """The request that `attempt` surrounds, and what was ``seen`` of it. For one thread at a time."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.connection: HTTPConnection | None = None

    @contextlib.contextmanager
    def attempt(self, seconds: float) -> Iterator[None]:
        """Forget the last request; end this one after so many seconds, wherever it stands."""
        self.seen = Seen()
        timer = threading.Timer(seconds, self._abort)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _abort(self) -> None:
        self.seen.timed_out = True
        sock = self.connection.sock if self.connection else None
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own: that one would go on in the clear.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def open_session(exchange: Exchange, ca_file: str = "") -> requests.Session:
    """A session that asks once, follows no redirect, and reads nothing from the environment."""
    session = _Session()
    session.trust_env = False
    session.verify = ca_file or True
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(exchange))
    return session


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: a redirect would be a second request."""


class _Adapter(HTTPAdapter):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._exchange)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        seen = self._exchange.seen
        seen.asked = True
        response = super().send(*args, **kwargs)
        seen.status, seen.headers = response.status_code, response.headers
        with contextlib.closing(response.raw):
            seen.body = response.raw.read(BODY_LIMIT, decode_content=True)
        response.raw = HTTPResponse(io.BytesIO(seen.body), preload_content=False)
        return response


def _pools(exchange: Exchange) -> dict[str, Any]:
    class Plain(HTTPConnection):
        def connect(self) -> None:
            exchange.connection = self
            super().connect()

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            exchange.connection = self
            exchange.seen.out = True
            super().send(data)

    class Encrypted(Plain, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
