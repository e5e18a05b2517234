from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from newsletter.importing import ImportRefused, import_subscribers
from newsletter.management.base import REFUSED, CarteiroCommand, find_newsletter, read_file

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
        data = read_file(options["file"])
        try:
            report = import_subscribers(
                data,
                newsletter,
                source=f"import of {Path(options['file']).name}"[:200],
                progress=self._progress,
            )
        except ImportRefused as refusal:
            raise CommandError(f"{options['file']}: {refusal}", returncode=REFUSED) from None
        shown = report.problems if options["all_problems"] else report.problems[:SHOWN]
        for line, problem in shown:
            self.stderr.write(f"line {line}: {problem}")
        if len(shown) < len(report.problems):
            self.stderr.write(f"... and {len(report.problems) - len(shown)} more (--all-problems)")
        self.stdout.write(
            f"{report.rows} rows: {report.added} added, {report.already} were subscribed already, "
            f"{len(report.problems)} with a problem."
        )
        if not report.added and not report.already:
            raise CommandError("Nobody was imported.", returncode=REFUSED)

    def _progress(self, rows: int) -> None:
        if rows >= 10_000 and rows % 10_000 < 1000:
            self.stderr.write(f"{rows} rows ...")
