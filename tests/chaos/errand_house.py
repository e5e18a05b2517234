"""A house whose `work` knows the errands, and what the chaos asks of it."""

from __future__ import annotations

import signal
import subprocess

from tests.house import House, Work, write_issue

PROGRAM = ("-m", "tests.chaos.run_errands")
# For what must be short. CHAOS_MINUTE: see `errands.shorten_the_minute`.
SHORT = {
    "LEASE_SECONDS": "2",
    "WATCHDOG_SECONDS": "4",
    "SENDER_SECONDS": "1",
    "BREAKER_SECONDS": "2",
    "CHAOS_MINUTE": "8",
    "CHAOS_CRASHES": "30",
}
DEFAULT = {"LEASE_SECONDS": "30"}  # a house's own default is shorter
# django-q2's scheduler fails at the first, and counts the minutes of two thousand years at the second: in a transaction
# that holds SQLite's one lock.
FOREIGN_SCHEDULE = (
    "INSERT INTO django_q_schedule (name, func, schedule_type, repeats, next_run, minutes, cron, cluster) "
    "VALUES ('impossible', 'math.floor', 'C', -1, '2026-01-01 00:00:00', NULL, '99 99 * * *', 'default'), "
    "('ancient', 'math.floor', 'I', -1, '0001-01-02 00:00:00', 1, NULL, 'default')"
)


def add_table(house: House) -> None:
    """Where the errands leave their rows; nothing in it keeps a second one out."""
    house.change("CREATE TABLE errand_effect (number integer, late double precision)")


def add_issues(house: House, count: int) -> None:
    """Approved, and so due to be released by the load."""
    files = [house.folder / f"issue-{n}.md" for n in range(count)]
    for file in files:
        write_issue(file, file.stem)
    house.manage_all(
        *(["load_issue", str(file), "--newsletter", "weekly", "--approve"] for file in files)
    )


def start_work(house: House, *, ready: bool = True) -> Work:
    return house.start_work(ready=ready, program=(*PROGRAM, "work"))


def start_load(house: House, seed: int, rate: float) -> subprocess.Popen[str]:
    """A process that enqueues so many errands a second."""
    return house.program(*PROGRAM, "load", str(rate), str(seed))


def stop_load(load: subprocess.Popen[str]) -> int:
    """How many errands it has enqueued."""
    load.send_signal(signal.SIGTERM)
    out, errors = load.communicate(timeout=60)
    assert load.returncode == 0, errors
    return int(out)


def put_errands(house: House, count: int, seconds: float) -> None:
    """So many in each lane, each of so many seconds."""
    program = house.program(*PROGRAM, "some", str(count), str(seconds))
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors


def unfinished(house: House) -> int:
    """Jobs that are queued or running; some may be due later."""
    return int(
        house.value("SELECT count(*) FROM delivery_job WHERE state IN ('queued', 'running')")
    )


def assert_each_was_done_once(house: House, count: int) -> None:
    """So many errands: one effect each, and no job that is anything but done."""
    effects = house.query("SELECT number, count(*) FROM errand_effect GROUP BY number")
    assert len(effects) == count, f"{count} errands were made, {len(effects)} had an effect"
    twice = [number for number, times in effects if times != 1]
    assert not twice, f"errands with a second effect: {twice}"
    done = house.value(
        "SELECT count(DISTINCT key) FROM delivery_job WHERE name LIKE 'errand%' AND state = 'done'"
    )
    assert done == count, f"{done} of {count} errands are done"
    states = dict(house.query("SELECT state, count(*) FROM delivery_job GROUP BY state"))
    assert states.keys() <= {"done", "discarded"}, f"jobs are left: {states}"


def ran_again(house: House) -> int:
    """How many jobs ran again after a worker died, or its lease was over."""
    return int(house.value("SELECT count(*) FROM delivery_job WHERE crashes > 0"))
