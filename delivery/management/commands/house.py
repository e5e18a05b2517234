from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandParser

from delivery import holding
from delivery.management.standing import print_standing, standing
from delivery.models import House
from newsletter.management.base import CarteiroCommand
from newsletter.models import Refused


class Command(CarteiroCommand):
    help = (
        "Show whether everything is held, by whom and why, and what is under way. Or pause everything (what is on the "
        "wire finishes), resume it, or cancel every issue that is under way. Exit codes: 0; 2 refused, also where it "
        "is paused or resumed already."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = ["pause", "resume", "cancel"]
        parser.add_argument("action", nargs="?", choices=actions, help="to change it")
        parser.add_argument("--reason", default="", help="why; others will read it")
        parser.add_argument("--yes", action="store_true", help="cancel: do it, do not only list it")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        action, reason = options["action"], options["reason"].strip()
        if action in ("pause", "cancel") and not reason:
            raise Refused(f"Say why: {action} --reason TEXT.")
        if action == "pause":
            self._pause(reason)
        elif action == "resume":
            self._resume(reason)
        elif action == "cancel":
            self._cancel(reason, options["yes"])
        elif options["json"]:
            self.stdout.write(json.dumps(standing()))
        else:
            print_standing(self.stdout)

    def _pause(self, reason: str) -> None:
        if not holding.pause(actor=self.actor, reason=reason):
            raise Refused("Everything is paused already.")
        self.stdout.write("Everything is paused. What is on the wire finishes.")

    def _resume(self, reason: str) -> None:
        if not holding.resume(actor=self.actor, reason=reason):
            raise Refused("Everything is not paused.")
        doubt = House.read().doubt
        self.stdout.write(f"The pause is lifted. Still held: {doubt}" if doubt else "All goes on.")

    def _cancel(self, reason: str, yes: bool) -> None:
        issues = holding.under_way()
        if not issues:
            raise Refused("Nothing is under way.")
        if not yes:
            names = ", ".join(issue.label for issue in issues)
            raise Refused(f"This cancels for good: {names}. Say --yes.")
        self.stdout.write("\n".join(holding.cancel(actor=self.actor, reason=reason)))
