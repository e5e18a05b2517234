from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from delivery import backups
from newsletter.management.base import CarteiroCommand


class Command(CarteiroCommand):
    help = (
        "Copy the database into a new file, while everything goes on. PostgreSQL needs its pg_dump. Keep the file, the "
        "environment and ADDRESS_KEY, and leave the witness out of it. Exit codes: 0; 2 refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(backups.backup(options["file"]))
