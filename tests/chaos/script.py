"""What the scripts of the chaos share: the database is chosen before anything reads TEST_DATABASE."""

from __future__ import annotations

import argparse
import importlib
import os
import sys


def parser(what: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=what)
    now = os.environ.get("TEST_DATABASE", "sqlite")
    made.add_argument("--database", choices=("sqlite", "postgres"), default=now)
    return made


def prepare(database: str) -> None:
    """Bring up what the houses need; where another database was chosen, as a fresh process that reads it."""
    if os.environ.get("TEST_DATABASE", "sqlite") != database:
        again = [sys.executable, "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]]  # type: ignore[union-attr]
        os.execve(sys.executable, again, {**os.environ, "TEST_DATABASE": database})
    importlib.import_module("tests.environment")  # starts a PostgreSQL server where one is wanted


def spread(seconds: list[float]) -> str:
    """How many, the median and the greatest, for people."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    return f"{len(ordered)}, p50 {ordered[len(ordered) // 2]:.1f} s, max {ordered[-1]:.1f} s"
