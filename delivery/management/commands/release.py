from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from delivery import release
from delivery.management.following import follow
from newsletter.management.base import CarteiroCommand, find_issue
from newsletter.models import Issue, Refused

TOO_EARLY = 3


class Command(CarteiroCommand):
    help = (
        "Start the release of an approved issue, or resume it where it stands. The workers (`work`) do the rest. "
        "Exit codes: 0 started, resumed, or sent already; 2 refused; 3 before its hour (see --now)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("issue", help="an id, a slug, or NEWSLETTER/SLUG")
        parser.add_argument("--now", action="store_true", help="do not wait for its hour")
        parser.add_argument(
            "--wait", action="store_true", help="follow with progress until it is sent"
        )
        parser.add_argument("--resume", action="store_true", help="lift a pause first")
        parser.add_argument("--without-podcast", action="store_true", help="do not wait for it")
        parser.add_argument("--without-blog", action="store_true", help="go on without publishing")

    def handle(self, *args: Any, **options: Any) -> None:
        issue = find_issue(options["issue"])
        try:
            with transaction.atomic():  # a refusal leaves nothing behind
                self.stdout.write(self._start(issue, options))
        except release.TooEarly as early:
            raise CommandError(
                f"{early} Use --now to start it at once.", returncode=TOO_EARLY
            ) from None
        if options["wait"] and not follow(issue, self.stdout, sys.stdout.isatty()):
            raise Refused(f"{issue.label} did not arrive: see above.")

    def _start(self, issue: Issue, options: dict[str, Any]) -> str:
        without = {"podcast": options["without_podcast"], "blog": options["without_blog"]}
        if any(without.values()):
            release.go_without(issue, **without, actor=self.actor)
        if options["resume"]:
            release.resume(issue, actor=self.actor)
        return release.start(issue, actor=self.actor, now=options["now"])
