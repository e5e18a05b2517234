from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from delivery import backups
from newsletter.management.base import CarteiroCommand
from newsletter.models import Refused

NEXT = """It has forgotten what was sent since the backup. So nothing leaves until you say so:
1. Start the web and `work`: everything is held.
2. `house` shows what is under way. What was mailed since, in whole or in part, you cancel.
3. Enter who unsubscribed or was suppressed since.
4. confirm_database --yes --reason TEXT"""


class Command(CarteiroCommand):
    help = (
        "Put a backup in the place of the database, which is kept beside it. Stop `work` and the web before. It comes "
        "up held, until confirm_database. Exit codes: 0; 2 refused."
    )
    requires_system_checks = []  # what is to be replaced may be damaged

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--yes", action="store_true", help="`work` and the web are stopped")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["yes"]:
            raise Refused("This replaces the database: stop `work` and the web, then say --yes.")
        for line in backups.restore(options["file"]):
            self.stdout.write(line)
        self.stdout.write(NEXT)
