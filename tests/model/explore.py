"""All states that two senders, two recipients and their world can reach, breadth first, and what is wrong in any."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from delivery.moves import PENDING, SENDING, SKIPPED

from .ledger_model import (
    SENDERS,
    TABLE,
    Bounds,
    Issue,
    Room,
    Row,
    Rules,
    Table,
    World,
    in_hand,
    killed,
    lease_lost,
    problem_of_row,
    problem_of_step,
    swapped,
    unheard,
)

ABSENT = Row(SKIPPED, consent=False)
State = tuple[int, int, int]  # the numbers of two rows and of their world
Next = tuple[
    str, State, bool, str
]  # what happens, the state, whether it comes by itself, what is wrong with it


@dataclass
class Found:
    """What an exploration saw. `trace`: how the first violation comes about, step by step."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    fired: set[str] = field(default_factory=set)
    violation: str = ""
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, {self.seconds:.1f} s"
        return f"{said}, violations {1 if self.violation else 0}"


class _Known(NamedTuple):
    """What is asked of a row again and again."""

    row: Row
    killed: tuple[int, int]
    lease_lost: tuple[int, int]
    swapped: int
    hands: tuple[int, int]
    unheard: tuple[bool, bool]
    holds: tuple[bool, bool]  # it is `sending` under that sender's fence
    open: bool


