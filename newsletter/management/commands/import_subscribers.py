from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from newsletter.importing import ImportRefused, Report, import_subscribers
from newsletter.management.base import REFUSED, CarteiroCommand, find_newsletter, open_file
from newsletter.management.progress import Progress

SHOWN = 100


class Command(CarteiroCommand):
    help = (
        "Import confirmed subscribers from a CSV file with a column `email` and an optional `name`."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file")
        parser.add_argument("--newsletter", required=True, metavar="SLUG")
        parser.add_argument(
            "--all-problems", action="store_true", help=f"not only the first {SHOWN}"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        newsletter = find_newsletter(options["newsletter"])
        self.room = sys.maxsize if options["all_problems"] else SHOWN
        try:
            with open_file(options["file"]) as file:
                report = import_subscribers(
                    file,
                    newsletter,
                    source=f"import of {_printable(Path(options['file']).name)}"[:200],
                    tell=self._show,
                    progress=Progress(self.stderr.write),
                )
        except ImportRefused as refusal:
            raise CommandError(f"{options['file']}: {refusal}", returncode=REFUSED) from None
        self._sum_up(report, shown=report.problems if options["all_problems"] else SHOWN)

    def _show(self, line: int, problem: str) -> None:
        """At once, as they are found: a million of them fit in no memory."""
        if self.room > 0:
            self.stderr.write(f"line {line}: {problem}")
            self.room -= 1

    def _sum_up(self, report: Report, shown: int) -> None:
        if report.problems > shown:
            self.stderr.write(f"... and {report.problems - shown} more (--all-problems)")
        self.stdout.write(
            f"{report.rows} rows: {report.added} added, {report.already} were subscribed already, "
            f"{report.problems} with a problem."
        )
        if not report.added and not report.already:
            raise CommandError("Nobody was imported.", returncode=REFUSED)


def _printable(name: str) -> str:
    """A file's name can be any bytes; those that are not UTF-8 no database holds."""
    return name.encode(errors="replace").decode()
