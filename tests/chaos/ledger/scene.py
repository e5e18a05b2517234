"""One seed, played: hosts with senders, the witness, the deeds in their time; then everything drains, and the facts."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.ledger import server
from tests.chaos.ledger.plan import ON_SERVER, Plan
from tests.chaos.ledger.witness import Seen, Witness
from tests.house import ON_POSTGRES, House

STILL_SECONDS = 1.2  # nothing was taken for so long: the next deed comes early
HOLD_SECONDS = 0.6  # of a pause


@dataclass
class Tally:
    """What was done to one seed's senders, and what they and the operators told."""

    blows: Counter[str] = field(default_factory=Counter)  # "action point"
    deaths: int = 0  # senders that were killed
    starved: int = 0  # senders that lived, and whose lease was over
    deeds: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    soft: list[str] = field(default_factory=list)  # connections whose commits are not durable
    ended: int = 0


@dataclass
class Facts:
    """All that the oracle looks at."""

    plan: Plan
    issue: dict[str, Any]
    rows: list[dict[str, Any]]  # of the ledger
    figures: list[dict[str, Any]]  # its tally, by holder
    moves: list[dict[str, Any]]  # of its rows: the history
    issue_moves: list[dict[str, Any]]
    reports: int
    seen: list[Seen]
    troubled: set[tuple[str, str]]  # (phase, address) of the server's faults
    faults: Counter[str]
    tally: Tally
    seconds: float = 0.0


