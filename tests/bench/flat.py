"""flat: a million copies from the first to the last, and the memory that they take."""

from __future__ import annotations

from typing import Any

from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.draining import drain
from tests.bench.wire import work_settings

WINDOW = 32


def run(bench: Bench) -> dict[str, Any]:
    """The rate of each tenth of the ledger, by one sender."""
    return drained(bench, bench.million)


def drained(bench: Bench, readers: int) -> dict[str, Any]:
    with (
        servers.a_sink() as port,
        bench.house(readers, **work_settings(port, WINDOW, 1)) as house,
    ):
        found = drain(house, 3600)
    return {
        "readers": readers,
        "rate": found.rate,
        "rates": found.rates,
        "slowest_to_fastest": min(found.rates) / max(found.rates),
        "cpu_ms": found.cpu_ms,
        "server_cpu_ms": found.server_cpu_ms,
        "memory": found.memory,
    }
