"""SIGTERM to `work`, alone or to all of its processes, idle and busy, again and again.

    python -m tests.chaos.stops --times 40 [--seed N] [--database postgres]

Each stop ends within the grace with exit code 0, leaves no process, no row on the wire and nothing unknown; and the
last `work` finishes what the others began.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.chaos import script
from tests.house import READERS, House, Work, a_house, write_subscribers
from tests.stand_ins.smtp import SmtpStandIn, stall

GRACE = 75.0  # the default of GRACE_SECONDS
MOST_COPIES = 60  # of one busy `work`


class Stops:
    """`took`: kind -> how long each stop lasted, in seconds."""

    def __init__(self, house: House, server: SmtpStandIn, seed: int) -> None:
        self.house = house
        self.server = server
        self.moments = random.Random(seed)
        self.took: dict[str, list[float]] = {}

    def idle(self, times: int) -> None:
        """While there is nothing to do."""
        for everybody in times * [False, True]:
            work = self.house.start_work()
            time.sleep(self.moments.uniform(0, 2))
            self._stop(work, "idle", everybody)

    def busy(self, times: int) -> None:
        """In the middle of the sending; at last it comes to its end."""
        self.house.manage("release", "first", "--now")
        for everybody in times * [False, True]:
            copies = len(self.server.copies) + self.moments.randrange(1, MOST_COPIES // 2)
            work = self.house.start_work()
            self.server.wait_for(copies, 40)
            self._stop(work, "busy", everybody)
            self._check_ledger()
        self.server.behave()
        self.house.start_work()
        self.house.wait_until(lambda: self.house.state() == "sent", 120)
        self._check_ledger()

    def _stop(self, work: Work, how: str, everybody: bool) -> None:
        began = time.monotonic()
        if everybody:
            with suppress(ProcessLookupError):
                os.killpg(work.pid, signal.SIGTERM)
            self.house.signal_everything(signal.SIGTERM)
        else:
            work.process.send_signal(signal.SIGTERM)
        code = work.process.wait(GRACE + 5)
        took = time.monotonic() - began
        assert code == 0, f"exit code {code} after {took:.1f} s, {how}"
        assert took <= GRACE, f"it took {took:.1f} s"
        self.house.wait_until(lambda: not self.house.processes(), 1)
        kind = f"{how}, {'everybody' if everybody else '`work` alone'}"
        self.took.setdefault(kind, []).append(took)

    def _check_ledger(self) -> None:
        statuses, accepted = self.house.statuses(), self.server.accepted()
        assert not statuses.keys() - {"sent", "pending"}, f"after a stop: {statuses}"
        assert set(accepted.values()) == {1}, "somebody has two copies"
        assert statuses.get("sent", 0) == len(accepted), f"{len(accepted)} taken: {statuses}"


@contextmanager
def a_house_to_stop(times: int) -> Iterator[tuple[House, SmtpStandIn]]:
    """With readers enough for so many stops in the middle of one issue."""
    with (
        SmtpStandIn(keep_data=False) as server,
        a_house(EMAIL_URL=server.url, DELIVERY_WINDOW="4") as house,
    ):
        server.on("dot", stall(0.1))
        if (readers := 2 * times * MOST_COPIES) > READERS:
            write_subscribers(house.folder / "more.csv", readers)
            house.manage(
                "import_subscribers", str(house.folder / "more.csv"), "--newsletter=weekly"
            )
        yield house, server


def stops(times: int, seed: int) -> Stops:
    """So many of each kind, with all their checks."""
    with a_house_to_stop(times) as (house, server):
        made = Stops(house, server, seed)
        made.idle(times)
        made.busy(times)
    return made


def main() -> None:
    parser = script.parser("SIGTERM to `work`, alone and to all of its processes, idle and busy")
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    options = parser.parse_args()
    script.prepare(options.database)
    print(f"seed {options.seed}, {options.database}")
    for kind, took in stops(options.times, options.seed).took.items():
        print(f"{kind}: {script.spread(took)}")


if __name__ == "__main__":
    main()
