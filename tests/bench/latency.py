"""latency: what a far server leaves of the rate, through a proxy that lengthens the wire.

A pipelined message costs two round trips (MAIL, RCPT and DATA; then the body), so C connections carry C / (2 x RTT).
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.draining import drain
from tests.bench.sizes import WINDOWS
from tests.bench.wire import work_settings
from tests.house import ROOT

# Seconds of round trip -> how long a run lasts: the opening of the connections is in it.
ROUND_TRIPS = {0.02: 12, 0.1: 30}
HELLO = b"EHLO bench.test\r\n"
BEGIN = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"


def run(bench: Bench) -> dict[str, Any]:
    """One sender, window = connections: without the proxy, and with each length of the wire."""
    windows = WINDOWS[: bench.size(len(WINDOWS), 1)]
    with servers.a_sink() as port:
        near = {
            f"0 ms, {window}": {"rate": _work(bench, port, window, 10_000)} for window in windows
        }
        return near | {
            f"{seconds * 1000:.0f} ms, {window}": measure(bench, port, seconds, window)
            for seconds in ROUND_TRIPS
            for window in windows
        }


def measure(bench: Bench, port: int, seconds: float, window: int) -> dict[str, float]:
    """The rate, and its share of C / (2 x RTT); `bare` is that of a client that does nothing else."""
    most = window / (2 * seconds)
    readers = bench.size(round(most * ROUND_TRIPS[seconds] / 100) * 100, 300)
    copy = Path(bench.copy_of(readers)).read_bytes()
    with a_proxy(port, seconds) as far:
        bare = bare_rate(far, window, copy, messages=bench.size(max(20, int(5 / seconds)), 4))
        rate = _work(bench, far, window, readers)
    return {"rate": rate, "bare": bare, "share": rate / most, "bare_share": bare / most}


@contextlib.contextmanager
def a_proxy(port: int, seconds: float) -> Iterator[int]:
    """A wire of that round trip to the port, in a process of its own; its own port."""
    command = [sys.executable, "-m", "tests.bench.delaying_proxy", str(port), str(seconds / 2)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()


def bare_rate(port: int, connections: int, copy: bytes, messages: int) -> float:
    """Messages a second by that many pipelined dialogues that are open already: the proxy's own limit."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(connections) as pool:
        lines = [stack.enter_context(_opened(port)) for _ in range(connections)]
        began = time.monotonic()
        list(pool.map(lambda line: _converse(line, copy, messages), lines))
        return connections * messages / (time.monotonic() - began)


def _work(bench: Bench, port: int, window: int, readers: int) -> float:
    with bench.house(bench.size(readers, 300), **work_settings(port, window, 1)) as house:
        return drain(house, 240).rate


def _opened(port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), 30)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _read(line, 1)
    line.sendall(HELLO)
    _until(line, b"\r\n250 ")
    return line


def _converse(line: socket.socket, copy: bytes, messages: int) -> None:
    for _ in range(messages):
        line.sendall(BEGIN)
        _read(line, 3)
        line.sendall(copy + b".\r\n")
        _read(line, 1)


def _read(line: socket.socket, replies: int) -> None:
    """So many replies of one line each."""
    heard = b""
    while heard.count(b"\r\n") < replies:
        heard += line.recv(4096)
    assert heard[:1] in b"23", heard


def _until(line: socket.socket, mark: bytes) -> None:
    """The last line of a reply of several."""
    heard = b""
    while mark not in heard or not heard.endswith(b"\r\n"):
        heard += line.recv(4096)
