from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import CommandParser

from delivery import sending
from delivery.management.following import print_books
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
            print_books(figures, self.stdout)
        if not figures["balanced"] or figures["pending"] or figures["sending"]:
            sys.exit(1)
