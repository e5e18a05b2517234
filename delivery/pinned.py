"""Connections that only go to addresses that were checked, and end at one deadline: what `http.py` fetches over."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
import httpx

from .errors import EdgeError

Networks = tuple[IPv4Network | IPv6Network, ...]
Address = IPv4Address | IPv6Address

_WRITE_BYTES = 16_384
_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST6 = IPv6Network("2000::/3")
# `is_global` of Python 3.11 takes these for public: IANA's protocol assignments and 6to4 relay
# (special-purpose registry), documentation (RFC 9637), and the host agent of Azure's machines.
_NOT_PUBLIC: Networks = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("168.63.129.16/32"),
    IPv6Network("3fff::/20"),
)


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than 0; a time-out of httpcore's where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left


@cache
def _tls_context() -> ssl.SSLContext:
    """Certificates and names are checked; no file of roots from the environment."""
    return httpx.create_ssl_context(trust_env=False)


class Transport(httpx.HTTPTransport):
    """httpx's transport over our backend, which its constructor has no argument for.

    No proxy, no environment, no retries, and a new checked connection for each hop.
    """

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls_context(),
            network_backend=backend,
            max_keepalive_connections=0,
            retries=0,
        )


class PinnedBackend(httpcore.SyncBackend):
    """Resolves a name once, checks every address, and connects to those very addresses.

    TLS and the Host header still use the name: httpcore takes them from the URL.
    """

    def __init__(self, deadline: Deadline, connect_seconds: float, allow_private: Networks) -> None:
        self._deadline = deadline
        self._connect_seconds = connect_seconds
        self._allow_private = allow_private

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in self._addresses(host, port):
            seconds = min(self._connect_seconds, self._deadline.left())
            try:
                stream = super().connect_tcp(str(address), port, seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure or httpcore.ConnectError

    def _addresses(self, host: str, port: int) -> list[Address]:
        found = [ip_address(text) for text in _resolve(host, port, self._deadline.left())]
        if not all(_allowed(address, self._allow_private) for address in found):
            raise EdgeError(
                f"{host} leads to an address that is not public, which is refused; if it is "
                "meant, an operator can name its network in ALLOW_PRIVATE_URLS",
                permanent=True,
            )
        return found


def _resolve(host: str, port: int, seconds: float) -> list[str]:
    """Every address of a name, without repeats; in a thread, for getaddrinfo knows no time-out."""
    answers: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            answers.put(None)
        else:
            answers.put(list(dict.fromkeys(str(item[4][0]) for item in found)))

    threading.Thread(target=look_up, name="carteiro-resolve", daemon=True).start()
    try:
        addresses = answers.get(timeout=seconds)
    except queue.Empty:
        raise EdgeError(f"The name {host} was not resolved in time") from None
    if not addresses:
        raise EdgeError(f"The name {host} cannot be resolved: check its spelling and the DNS")
    return addresses


def _allowed(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks) or is_public(address)


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the internet (IANA's special-purpose registries)."""
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST6:
            return False
    odd = address.is_private or address.is_multicast or address.is_reserved
    return address.is_global and not odd and not any(address in net for net in _NOT_PUBLIC)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to this one end at, by NAT64 (RFC 6052) or 6to4 (RFC 3056).

    An IPv4-mapped address is not unwrapped: no name of the internet resolves to one.
    """
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose every step ends at the deadline.

    A time-out for each read is not enough: a server that sends one byte a second never meets it.
    """

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_BYTES):
            self._stream.write(buffer[start : start + _WRITE_BYTES], self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self._deadline.left()
        return _DeadlineStream(
            self._stream.start_tls(ssl_context, server_hostname, seconds), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
