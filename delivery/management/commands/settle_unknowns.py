from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from delivery import relay_log
from newsletter.management.base import CarteiroCommand, find_issue


class Command(CarteiroCommand):
    help = (
        "Settle an issue's unknown rows by the log of the Postfix that EMAIL_URL names: sent where it passed the mail "
        "on, failed where it gave it up; all else stays unknown. Exit codes: 0; 2 where the file is no such log."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("issue", help="an id, a slug, or NEWSLETTER/SLUG")
        parser.add_argument(
            "--postfix-log",
            action="append",
            required=True,
            metavar="FILE",
            help="plain or gzip; give it several times for rotated files, the oldest first",
        )
        parser.add_argument("--dry-run", action="store_true", help="count only, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        issue, dry_run = find_issue(options["issue"]), options["dry_run"]
        found = relay_log.settle(issue, options["postfix_log"], actor=self.actor, dry_run=dry_run)
        self.stdout.write(
            f"unknown before   {found.unknown}\n"
            f"settled sent     {found.sent}\n"
            f"settled failed   {found.failed}\n"
            f"still deferred   {found.deferred}\n"
            f"without a trace  {found.nothing}"
        )
        if dry_run:
            self.stdout.write("A dry run: nothing was changed.")
