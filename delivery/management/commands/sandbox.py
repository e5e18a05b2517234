from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from delivery.errors import EdgeError
from delivery.sandbox.server import run
from newsletter.management.base import REFUSED, CarteiroCommand


class Command(CarteiroCommand):
    help = "Run the sandbox: a mail server on loopback that keeps what it accepts in SANDBOX_DIR, for /sandbox/."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
        parser.add_argument("--port", type=int, default=2525, help="(default: 2525)")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.SANDBOX_DIR:
            raise CommandError(
                "SANDBOX_DIR is not set: where shall the mail be kept?", returncode=REFUSED
            )
        try:
            run(Path(settings.SANDBOX_DIR), options["host"], options["port"])
        except (ValueError, OverflowError, EdgeError) as error:
            raise CommandError(f"The sandbox cannot start: {error}", returncode=REFUSED) from None
