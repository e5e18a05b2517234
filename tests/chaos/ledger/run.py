"""The chaos of the ledger: many seeds, each judged.

    python -m tests.chaos.ledger.run --seeds 100 [--recipients 120] [--database postgres]
    python -m tests.chaos.ledger.run --seed 17          one seed again
    python -m tests.chaos.ledger.run --work --seeds 5   a real `work`, all of it killed again and again

One line a seed, then the sums; exit code 1 where an invariant was broken.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos import script

if TYPE_CHECKING:
    from tests.chaos.ledger.plan import Plan
    from tests.chaos.ledger.scene import Facts, Scene

Tell = Callable[[str], object]


@dataclass
class Totals:
    """What all seeds of a run have shown."""

    seeds: int = 0
    readers: int = 0
    deaths: int = 0
    starved: int = 0
    unknown: int = 0
    copies: int = 0
    blows: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, facts: Facts, wrong: list[str]) -> None:
        self.seeds += 1
        self.readers += len(facts.rows)
        self.deaths += facts.tally.deaths
        self.starved += facts.tally.starved
        self.unknown += unknown(facts)
        self.copies += sum(seen.accepted for seen in facts.seen)
        self.blows += facts.tally.blows
        self.faults += facts.faults
        self.deeds += Counter(deed["what"] for deed in facts.tally.deeds)
        self.violations += [f"seed {facts.plan.seed}: {said}" for said in wrong]

    def met(self) -> set[str]:
        """What has happened at least once: the blows with and without their points, the faults, the deeds."""
        actions = {blow.partition(" ")[0] for blow in self.blows}
        return {*self.blows, *actions, *self.faults, *self.deeds}

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        return "\n".join(
            [
                f"{self.seeds} seeds, {self.readers} readers, {self.copies} copies taken, "
                f"{self.deaths} senders killed ({self.deaths / seconds:.1f}/s), {self.unknown} unknown, "
                f"{self.starved} leases ended by a busy machine, {seconds:.0f} s",
                f"blows: {_shown(self.blows)}",
                f"faults of the server: {_shown(self.faults)}",
                f"deeds: {_shown(self.deeds)}",
                f"{len(self.violations)} violations",
                *self.violations,
            ]
        )


def play(scene: Scene, plans: Iterable[Plan], totals: Totals, tell: Tell) -> None:
    """One plan after the other."""
    from tests.chaos.ledger.oracle import judge  # not before the database is chosen

    for plan in plans:
        facts = scene.play(plan)
        wrong = judge(facts)
        totals.add(facts, wrong)
        tell(line(facts, wrong))


def line(facts: Facts, wrong: list[str]) -> str:
    """A seed on one line, and what was wrong below it."""
    tally = facts.tally
    deeds = Counter(deed["what"] for deed in tally.deeds)
    shown = (
        f"seed {facts.plan.seed}: {len(facts.rows)} readers, {tally.deaths} killed, {unknown(facts)} unknown, "
        f"{facts.issue['state']}, {facts.seconds:.1f} s, {len(wrong)} violations | blows: {_shown(tally.blows)} | "
        f"server: {_shown(facts.faults)} | deeds: {_shown(deeds)} | leases lost: {tally.starved}"
    )
    return "\n    ".join([shown, *(said[:1500] for said in wrong)])


def unknown(facts: Facts) -> int:
    return sum(row["status"] == "unknown" for row in facts.rows)


def main() -> None:
    parser = script.parser(
        "Senders are killed, the wire and the database misbehave; the ledger must hold."
    )
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=random.randrange(100_000))
    parser.add_argument("--recipients", type=int, default=120)
    parser.add_argument("--work", action="store_true", help="kill all of a real `work` instead")
    options = parser.parse_args()
    script.prepare(options.database)
    first, count = (options.seed, 1) if options.seed is not None else (options.first, options.seeds)
    seeds = range(first, first + count)
    print(f"{options.database}, seeds {first} to {first + count - 1}", flush=True)
    totals = Totals()
    (_play_whole if options.work else _play_drawn)(seeds, options.recipients, totals)
    print(totals)
    sys.exit(bool(totals.violations))


def _play_drawn(seeds: range, recipients: int, totals: Totals) -> None:
    from tests.chaos.ledger.plan import drawn
    from tests.chaos.ledger.scene import Scene
    from tests.chaos.ledger.witness import Witness
    from tests.house import a_house

    with Witness() as witness, a_house(empty=True, EMAIL_URL=witness.url) as house:
        plans = (drawn(seed, recipients) for seed in seeds)
        play(Scene(house, witness), plans, totals, _say)


def _play_whole(seeds: range, recipients: int, totals: Totals) -> None:
    from tests.chaos.ledger import whole

    whole.play(seeds, totals, _say)


def _say(text: str) -> None:
    print(text, flush=True)


def _shown(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in sorted(counted.items())) or "none"


if __name__ == "__main__":
    main()
