from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from delivery import release
from delivery.management.following import follow
from newsletter.management.base import CarteiroCommand, find_issue
from newsletter.models import Refused


class Command(CarteiroCommand):
    help = (
        "Start or resume the sending of a published issue. "
        "Exit codes: 0 started, resumed, or sent already; 2 refused, with the reason."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("issue", help="an id, a slug, or NEWSLETTER/SLUG")
        parser.add_argument(
            "--wait", action="store_true", help="follow with progress until it is sent"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        issue = find_issue(options["issue"])
        self.stdout.write(release.start_send(issue, actor=self.actor))
        if options["wait"] and not follow(issue, self.stdout, sys.stdout.isatty()):
            raise Refused(f"{issue.label} did not arrive: see above.")
