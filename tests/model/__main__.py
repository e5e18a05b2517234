"""`make model`: every state of the ledger within these bounds, and the wrong tables that are found out."""

from __future__ import annotations

import sys

from .explore import Explorer
from .ledger_model import Bounds
from .mutants import MUTANTS, SMALL

RUNS = {
    "2 senders, 2 recipients": Bounds(),
    "the same, 2 rows a sender at once": Bounds(window=2),
    "2 senders, 1 recipient, 1 resend": SMALL,
}


def main() -> int:
    wrong = 0
    for what, bounds in RUNS.items():
        found = Explorer(bounds).explore()
        print(f"{what}: {found}", flush=True)
        if found.violation:
            wrong += 1
            print(f"  {found.violation}:", *found.trace, sep="\n  ")
    for name, table in MUTANTS.items():
        caught = Explorer(SMALL, table).explore().violation
        wrong += not caught
        print(f"mutant: {name}: {f'caught: {caught}' if caught else 'MISSED'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
