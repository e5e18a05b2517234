"""One sender's drain, looked at 200 times a second: `python -m tests.bench.sampled_sender` in a house.

It freezes the audience of the issue `first` and runs the body of `deliver` until nothing is pending. Prints JSON:
messages, seconds, the milliseconds of one compile, for each share the seconds and the CPU seconds of the main thread,
and the seconds of the functions of ours that took most.

A look counts for the time since the one before: a signal that arrives in a long call into C is seen when that returns,
and the call's whole time is then its own.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import django

INTERVAL = 0.005
# The first of these that a frame's file holds, from the innermost frame outwards, is what the time went to.
PLACES = (
    ("render", ("/newsletter/rendering/", "/jinja2/")),
    ("stamp", ("/delivery/copies.py", "/delivery/message.py", "/delivery/headers.py")),
    ("database", ("/django/db/", "/psycopg", "/delivery/ledger.py", "/newsletter/models/", "/delivery/models/")),
    ("SMTP", ("/delivery/transports/", "/delivery/pool.py")),
    ("database", ("/delivery/results.py", "/delivery/limits.py", "/delivery/exchange.py", "/delivery/claims.py")),
)  # fmt: skip
WAITS = ("selectors.py", "threading.py", "queue.py")
OTHER, IDLE = "other", "idle"
MOST = 25


class Sampler:
    """Counts from its start until its stop, in the main thread."""

    def __init__(self) -> None:
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.functions: defaultdict[str, float] = defaultdict(float)

    def __enter__(self) -> Sampler:
        self._last = time.perf_counter(), time.thread_time()
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = time.perf_counter(), time.thread_time()
        wall, cpu = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        share = place_of(frame)
        waits = frame is not None and frame.f_code.co_filename.endswith(WAITS)
        self.wall[share] += cpu if waits else wall
        self.cpu[share] += cpu
        if waits:  # asking which connection has an answer is work, waiting for one is not
            self.wall[IDLE] += wall - cpu
        self.functions[function_of(frame)] += wall


def place_of(frame: FrameType | None) -> str:
    while frame:
        file = frame.f_code.co_filename
        for share, parts in PLACES:
            if any(part in file for part in parts):
                return share
        frame = frame.f_back
    return OTHER


def function_of(frame: FrameType | None) -> str:
    """The innermost function of ours, and what it called that is not."""
    called = ""
    while frame and not any(
        app in frame.f_code.co_filename for app in ("/delivery/", "/newsletter/")
    ):
        called = f" > {frame.f_code.co_name}"
        frame = frame.f_back
    if frame is None:
        return OTHER
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}{called}"


def main() -> None:
    django.setup()
    from delivery import release, sending
    from delivery.models import EmailDelivery
    from newsletter.models import Issue
    from tests import drain

    issue = Issue.objects.get(slug="first")
    began = time.perf_counter()
    sending.compile_issue(issue)
    compile_ms = 1000 * (time.perf_counter() - began)
    release.start(issue, actor="bench", now=True)
    drain.drain(but="deliver")
    open_rows = EmailDelivery.objects.of(issue.pk).filter(status__in=("pending", "sending"))
    began = time.perf_counter()
    with Sampler() as sampler:
        while open_rows.exists():
            sending.deliver(issue.pk, 0)
    seconds = time.perf_counter() - began
    sent = EmailDelivery.objects.of(issue.pk).filter(status="sent").count()
    found: dict[str, Any] = {"messages": sent, "seconds": seconds, "compile_ms": compile_ms}
    found |= {"wall": sampler.wall, "cpu": sampler.cpu}
    functions = sorted(sampler.functions.items(), key=lambda pair: -pair[1])
    json.dump(found | {"functions": dict(functions[:MOST])}, sys.stdout)


if __name__ == "__main__":
    main()
