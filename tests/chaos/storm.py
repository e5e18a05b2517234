"""kill -9 of random parts of a real `work` under load, again and again; afterwards every errand was done exactly once.

    python -m tests.chaos.storm --kills 200 [--seed N] [--minutes M] [--database postgres] [--default-times]

The seed fixes the load and the sequence of the kills: which part, which of them, after which pause.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.chaos import script
from tests.chaos.errand_house import (
    DEFAULT,
    FOREIGN_SCHEDULE,
    SHORT,
    add_issues,
    add_table,
    assert_each_was_done_once,
    ran_again,
    start_load,
    start_work,
    stop_load,
    unfinished,
)
from tests.chaos.parts import family, parts
from tests.house import READERS, ROOT, House, a_house
from tests.stand_ins.smtp import SmtpStandIn, stall

RESUMES = 120.0  # seconds: promise P10
MOST_ISSUES = 60  # of them one is mailed every 20 s: see `errands.load`
WINDOW = 4
# How often each is chosen; "all" is the whole family at once.
WEIGHTS = {
    "busy": 4,
    "idle": 2,
    "lone": 3,
    "pusher": 2,
    "monitor": 2,
    "sentinel": 2,
    "leader": 2,
    "watchdog": 1,
    "supervisor": 2,
    "all": 1,
}
SEVERAL = "several at once"


@dataclass(frozen=True)
class Kill:
    """`pause`: seconds before it. `which`: of those that have the role, as a share of them."""

    pause: float
    role: str
    which: float


def plan(seed: int, kills: int) -> list[list[Kill]]:
    """Blows of one to three kills; a lone idle worker, which hangs its pool, is in the first."""
    chances = random.Random(seed)
    blows = [[Kill(0.0, "lone", chances.random())]]
    while (left := kills - sum(map(len, blows))) > 0:
        size = min(left, chances.choices((1, 2, 3), (7, 2, 1))[0])
        blows.append([_kill(chances, first=n == 0) for n in range(size)])
    return blows


def _kill(chances: random.Random, *, first: bool) -> Kill:
    pause = chances.uniform(0, 3) if first else chances.choice((0.0, chances.uniform(0, 2)))
    role = chances.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return Kill(pause, role, chances.random())


@dataclass
class Report:
    """What a storm has shown; times in seconds."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    resumed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    hangs: int = 0  # that the watchdog found
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        struck = ", ".join(f"{role} {times}" for role, times in self.kills.most_common())
        every = [seconds for times in self.resumed.values() for seconds in times]
        return "\n".join(
            [
                f"seed {self.seed}: {self.kills.total()} kills ({struck})",
                f"all lanes go on after a blow: {script.spread(every)}",
                *(f"  {blow}: {script.spread(times)}" for blow, times in self.resumed.items()),
                f"pools that hung and were replaced: {self.hangs}",
                *self.lines,
            ]
        )


