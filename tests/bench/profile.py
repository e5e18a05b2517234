"""profile: where the time of one sender goes, with a window of 32."""

from __future__ import annotations

import json
from typing import Any

from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.draining import Void
from tests.bench.wire import work_settings

WINDOW = 32


def run(bench: Bench) -> dict[str, Any]:
    """Shares of the wall clock, and how much of each was CPU time of our own."""
    readers = bench.size(60_000, 2_000)
    with (
        servers.a_sink() as port,
        bench.house(readers, **work_settings(port, WINDOW, 1)) as house,
    ):
        program = house.program("-m", "tests.bench.sampled_sender")
        out, errors = program.communicate(timeout=600)
    if program.returncode:
        raise Void(errors[-300:])
    found = json.loads(out)
    if found["messages"] != readers:
        raise Void(f"{found['messages']} of {readers} were sent")
    seconds = sum(found["wall"].values())
    return {
        "rate": readers / found["seconds"],
        "compile_ms": found["compile_ms"],
        "shares": {name: value / seconds for name, value in found["wall"].items()},
        "cpu_shares": {name: value / seconds for name, value in found["cpu"].items()},
        "functions": {name: value / seconds for name, value in found["functions"].items()},
    }
