"""fsync: what one commit at least costs on this disk."""

from __future__ import annotations

import tempfile
from typing import Any

from tests.bench import machine
from tests.bench.bench import Bench


def run(bench: Bench) -> dict[str, Any]:
    """Milliseconds of an fdatasync after 4 kB, in the folder where the databases lie."""
    took = machine.fdatasyncs(tempfile.gettempdir(), bench.size(500, 50))
    return {"times": len(took), **machine.spread(took)}
