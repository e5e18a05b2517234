from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from delivery import holding, witness
from delivery.management.standing import print_standing
from delivery.models import House
from newsletter.management.base import CarteiroCommand
from newsletter.models import Refused

WHAT_TO_DO = """
Whoever was mailed since the backup is `pending` here again, and would get a second copy. Look at the mail server's
log since then. An issue that was mailed, in whole or in part, you cancel; one that was not you leave. Readers who said
no since then are forgotten too: enter what you know. Then: confirm_database --yes --reason TEXT"""


class Command(CarteiroCommand):
    help = (
        "Say that a database that was put back from a backup is to go on as it is. Without --yes it prints what it "
        "knows and what to settle before. Exit codes: 0; 2 refused, also where nobody doubts it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", default="", help="what was looked at; others will read it")
        parser.add_argument("--yes", action="store_true", help="it was looked at: go on")

    def handle(self, *args: Any, **options: Any) -> None:
        reason = options["reason"].strip()
        print_standing(self.stdout)
        if not House.read().doubt:
            raise Refused("Nobody doubts this database: there is nothing to confirm.")
        if not options["yes"]:
            self.stdout.write(WHAT_TO_DO)
            raise Refused("Not confirmed: say --yes --reason TEXT when that is done.")
        if not reason:
            raise Refused("Say what you looked at: --reason TEXT.")
        try:
            house = holding.confirm(actor=self.actor, reason=reason)
        except witness.WitnessTrouble as trouble:
            raise CommandError(
                f"The witness was not told: {trouble.message}. Mend that; `house` says whether the database is doubted "
                "again."
            ) from None
        if house is None:
            raise Refused("Somebody else confirmed it just now.")
        more = f" Still paused: {house.paused_reason}" if house.paused_at else " All goes on."
        self.stdout.write(f"The database is confirmed; its number is {house.releases}.{more}")
