"""How fast Carteiro is on this machine: `make bench`, or `python -m tests.bench`.

Every part writes its figures below var/bench/ as soon as it has them; table and plot of docs/performance.md are made
from what is there, at the end of a run or by `--write` alone. `--quick` runs everything in small, to see whether it
works: its figures mean nothing, and are kept apart.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.bench import figures, plot, servers, table
from tests.bench.sizes import SENDERS, WINDOWS

ROOT = Path(__file__).resolve().parent.parent.parent
BUSY = 0.5  # a load average from which on the figures are doubtful
INTERRUPTED = 130  # the exit code after Ctrl-C
NEED_NO_SINK = {"fsync", "bulk"}


def main(words: list[str]) -> int:
    arguments = parse(words)
    if arguments.write:
        write(arguments.figures, arguments.docs)
        return 0
    missing = [name for name in ("smtp-sink", "smtp-source") if not servers.find(name)]
    if missing and not NEED_NO_SINK.issuperset(arguments.only):
        said = " and ".join(missing)
        print(f"Missing: {said}. Install Postfix (Debian: apt install postfix); it need not run.")
        return 2
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"The machine is busy (load {load:.1f}): the figures will be doubtful.")
    folder = arguments.figures / "quick" if arguments.quick else arguments.figures
    codes = []
    for database in arguments.database:
        codes.append(run(database, arguments, folder, load))
        if codes[-1] == INTERRUPTED:
            return INTERRUPTED
    if not arguments.quick:
        write(folder, arguments.docs)
    return max(codes)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    for name, known in (("--only", figures.PARTS), ("--database", figures.DATABASES)):
        parser.add_argument(name, nargs="+", metavar="NAME", choices=known, default=list(known))
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written")
    parser.add_argument("--windows", type=int, nargs="+", default=WINDOWS, help="of `wire`")
    parser.add_argument("--senders", type=int, nargs="+", default=SENDERS, help="of `wire`")
    parser.add_argument("--write", action="store_true", help="only table and plot, measure nothing")
    parser.add_argument("--figures", type=Path, default=ROOT / "var" / "bench")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    return parser.parse_args(words)


def run(database: str, arguments: argparse.Namespace, folder: Path, load: float) -> int:
    """All the parts on one database: the exit code. It cleans up before it ends, also when it is interrupted."""
    command = [sys.executable, "-m", "tests.bench.run", *arguments.only]
    command += ["--figures", str(folder), "--load", str(load)]
    for name in ("windows", "senders"):
        command += [f"--{name}", *map(str, getattr(arguments, name))]
    command += ["--quick"] if arguments.quick else []
    environment = {**os.environ, "TEST_DATABASE": database}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal told it too
            print("Cleaning up ...")


def write(folder: Path, docs: Path) -> None:
    """The tables and the plot, from the figures that are there."""
    found = figures.load(folder)
    page = docs / "performance.md"
    page.write_text(table.replace(page.read_text(), table.make(found)))
    (docs / "images" / "performance.svg").write_text(plot.make(found))
    print(f"Written: {page}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
