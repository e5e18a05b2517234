"""The processes of a `work` by their parts, read from /proc: who is whose child, and the names of `run_errands`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

POOL = ("busy", "idle", "pusher", "monitor")  # as `run_errands` names them
ROLES = (
    "busy",  # a worker in a job
    "idle",  # one that waits for the next
    "lone",  # an idle one that is the only worker of its lane: it holds the queue's lock while it waits
    "pusher",
    "monitor",
    "sentinel",
    "leader",  # of a lane
    "watchdog",
    "supervisor",
)


def children(pid: int) -> list[int]:
    """In the order of their pids; none of a process that is gone."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, thread.read_text().split())
    return sorted(child for child in found if _name(child))


def family(pid: int) -> list[int]:
    """It and all below it."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def parts(supervisor: int) -> dict[str, list[int]]:
    """The pids of each role, those of one lane after the other's."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    if not _name(supervisor):
        return found
    found["supervisor"].append(supervisor)
    for child in children(supervisor):
        sentinels = children(child)
        found["leader" if sentinels else "watchdog"].append(child)
        for sentinel in sentinels:
            found["sentinel"].append(sentinel)
            _add_pool(found, sentinel)
    return found


def _add_pool(found: dict[str, list[int]], sentinel: int) -> None:
    names = {pid: _name(pid) for pid in children(sentinel)}
    for pid, name in names.items():
        if name in POOL:
            found[name].append(pid)
    workers = [pid for pid, name in names.items() if name in ("busy", "idle")]
    if len(workers) == 1 and names[workers[0]] == "idle":
        found["lone"] += workers


def _name(pid: int) -> str:
    """Empty where it is gone, or dead and not yet buried."""
    with suppress(OSError):
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        return "" if rest.split()[0] == "Z" else name
    return ""