class Storm:
    """Over a house that has the errands' table and some issues to mail."""

    def __init__(self, house: House, server: SmtpStandIn, seed: int, rate: float) -> None:
        self.house = house
        self.server = server
        self.report = Report(seed)
        self.work = start_work(house)
        self.load = start_load(house, seed, rate)

    def rage(self, blows: list[list[Kill]], seconds: float) -> None:
        """One blow after the other, each when all lanes go on; no more of them after so long."""
        end = time.monotonic() + seconds
        self._await_progress(0)
        for blow in blows:
            if time.monotonic() > end:
                return
            for kill in blow:
                time.sleep(kill.pause)
                began = time.monotonic()
                self._strike(kill)
            self._await_progress(self._last_job())
            took = time.monotonic() - began
            self.report.resumed[blow[0].role if len(blow) == 1 else SEVERAL].append(took)
            print(f"{' + '.join(kill.role for kill in blow)}: {took:.1f} s", flush=True)

    def calm(self) -> None:
        """The load ends, and what is left is done; then `work` stops in good order."""
        made = stop_load(self.load)
        began = time.monotonic()
        self.house.wait_until(lambda: not unfinished(self.house), 2 * RESUMES)
        self.report.lines.append(f"the rest was done in {time.monotonic() - began:.1f} s")
        assert set(self.house.processes()) <= set(family(self.work.pid)), "orphans"
        self._check_errands(made)
        self._check_mail()
        self.report.hangs = self.house.log_text().count("work.part_hangs")
        assert self.work.terminate(seconds=90) == 0, "`work` did not end well"
        assert not self.house.processes(), "a process outlives `work`"

    def _strike(self, kill: Kill) -> None:
        pids = self._find(kill)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.report.kills[kill.role] += 1
        if self.work.pid in pids:
            old = set(self.house.processes()) - {self.load.pid}
            self.work.process.wait()
            self.work = start_work(self.house, ready=False)
            self.house.wait_until(lambda: not old & set(self.house.processes()), 5)

    def _find(self, kill: Kill) -> list[int]:
        """Whom it strikes; the supervisor, where for 20 s there is none of that role."""
        if kill.role == "all":
            return family(self.work.pid)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if found := parts(self.work.pid)[kill.role]:
                return [found[int(kill.which * len(found))]]
            time.sleep(0.002)
        return [self.work.pid]

    def _last_job(self) -> int:
        return int(self.house.value("SELECT coalesce(max(id), 0) FROM delivery_job"))

    def _await_progress(self, last: int) -> None:
        """Until each lane has finished an errand that was made after this job."""
        began = time.monotonic()
        done = f"SELECT count(DISTINCT lane) FROM delivery_job WHERE id > {last} AND state = 'done'"
        while self.house.value(done) < 3:
            if self.load.poll() is not None:
                raise AssertionError(f"the load has ended: {self.load.communicate()}")
            if self.work.process.poll() is not None:
                raise AssertionError("`work` has ended by itself")
            if time.monotonic() - began > RESUMES:
                raise AssertionError(f"some lane does not go on after {RESUMES} s")
            time.sleep(0.1)

    def _check_errands(self, made: int) -> None:
        assert_each_was_done_once(self.house, made)
        late = [float(late) for (late,) in self.house.query("SELECT late FROM errand_effect")]
        self.report.lines.append(
            f"{made} errands, each done once, {ran_again(self.house)} of them after a crash; "
            f"from due to done {script.spread(late)}"
        )

    def _check_mail(self) -> None:
        accepted: Counter[tuple[str, str]] = Counter(
            (_issue(copy.data), to)
            for copy in self.server.copies
            if copy.accepted
            for to in copy.rcpt_to
        )
        twice = [key for key, copies in accepted.items() if copies > 1]
        assert not twice, f"second copies: {twice}"
        issues = self.house.query(
            "SELECT id, slug, state FROM newsletter_issue WHERE state <> 'approved'"
        )
        unknown = 0
        for id, slug, state in issues:
            assert state == "sent", f"{slug} is {state}"
            unknown += self._check_ledger(id, slug, {to for name, to in accepted if name == slug})
        died = self.house.value(
            "SELECT count(*) FROM newsletter_transition t JOIN delivery_job j ON t.subject = 'job' "
            "AND t.subject_id = j.id WHERE j.name = 'deliver' AND t.reason LIKE 'its worker died%'"
        )
        assert unknown <= died * WINDOW, f"{unknown} unknown, {died} senders died"
        self.report.lines.append(
            f"{len(issues)} issues sent, {accepted.total()} copies, none twice; "
            f"{unknown} unknown by {died} senders that died"
        )

    def _check_ledger(self, id: int, slug: str, accepted: set[str]) -> int:
        books = json.loads(self.house.manage("ledger", str(id), "--json").stdout)
        assert books["balanced"] is True, f"{slug} does not balance: {books}"
        assert books["sent"] + books["unknown"] == READERS, f"{slug}: {books}"
        rows = self.house.query(
            f"SELECT address FROM delivery_emaildelivery WHERE issue_id = {id} AND status = 'sent'"
        )
        sent = {address for (address,) in rows}
        assert sent <= accepted, f"{slug}: booked as sent, and nobody took it"
        assert len(accepted - sent) <= books["unknown"], f"{slug}: taken, and nobody knows"
        return int(books["unknown"])


@contextmanager
def a_stormy_house(settings: dict[str, str], issues: int) -> Iterator[tuple[House, SmtpStandIn]]:
    """With the errands' table, issues to mail, and the server that takes them."""
    with SmtpStandIn() as server, a_house(empty=False, **_mailing(server), **settings) as house:
        add_table(house)
        add_issues(house, issues)
        yield house, server


def storm(
    house: House, server: SmtpStandIn, seed: int, *, kills: int, seconds: float, rate: float = 20
) -> Report:
    """A whole one, with all its checks; what it has shown."""
    raging = Storm(house, server, seed, rate)
    try:
        raging.rage(plan(seed, kills), seconds)
        raging.calm()
    except BaseException:
        kept = ROOT / "var" / f"storm-{seed}.log"
        shutil.copy(house.log, kept)
        print(f"{raging.report}\nthe log of `work` is kept in {kept}")
        raise
    return raging.report


def main() -> None:
    parser = script.parser("kill -9 of random parts of a `work` under load")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--default-times", action="store_true")
    parser.add_argument("--foreign-schedule", action="store_true")
    options = parser.parse_args()
    script.prepare(options.database)
    print(f"seed {options.seed}, {options.database}")
    times = DEFAULT if options.default_times else SHORT
    with a_stormy_house(times, MOST_ISSUES) as (house, server):
        if options.foreign_schedule:
            house.change(FOREIGN_SCHEDULE)
        seconds = 60 * options.minutes
        limits = {"kills": options.kills, "seconds": seconds, "rate": options.rate}
        print(storm(house, server, options.seed, **limits))


def _mailing(server: SmtpStandIn) -> dict[str, str]:
    server.on("dot", stall(0.05))
    return {"EMAIL_URL": server.url, "DELIVERY_WINDOW": str(WINDOW)}


def _issue(data: bytes) -> str:
    """The slug, which the stand-in's copy names in its subject."""
    found = re.search(rb"^Subject: The issue (\S+)", data, re.MULTILINE)
    assert found
    return found[1].decode()


if __name__ == "__main__":
    main()
