"""memory: the peaks of `work` and of the web at 10,000 recipients, to compare with those of `flat` and `pages`."""

from __future__ import annotations

from typing import Any

from tests.bench import flat, pages
from tests.bench.bench import Bench

FEW = 10_000


def run(bench: Bench) -> dict[str, Any]:
    """MB of each process; the commands' are in `bulk`, at both sizes."""
    few = bench.size(FEW, 1_000)
    work = flat.drained(bench, few)["memory"]
    return {"readers": few, "work": work, "web": pages.visited(bench, few, times=3)["web_mb"]}
