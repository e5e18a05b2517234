"""`manage.py doctor`: what this installation is, what is wrong with it, and the settings that would suit it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from django.db import Error, connection

from delivery.errors import EdgeError
from delivery.redaction import redact_text
from delivery.transports.probe import Probe

from . import database, house, server, tuning
from .findings import Finding, ok, wrong
from .tuning import Measured, Plan

__all__ = ["Finding", "Measured", "Plan", "Report", "examine"]


@dataclass(frozen=True)
class Report:
    """`measured` is None where something could not be, or where a provider's rate decides."""

    findings: tuple[Finding, ...]
    measured: Measured | None

    @property
    def is_well(self) -> bool:
        return all(finding.level != "wrong" for finding in self.findings)

    @property
    def plans(self) -> dict[str, Plan]:
        """As it is, and as it might be; empty where nothing was measured."""
        if self.measured is None:
            return {}
        return {"now": tuning.present(), "proposed": tuning.propose(self.measured)}

    def prospect(self, plan: Plan) -> dict[str, Any]:
        """What may be expected of a plan: messages a second, and minutes for the largest list."""
        assert self.measured is not None, "there is a plan"
        rate = tuning.expected(self.measured, plan)
        return {
            "settings": plan.settings(),
            "messages_per_second": round(rate, 1),
            "minutes": round(tuning.minutes(self.measured, rate), 1),
            "rows_at_stake": plan.at_stake,
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "well": self.is_well,
            "findings": [asdict(finding) for finding in self.findings],
            "measured": self.measured and asdict(self.measured),
            "plans": {name: self.prospect(plan) for name, plan in self.plans.items()},
        }


def examine() -> Report:
    """Everything, in some seconds; what fails is a finding and stops nothing else."""
    findings = [ok("machine", f"{_cpus()} CPU")]
    found: Probe | None = None
    try:
        found = server.probe()
        findings += server.examine(found)
    except EdgeError as error:
        findings.append(server.unreachable(error.message))
    findings += _guarded(database.examine)
    findings += house.examine_settings()
    findings += house.examine_witness()
    findings += _guarded(house.examine_standing)
    try:
        measured, lines = _measured(found)
        findings += lines
    except (Error, OSError) as error:
        measured = None
        findings.append(_no_database(error))
    return Report(tuple(dict.fromkeys(findings)), measured)


def _guarded(work: Callable[[], Iterator[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(work())
    except (Error, OSError) as error:
        findings.append(_no_database(error))
    return findings


def _no_database(error: Exception) -> Finding:
    said = redact_text(str(error).strip().split("\n")[0])
    todo = "look at DATABASE_URL, the server, and the rights on the file and its folder"
    return wrong("database", f"it cannot be used: {said}", todo)


def _measured(found: Probe | None) -> tuple[Measured | None, list[Finding]]:
    statement, commit = database.measure()
    said = f"a commit waits {_ms(commit)} for the disk, a statement takes {_ms(statement)}"
    lines = [ok("database", said)]
    if found is None or not database.is_migrated():
        return None, lines
    measured = Measured(
        database=connection.vendor,
        statement=statement,
        commit=commit,
        cpus=_cpus(),
        round_trip=found.round_trip,
        pipelining="PIPELINING" in found.extensions,
        local_server=server.is_local(),
        admitted=found.admitted,
        refused=bool(found.refusal),
        readers=house.readers(),
    )
    return measured, lines


def _cpus() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2g} ms"
