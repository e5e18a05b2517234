from __future__ import annotations

from typing import Any

from delivery.work import Supervisor
from newsletter.management.base import CarteiroCommand
from newsletter.models import AddressKey


class Command(CarteiroCommand):
    help = (
        "Run all workers and the scheduler of this host in the foreground. SIGTERM or Ctrl-C finishes what is on the "
        "wire and stops."
    )
    requires_migrations_checks = True

    def handle(self, *args: Any, **options: Any) -> None:
        AddressKey.check_unchanged()
        Supervisor().run()
