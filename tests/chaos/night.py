"""A night: `work` under a steady load; what it costs in memory, file descriptors and rows, minute by minute.

    python -m tests.chaos.night --minutes 30 --rate 20 [--database postgres]

It fails where the memory grows by more than 10 % from the fifth minute (of a short one, the middle) to the end, where
the descriptors grow, or where the jobs are not done as fast as they come.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.chaos import script
from tests.chaos.errand_house import (
    DEFAULT,
    assert_each_was_done_once,
    start_load,
    start_work,
    stop_load,
    unfinished,
)
from tests.chaos.parts import family
from tests.chaos.storm import a_stormy_house
from tests.house import House, Work

LOOKS = 12  # a minute; the lowest counts: workers that are replaced stand there twice for a moment
MOST_GROWTH = 0.10
SECONDS_BEHIND = 10.0
COLUMNS = ("minute", "PSS MB", "processes", "descriptors", "wake-ups", "jobs", "unfinished")


@dataclass(frozen=True)
class Sample:
    minute: int
    pss: float  # MB, of all processes
    processes: int
    descriptors: int
    wakeups: int  # rows in django-q2's table
    jobs: int
    unfinished: int  # jobs; some of them are due later


def night(house: House, minutes: int, rate: float) -> list[Sample]:
    """Print and return a sample each minute."""
    work = start_work(house)
    load = start_load(house, 0, rate)
    print("  ".join(f"{name:>11}" for name in COLUMNS))
    samples = []
    for minute in range(1, minutes + 1):
        samples.append(_look(house, work, minute))
        print("  ".join(f"{value:>11.6g}" for value in astuple(samples[-1])), flush=True)
    made = stop_load(load)
    house.wait_until(lambda: not unfinished(house), 60)
    assert_each_was_done_once(house, made)
    print(f"{made} errands, each done once")
    assert work.terminate(90) == 0
    return samples


def judge(samples: list[Sample], rate: float) -> None:
    """Print what has grown; AssertionError where it has grown too much."""
    # At 20 a second each worker has been recycled by then: the next inherits more from its sentinel than the first did.
    first, last = samples[min(5, len(samples) // 2) - 1], samples[-1]
    minutes = last.minute - first.minute
    growth = last.pss / first.pss - 1
    print(
        f"from minute {first.minute} to {last.minute}: PSS {first.pss:.1f} to {last.pss:.1f} MB "
        f"({growth:+.1%}, {(last.pss - first.pss) / minutes:+.2f} MB a minute), "
        f"descriptors {first.descriptors} to {last.descriptors}"
    )
    assert growth <= MOST_GROWTH, "the memory grows"
    assert last.descriptors <= first.descriptors, "the descriptors grow"
    assert last.unfinished <= SECONDS_BEHIND * rate, "the jobs come faster than they are done"


def _look(house: House, work: Work, minute: int) -> Sample:
    found = []
    for _ in range(LOOKS):
        time.sleep(60 / LOOKS)
        pids = family(work.pid)
        found.append((sum(map(_pss, pids)), len(pids), sum(map(_descriptors, pids))))
    pss, processes, descriptors = map(min, zip(*found, strict=True))
    wakeups, jobs = (_count(house, table) for table in ("django_q_ormq", "delivery_job"))
    return Sample(minute, pss, processes, descriptors, wakeups, jobs, unfinished(house))


def _pss(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _count(house: House, table: str) -> int:
    return int(house.value(f"SELECT count(*) FROM {table}"))


def main() -> None:
    parser: argparse.ArgumentParser = script.parser("`work` under a steady load: what it costs")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--rate", type=float, default=20.0)
    options = parser.parse_args()
    script.prepare(options.database)
    print(f"{options.minutes} minutes at {options.rate:g} jobs/s, {options.database}")
    with a_stormy_house(DEFAULT, min(60, 3 * options.minutes)) as (house, _):
        judge(night(house, options.minutes, options.rate), options.rate)


if __name__ == "__main__":
    main()
