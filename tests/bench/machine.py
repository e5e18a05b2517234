"""What a run costs and where it ran: processor, memory, disk."""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.house import ON_POSTGRES

TICKS = os.sysconf("SC_CLK_TCK")


def describe(load: float) -> dict[str, Any]:
    """`load`: the load average of a minute when the whole run began."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "database": _postgres_version() if ON_POSTGRES else f"SQLite {sqlite3.sqlite_version}",
        "load": round(load, 2),
    }


def load() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def fdatasyncs(folder: str, times: int) -> list[float]:
    """Milliseconds of each fdatasync after 4 kB were appended to a file in that folder."""
    file = Path(folder) / "fsync.bench"
    took = []
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(times):
            os.write(descriptor, b"\0" * 4096)
            began = time.perf_counter()
            os.fdatasync(descriptor)
            took.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(descriptor)
        file.unlink()
    return took


def percentile(found: list[float], share: float = 0.95) -> float:
    return sorted(found)[int(share * (len(found) - 1))]


def spread(found: list[float]) -> dict[str, float]:
    """Median, 95th percentile and greatest."""
    return {"median": statistics.median(found), "p95": percentile(found), "max": max(found)}


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of their children that ended."""
    return sum(map(_cpu_seconds, pids))


def peak_mb(pid: int) -> float:
    """The most memory that it ever had in RAM (VmHWM); 0 where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(_stat(pid)[1])
    return 0


def database_server() -> list[int]:
    """The processes of the PostgreSQL server; SQLite has none."""
    if not ON_POSTGRES:
        return []
    folder = os.environ["DATABASE_URL"].partition("host=")[2].partition("&")[0]
    first = int((Path(folder) / "postmaster.pid").read_text().split()[0])
    all_pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [first, *(pid for pid in all_pids if parent_of(pid) == first)]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        return sum(map(int, _stat(pid)[11:15])) / TICKS
    return 0.0


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _postgres_version() -> str:
    import psycopg

    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        shown = connection.execute("SHOW server_version").fetchone()
    return f"PostgreSQL {shown[0] if shown else '?'}"
