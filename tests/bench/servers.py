"""Postfix's test programs: smtp-sink, which takes everything, and smtp-source, which is the wire's own speed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.house import ROOT

BODY_BYTES = 10_000
BACKLOG = "200"


def find(name: str) -> str | None:
    """Where Debian has it is not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/postfix/sbin")


@contextlib.contextmanager
def a_sink(*more: str) -> Iterator[int]:
    """smtp-sink in a process of its own; its port."""
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [find("smtp-sink") or "smtp-sink", *user, *more, f"127.0.0.1:{port}", BACKLOG]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield port
        finally:
            process.kill()


def source(port: int, connections: int, messages: int) -> float:
    """Messages a second of smtp-source, connections kept."""
    command = [find("smtp-source") or "smtp-source", "-d", "-s", str(connections)]
    command += ["-l", str(BODY_BYTES), "-m", str(messages), f"127.0.0.1:{port}"]
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=600)
    return messages / (time.monotonic() - began)


def django_loop(copy: str, port: int, messages: int) -> float:
    """Messages a second of a plain loop over Django's mail, on one connection."""
    command = [sys.executable, "-m", "tests.bench.django_loop", copy, str(port), str(messages)]
    out = subprocess.run(command, cwd=ROOT, check=True, timeout=600, capture_output=True, text=True)
    return messages / float(out.stdout)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < end, f"nobody answers at port {port}"
        time.sleep(0.05)
