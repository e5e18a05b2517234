"""bulk: import, export and freeze of a million, and of 10,000 for the memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench import filling, machine
from tests.bench.bench import Bench
from tests.bench.draining import Memory, Void, look, unix
from tests.bench.memory import FEW
from tests.house import ROOT, House, a_house, newsletter_command, write_subscribers

# Its `finished_at` is written before the audience is taken, in the same transaction: that is no end of it.
FREEZE = "SELECT started_at FROM delivery_job WHERE note = 'the audience is frozen'"
OFTEN = 0.05  # seconds between two looks for the commit
NOWHERE = "smtp://127.0.0.1:1"  # the senders that the freeze wakes reach nobody


def run(bench: Bench) -> dict[str, Any]:
    """Seconds and peak memory of each, from an empty database on."""
    return {str(readers): measure(readers) for readers in (bench.size(FEW, 500), bench.million)}


def measure(readers: int) -> dict[str, Any]:
    with a_house(empty=True, EMAIL_URL=NOWHERE, LEASE_SECONDS="30") as house:
        house.manage(*newsletter_command("weekly"))
        file = house.folder / "readers.csv"
        write_subscribers(file, readers)
        os.sync()
        imported = command(house, "import_subscribers", str(file), "--newsletter", "weekly")
        _expect(house, "newsletter_subscription", readers)
        exported = command(house, "export_subscribers", "weekly")
        return {"import": imported, "export": exported, "freeze": _freeze(house, readers)}


def command(house: House, *words: str) -> dict[str, float]:
    """Seconds, CPU seconds and peak MB of one command, its start included; Void where it failed."""
    errors = house.folder / "errors.txt"
    began = time.monotonic()
    with errors.open("wb") as said, Path(os.devnull).open("wb") as nowhere:
        process = subprocess.Popen(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=house.environment,
            stdout=nowhere,
            stderr=said,
        )
        # Not `ru_maxrss`: that counts what the parent had in RAM at the fork.
        mb = 0.0
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            mb = max(mb, machine.peak_mb(process.pid))
            time.sleep(OFTEN)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # else it waits again
    if process.returncode:
        raise Void(f"{words[0]} failed: {errors.read_text()[-200:].strip()}")
    return {
        "seconds": time.monotonic() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "mb": mb,
    }


def _freeze(house: House, readers: int) -> dict[str, float]:
    """The job that freezes, from its start until another connection sees its commit; its worker's memory."""
    filling.write_issue(house)
    issue = str(house.folder / "first.md")
    house.manage("load_issue", issue, "--newsletter", "weekly", "--approve")
    os.sync()
    with Memory(house, house.start_work()) as memory:
        house.manage("release", "first", "--now")
        house.wait_until(lambda: look(house, OFTEN) == "sending", 600)
        committed = time.time()
    _expect(house, "delivery_emaildelivery", readers)
    ((started,),) = house.query(FREEZE)
    return {"seconds": committed - unix(started), "mb": memory.peaks["default pool"]}


def _expect(house: House, table: str, rows: int) -> None:
    found = house.value(f"SELECT count(*) FROM {table}")
    if found != rows:
        raise Void(f"{table} has {found} rows instead of {rows}")
