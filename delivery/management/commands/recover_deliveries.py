from __future__ import annotations

from typing import Any

from delivery.recovery import recover
from newsletter.management.base import CarteiroCommand


class Command(CarteiroCommand):
    help = "Settle what dead workers left behind, as `work` does every minute and at its start. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        found = recover()
        self.stdout.write(
            f"{found['unknown']} deliveries became unknown, "
            f"{found['expired']} expired; {found['jobs']} jobs queued again, {found['woken']} runs woken."
        )
