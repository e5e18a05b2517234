"""wire: the rate of `work`, against smtp-source and against Django's loop, in turn on the same server."""

from __future__ import annotations

import math
import statistics
from typing import Any

from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.draining import drain

ROUNDS = 3
SECONDS = 8.0  # about how long one run lasts


def run(bench: Bench) -> dict[str, Any]:
    """Each window with each number of senders; the wire has as many connections as they have together."""
    with servers.a_sink() as port:
        return {
            f"{window} x {senders}": measure(bench, port, window, senders)
            for senders in bench.senders
            for window in bench.windows[: bench.size(len(bench.windows), 1)]
        }


def measure(bench: Bench, port: int, window: int, senders: int) -> dict[str, Any]:
    """The median of the rounds; each ratio is of two runs of one round."""
    connections = window * senders
    messages = bench.size(_fitting(servers.source(port, connections, 2000), 1000), 2000)
    readers = _readers(bench, port, window, senders)
    rounds = [
        _round(bench, port, window, senders, messages, readers)
        for _ in range(bench.size(ROUNDS, 1))
    ]
    found: dict[str, Any] = {"connections": connections, "readers": readers, "rounds": rounds}
    return found | {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}


def work_settings(port: int, window: int, senders: int) -> dict[str, str]:
    return {
        "EMAIL_URL": f"smtp://127.0.0.1:{port}",
        "DELIVERY_WINDOW": str(window),
        "DELIVERY_CONNECTIONS": str(window),
        "WORKERS_BULK": str(senders),
    }


def _readers(bench: Bench, port: int, window: int, senders: int) -> int:
    """As many as it mails in SECONDS, by a trial; in tens of thousands, so that templates are shared."""
    if bench.quick:
        return 2000
    with bench.house(10_000, **work_settings(port, window, senders)) as house:
        return _fitting(drain(house, 120).rate, 10_000)


def _fitting(rate: float, step: int) -> int:
    return max(1, math.ceil(rate * SECONDS / step)) * step


def _round(
    bench: Bench, port: int, window: int, senders: int, messages: int, readers: int
) -> dict[str, float]:
    source = servers.source(port, window * senders, messages)
    with bench.house(readers, **work_settings(port, window, senders)) as house:
        loop = servers.django_loop(bench.copy_of(readers), port, bench.size(1500, 200))
        drained = drain(house, 240)
    row = {
        "source": source,
        "django": loop,
        "work": drained.rate,
        "ratio": drained.rate / source,
        "to_django": drained.rate / loop,
        "cpu_ms": drained.cpu_ms,
        "server_cpu_ms": drained.server_cpu_ms,
    }
    print(
        f"  {window} x {senders}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items()), flush=True
    )
    return row
