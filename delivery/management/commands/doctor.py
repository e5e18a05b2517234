from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from delivery import doctor
from newsletter.management.base import CarteiroCommand


class Command(CarteiroCommand):
    help = (
        "Look at this installation: database, mail server (nothing is mailed), settings, witness, clock and disk; say "
        "what is wrong and what to do, and propose DELIVERY_CONNECTIONS, DELIVERY_WINDOW and WORKERS_BULK. Exit codes: "
        "0 nothing is wrong; 1 something is."
    )
    requires_system_checks: list[str] = []  # they are among what is looked at

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        report = doctor.examine()
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json()))
        else:
            self._print(report)
        if not report.is_well:
            raise CommandError("Something is wrong: see above.")

    def _print(self, report: doctor.Report) -> None:
        for finding in report.findings:
            self.stdout.write(f"{finding.level:6} {finding.subject:12} {finding.said}.")
            if finding.todo:
                self.stdout.write(f"{'':20}-> {finding.todo.rstrip('.')}.")
        for name, plan in report.plans.items():
            self._print_prospect(name, report.prospect(plan))
        if report.plans and report.plans["now"] != report.plans["proposed"]:
            self.stdout.write("\nFor .env:")
            for setting, value in report.plans["proposed"].settings().items():
                self.stdout.write(f"{setting}={value}")

    def _print_prospect(self, name: str, prospect: dict[str, Any]) -> None:
        chosen = " ".join(f"{key}={value}" for key, value in prospect["settings"].items())
        rate, minutes = prospect["messages_per_second"], prospect["minutes"]
        self.stdout.write(f"\n{name}: {chosen}")
        self.stdout.write(
            f"  about {rate:,.0f} messages a second: {minutes:g} minutes for the largest list"
        )
        self.stdout.write(
            f"  at most {prospect['rows_at_stake']} rows unknown if this host loses its power"
        )
