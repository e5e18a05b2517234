from __future__ import annotations

from typing import Any

from delivery import release
from newsletter.management.base import CarteiroCommand
from newsletter.models import Newsletter, database_now


class Command(CarteiroCommand):
    help = (
        "Look for releases that are overdue and neither waiting, blocked nor paused, and resume them. "
        "`work` does it by itself on the release day. Nothing to do is a normal answer."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        did = [
            line
            for newsletter in Newsletter.objects.all()
            for line in release.sweep(newsletter, database_now())
        ]
        self.stdout.write("\n".join(did) or "Nothing to do.")