class Crew:
    """A host's program, as the scene sees it."""

    def __init__(self, house: House, name: str) -> None:
        self.process = house.program("-m", "tests.chaos.ledger.host", name, str(house.log))
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def say(self, do: str, **order: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.put(json.loads(line))


class Scene:
    """Plays one plan after the other in a house."""

    def __init__(self, house: House, witness: Witness) -> None:
        self.house = house
        self.witness = witness
        self.crews = [Crew(house, "host-a"), Crew(house, "host-b")]
        self.tally = Tally()
        self.number = 0
        self.wanted: set[int] = set()  # deeds under way
        self.looked_at = self.hold_until = 0.0
        for crew in self.crews:
            assert crew.events.get(timeout=60).get("ready")

    def play(self, plan: Plan) -> Facts:
        began = time.monotonic()
        self.tally = Tally()
        self.wanted.clear()  # what had not ended with the last seed was killed
        self.plan = plan
        self.witness.behave()
        self._found()
        self._start(plan.blows)
        self._storm()
        self._calm()
        self._drain()
        facts = read_facts(self.house, self.witness, plan, self.issue, self.tally)
        facts.seconds = time.monotonic() - began
        return facts

    def _found(self) -> None:
        came = self._do("found", seed=self.plan.seed, recipients=self.plan.recipients)["came"]
        self.issue, self.readers = came["issue"], came["readers"]
        self.tally.deeds.clear()
        self.witness.begin(self.plan, [address for _, address in self.readers])

    def _start(self, blows: tuple[Any, ...]) -> None:
        hosts = self.plan.hosts
        for number, crew in enumerate(self.crews[:hosts]):
            crew.say(
                "play",
                seed=self.plan.seed,
                issue=self.issue,
                senders=self.plan.senders,
                settings=self.plan.settings,
                blows=[asdict(blow) for blow in blows[number::hosts]],
                mutant=self.plan.mutant,
            )

    def _storm(self) -> None:
        """Until all deeds are done and nothing is open, or for so long."""
        end = time.monotonic() + self.plan.storm
        deeds = list(self.plan.deeds)
        self.hold_until = 0.0
        taken, moved_at = 0, time.monotonic()
        while time.monotonic() < end:
            self._hear(0.02)
            if self.witness.taken() > taken:
                taken, moved_at = self.witness.taken(), time.monotonic()
            still = time.monotonic() - moved_at > STILL_SECONDS
            while deeds and (still or taken >= deeds[0].share * self.plan.recipients):
                self._begin(deeds.pop(0))
                still = False
                moved_at = time.monotonic()
            if self._is_over() and not deeds:
                return

    def _begin(self, deed: Any) -> None:
        if deed.what in ON_SERVER:
            if ON_POSTGRES:
                server.strike(deed.what, self.house)
                self.tally.blows[deed.what] += 1
        elif deed.what == "kill_clerk":
            self.crews[0].say("kill_clerk")
            self.tally.blows["kill_clerk"] += 1
        elif deed.what in ("unsubscribe", "suppress", "erase"):
            self._order(deed.what, row=self.readers[deed.reader][0])
        else:
            for _ in range(2 if deed.what == "send" else 1):
                self._order(deed.what, issue=self.issue)
            if deed.what in ("pause", "hold"):
                self.hold_until = time.monotonic() + HOLD_SECONDS

    def _calm(self) -> None:
        self.witness.behave()
        for crew in self.crews:
            crew.say("calm")

    def _drain(self) -> None:
        """To the end: what a stopped sender brings late may open a row again."""
        end = time.monotonic() + self.plan.drain
        while True:
            while not self._is_over():
                if time.monotonic() > end:
                    self.tally.troubles.append(f"not drained: {self._state()}")
                    break
                self._hear(0.02)
            self._end()
            if not self._open_rows() or time.monotonic() > end:
                return
            self._start(())

    def _end(self) -> None:
        self.tally.ended = 0
        for crew in self.crews:
            crew.say("end")
        stop = time.monotonic() + 30
        while self.tally.ended < len(self.crews) and time.monotonic() < stop:
            self._hear(0.01)
        assert self.tally.ended == len(self.crews), "a host hangs"

    def _is_over(self) -> bool:
        """Sent or cancelled, nothing open; a pause is lifted after HOLD_SECONDS."""
        if time.monotonic() < self.looked_at + 0.1:
            return False
        self.looked_at = time.monotonic()
        found = self._rows(
            "SELECT state, paused_at, blocked_reason, (SELECT paused_at FROM delivery_house) "
            f"FROM newsletter_issue WHERE id = {self.issue}"
        )
        if not found:
            return False
        state, paused, blocked, held = found[0]
        if (paused or held) and time.monotonic() > self.hold_until and not self.wanted:
            self._order("resume" if paused else "let_go", issue=self.issue)
        if blocked and not self.wanted:
            self._order("send", issue=self.issue)
        return state in ("sent", "cancelled") and not self._open_rows()

    def _open_rows(self) -> int:
        rows = self._rows(
            f"SELECT count(*) FROM delivery_emaildelivery WHERE issue_id = {self.issue} "
            "AND status IN ('pending', 'sending')"
        )
        return int(rows[0][0]) if rows else 1

    def _state(self) -> str:
        counted = self._rows(
            "SELECT i.state, i.paused_reason, i.blocked_reason, d.status, count(*) FROM newsletter_issue i "
            f"JOIN delivery_emaildelivery d ON d.issue_id = i.id WHERE i.id = {self.issue} "
            "GROUP BY 1, 2, 3, 4"
        )
        return str(counted)

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        """[] where the database is away."""
        try:
            return self.house.query(statement)
        except server.AWAY:
            return []

    def _do(self, what: str, **args: Any) -> dict[str, Any]:
        """A deed, and its end."""
        self._order(what, **args)
        stop = time.monotonic() + 30
        while not self.tally.deeds:
            self._hear(0.01)
            assert time.monotonic() < stop, f"{what} does not end: {self.tally.troubles}"
        return self.tally.deeds[-1]

    def _order(self, what: str, **args: Any) -> None:
        self.number += 1
        self.wanted.add(self.number)
        self.crews[0].say("deed", number=self.number, what=what, args=args, mutant=self.plan.mutant)

    def _hear(self, seconds: float) -> None:
        time.sleep(seconds)
        for crew in self.crews:
            assert crew.process.poll() is None, "a host has died"
            while not crew.events.empty():
                self._note(crew.events.get())

    def _note(self, event: dict[str, Any]) -> None:
        tally = self.tally
        if "blow" in event:
            tally.blows[f"{event['blow']} {event['point']}"] += 1
        elif "died" in event:
            tally.deaths += event["died"] == 9
        elif "starved" in event:
            tally.starved += 1
        elif "deed" in event:
            self.wanted.discard(event["deed"])
            tally.deeds.append(event)
        elif "trouble" in event:
            tally.troubles.append(event["trouble"])
        elif "soft" in event:
            tally.soft.append(event["soft"])
        elif "ended" in event:
            tally.ended += 1


def read_facts(house: House, witness: Witness, plan: Plan, issue: int, tally: Tally) -> Facts:
    """What ledger, history and witness say at the end."""
    return Facts(
        plan=plan,
        issue=_dicts(house, "newsletter_issue", f"id = {issue}")[0],
        rows=_dicts(house, "delivery_emaildelivery", f"issue_id = {issue}"),
        figures=_dicts(house, "delivery_ledgertally", f"issue_id = {issue}"),
        moves=_dicts(house, "newsletter_transition", "subject = 'delivery'"),
        issue_moves=_dicts(house, "newsletter_transition", "subject = 'issue'"),
        reports=len(_dicts(house, "delivery_job", "name = 'report'")),
        seen=list(witness.seen),
        troubled=set(witness.troubled),
        faults=Counter(witness.faults),
        tally=tally,
    )


def _dicts(house: House, table: str, where: str) -> list[dict[str, Any]]:
    columns = server.columns(house, table)
    names = ", ".join(f'"{name}"' for name in columns)
    found = house.query(f"SELECT {names} FROM {table} WHERE {where} ORDER BY id")
    return [dict(zip(columns, row, strict=True)) for row in found]