class Explorer:
    def __init__(self, bounds: Bounds, table: Table = TABLE) -> None:
        self.bounds = bounds
        self.rules = Rules(bounds, table)
        self.found = Found()
        self._numbers: dict[Row, int] = {}
        self._rows: list[Row] = []
        self._known: dict[int, _Known] = {}
        self._worlds: list[World] = []
        self._world_numbers: dict[World, int] = {}
        self._steps: dict[tuple[int, int, Room], list[tuple[str, int, bool, str]]] = {}

    def explore(self) -> Found:
        """Everything, or up to the first violation."""
        begun = time.monotonic()
        second = Row() if self.bounds.recipients == 2 else ABSENT
        start = (self._number(Row()), self._number(second), self._world(World()))
        self._came: dict[State, tuple[State, str] | None] = {start: None}
        level = [start]
        while level and not self.found.violation:
            self.found.depth += 1
            level = self._level(level)
        self.found.depth -= 1
        self.found.states = len(self._came)
        self.found.seconds = time.monotonic() - begun
        return self.found

    def _level(self, level: list[State]) -> list[State]:
        came = self._came
        after: list[State] = []
        for state in level:
            goes_on = False
            for label, new, progress, wrong in self._next(state):
                self.found.transitions += 1
                goes_on = goes_on or progress
                canonical = self._canonical(new)
                if canonical not in came:
                    came[canonical] = (state, label)
                    after.append(canonical)
                    wrong = wrong or self._problem_of_senders(new)
                if wrong:
                    self._tell(wrong, [label, self._picture(new)], state)
                    return []
            if not goes_on and (wrong := self._problem_of_rest(state)):
                self._tell(wrong, [], state)
                return []
        return after

    def _next(self, state: State) -> Iterator[Next]:
        a, b, w = state
        one, two = self._know(a), self._know(b)
        room = self._room(one, two)
        for label, new, progress, wrong in self._row_steps(a, w, room):
            yield label, (new, b, w), progress, wrong
        for label, new, progress, wrong in self._row_steps(b, w, room):
            yield label, (a, new, w), progress, wrong
        world = self._worlds[w]
        yield from self._losses(state, one, two)
        for label, changed in _people(world):
            yield label, (a, b, self._world(changed)), False, ""
        if world.issue == Issue.SENDING and not one.open and not two.open:
            yield "close", (a, b, self._world(world._replace(issue=Issue.CLOSED))), True, ""

    def _losses(self, state: State, one: _Known, two: _Known) -> Iterator[Next]:
        """A sender is killed, or stopped for longer than its lease."""
        a, b, w = state
        for sender in SENDERS:
            lost = (one.lease_lost[sender], two.lease_lost[sender])
            if lost == (a, b):
                continue  # it has nothing
            yield f"{sender} loses its lease", (*lost, w), False, ""
            yield f"{sender} is killed", (one.killed[sender], two.killed[sender], w), False, ""

    def _row_steps(self, row: int, world: int, room: Room) -> list[tuple[str, int, bool, str]]:
        key = (row, world, room)
        if key not in self._steps:
            self._steps[key] = list(self._judged(self._rows[row], self._worlds[world], room))
        return self._steps[key]

    def _judged(self, row: Row, world: World, room: Room) -> Iterator[tuple[str, int, bool, str]]:
        for step in self.rules.steps(row, world, room):
            self.found.fired.update(step.move.split())
            wrong = problem_of_step(row, step.row, world) or problem_of_row(step.row)
            yield step.label, self._number(step.row), step.progress, wrong

    def _room(self, one: _Known, two: _Known) -> Room:
        first, second = (
            one.hands[s] + two.hands[s] < self.bounds.window
            and not (one.unheard[s] or two.unheard[s])
            and not self._is_spent(one.row, two.row)
            for s in SENDERS
        )
        return Room(first, second, one.row.resend + two.row.resend < self.bounds.resends)

    def _is_spent(self, one: Row, two: Row) -> bool:
        return len(one.wire) + len(two.wire) >= self.bounds.attempts_in_all

    def _problem_of_senders(self, state: State) -> str:
        one, two = self._know(state[0]), self._know(state[1])
        most = max(one.holds[s] + two.holds[s] for s in SENDERS)
        return "more rows are sending than the window" if most > self.bounds.window else ""

    def _problem_of_rest(self, state: State) -> str:
        """Nothing comes by itself any more: the books must balance, or wait for a person, or for the 72 hours."""
        a, b, w = state
        rows = (self._rows[a], self._rows[b])
        for row in rows:
            if row.status == SENDING:
                return "a row stays sending for ever"
            spent = len(row.wire) == self.bounds.attempts or self._is_spent(*rows)
            if row.status == PENDING and not self._worlds[w].paused and not spent:
                return "a row stays pending for ever"
        return ""

    def _canonical(self, state: State) -> State:
        """Nothing depends on which sender or recipient is which: one state for all that differ in that only."""
        a, b, w = state
        c, d = self._know(a).swapped, self._know(b).swapped
        return (*min((a, b), (b, a), (c, d), (d, c)), w)

    def _number(self, row: Row) -> int:
        number = self._numbers.setdefault(row, len(self._rows))
        if number == len(self._rows):
            self._rows.append(row)
        return number

    def _world(self, world: World) -> int:
        number = self._world_numbers.setdefault(world, len(self._worlds))
        if number == len(self._worlds):
            self._worlds.append(world)
        return number

    def _know(self, number: int) -> _Known:
        if number not in self._known:
            row = self._rows[number]
            self._known[number] = _Known(
                row=row,
                killed=(self._number(killed(row, 0)), self._number(killed(row, 1))),
                lease_lost=(self._number(lease_lost(row, 0)), self._number(lease_lost(row, 1))),
                swapped=self._number(swapped(row)),
                hands=(in_hand(row, 0), in_hand(row, 1)),
                unheard=(unheard(row, 0), unheard(row, 1)),
                holds=(_holds(row, 0), _holds(row, 1)),
                open=row.status in (PENDING, SENDING),
            )
        return self._known[number]

    def _tell(self, wrong: str, last: list[str], state: State) -> None:
        steps = [*reversed(last)]
        at: State | None = state
        while at is not None:
            steps.append(self._picture(at))
            came = self._came[at]
            if came:
                steps.append(came[1])
            at = came[0] if came else None
        self.found.violation = wrong
        self.found.trace = steps[::-1]

    def _picture(self, state: State) -> str:
        a, b, w = state
        return f"    {_describe(self._rows[a])} | {_describe(self._rows[b])} | {self._worlds[w]}"


def _people(world: World) -> Iterator[tuple[str, World]]:
    yield ("resume" if world.paused else "pause"), world._replace(paused=not world.paused)
    if world.issue == Issue.SENDING:
        yield "cancel", world._replace(issue=Issue.CANCELLED)


def _holds(row: Row, sender: int) -> bool:
    return row.status == SENDING and row.owner == sender


def _describe(row: Row) -> str:
    wire = " ".join(f"{a.at.name}/{a.fate.name} by {a.by}" for a in row.wire)
    consent = "" if row.consent else " unsubscribed"
    return f"{row.status} owner {row.owner}{consent} resend {row.resend} [{wire}]"
