from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from delivery.transactional import send_test
from delivery.transports.outcomes import Verdict
from newsletter.management.base import REFUSED, CarteiroCommand, find_issue
from newsletter.models import normalise_address


class Command(CarteiroCommand):
    help = (
        "Mail an issue, as it stands now, to one address. Needs no approval and touches no ledger."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("issue", help="an id, a slug, or NEWSLETTER/SLUG")
        parser.add_argument("--to", required=True, metavar="ADDRESS", help="who gets it")

    def handle(self, *args: Any, **options: Any) -> None:
        issue = find_issue(options["issue"])
        try:
            address = normalise_address(options["to"])
        except ValueError as error:
            raise CommandError(f"--to is not an address: {error}", returncode=REFUSED) from None
        outcome = send_test(issue, address)
        if outcome.verdict is not Verdict.SENT:
            raise CommandError(
                f"The mail server did not take it ({outcome.phase.value}): {outcome.reason} {outcome.reply}"
            )
        self.stdout.write(f"{issue.label} was mailed to {address}.")
