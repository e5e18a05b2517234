from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import CommandParser

from delivery import sending
from newsletter.management.base import CarteiroCommand, find_issue


class Command(CarteiroCommand):
    help = (
        "Print the books of an issue. Exit code 0 only when the audience is frozen, the books balance, and nothing "
        "is pending or sending; else 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("issue", help="an id, a slug, or NEWSLETTER/SLUG")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        figures = sending.books(find_issue(options["issue"]))
        if options["json"]:
            self.stdout.write(json.dumps(figures))
        else:
            for name, value in figures.items():
                self.stdout.write(f"{name:<9} {_in_words(value)}")
        if not figures["balanced"] or figures["pending"] or figures["sending"]:
            sys.exit(1)


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not frozen yet" if value is None else str(value)
