"""Starts what knows the errands.

python -m tests.chaos.run_errands work
python -m tests.chaos.run_errands load RATE SEED
python -m tests.chaos.run_errands some COUNT SECONDS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
from django.core.management import execute_from_command_line

ROLES = {"idle": "idle", "processing": "busy", "pusher": "pusher", "monitor": "monitor"}


def main() -> None:
    """`work` as manage.py runs it, with the errands registered; CHAOS_MINUTE shortens its minute, in seconds."""
    _name_processes()
    django.setup()
    from tests.chaos import errands

    if minute := os.environ.get("CHAOS_MINUTE"):
        errands.shorten_the_minute(float(minute))
    if crashes := os.environ.get("CHAOS_CRASHES"):
        errands.forgive_crashes(int(crashes))
    match sys.argv[1:]:
        case ["load", rate, seed]:
            print(errands.load(float(rate), int(seed)))
        case ["some", count, seconds]:
            print(errands.some(int(count), float(seconds)))
        case _:
            execute_from_command_line(["manage.py", "work"])


def _name_processes() -> None:
    """django-q2 tells each process's part to the package setproctitle where there is one: here it becomes its `comm`,
    by which `parts` knows it."""
    package: Any = SimpleNamespace(setproctitle=_name)
    sys.modules["setproctitle"] = package


def _name(title: str) -> None:
    """`title`: "qcluster PROCESS PART ...", and the cluster's name instead of a part for the lane's leader."""
    role = ROLES.get(title.split()[2], "leader")
    Path("/proc/self/comm").write_text(role)


if __name__ == "__main__":
    main()
