"""Some parts on one database, in a process of their own: TEST_DATABASE is read when the houses are imported."""

from __future__ import annotations

import tests.environment  # noqa: F401  isort: skip  (starts the database server)

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.bench import figures, machine
from tests.bench.bench import Bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--figures", type=Path, required=True)
    parser.add_argument("--load", type=float, required=True)
    parser.add_argument("--windows", type=int, nargs="+", required=True)
    parser.add_argument("--senders", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    with Bench(
        os.environ["TEST_DATABASE"],
        quick=arguments.quick,
        windows=tuple(arguments.windows),
        senders=tuple(arguments.senders),
    ) as bench:
        done = [_one(bench, part, arguments) for part in arguments.parts]
    return 0 if all(done) else 1


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _one(bench: Bench, part: str, arguments: argparse.Namespace) -> bool:
    """Run one part and write down what it found, or why it found nothing; the others go on."""
    print(f"{bench.database}: {part}", flush=True)
    began = time.monotonic()
    about = {"machine": machine.describe(arguments.load), "quick": bench.quick}
    try:
        found = {"figures": importlib.import_module(f"tests.bench.{part}").run(bench)}
    except Exception as error:  # noqa: BLE001 - told, written down, and the next part runs
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {str(error).strip()[:300]}"}
    about["seconds"] = round(time.monotonic() - began)
    figures.save(arguments.figures, part, bench.database, about | found)
    print(f"{bench.database}: {part} took {about['seconds']} s", flush=True)
    return "figures" in found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
