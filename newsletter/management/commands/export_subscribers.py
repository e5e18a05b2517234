from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError, CommandParser

from newsletter.exporting import export_subscribers
from newsletter.management.base import REFUSED, CarteiroCommand, find_newsletter
from newsletter.management.progress import Progress
from newsletter.models import Newsletter
from newsletter.models.subscription import SubscriptionState

ALL = "all"


class Command(CarteiroCommand):
    help = "Export a newsletter's subscribers as CSV, which import_subscribers reads back."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("newsletter", metavar="NEWSLETTER")
        parser.add_argument(
            "--state",
            choices=[*SubscriptionState.values, ALL],
            default=str(SubscriptionState.CONFIRMED),
            help="who (default: confirmed)",
        )
        parser.add_argument(
            "--output", metavar="FILE", help="written whole or not at all (default: stdout)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        newsletter = find_newsletter(options["newsletter"])
        state = None if options["state"] == ALL else options["state"]
        if options["output"]:
            # A link stays one: what it leads to is replaced.
            self._to_file(Path(options["output"]).resolve(), newsletter, state)
        else:
            self._to_stdout(newsletter, state)

    def _to_file(self, path: Path, newsletter: Newsletter, state: str | None) -> None:
        if path.exists() and not path.is_file():
            raise CommandError(f"{path} is no file that could be replaced.", returncode=REFUSED)
        try:
            with _whole_file(path) as file:
                number = self._write(file, newsletter, state)
        except OSError as error:
            raise CommandError(
                f"{path} cannot be written: {error.strerror}.", returncode=REFUSED
            ) from None
        self.stdout.write(f"{number} subscribers in {path}.")

    def _to_stdout(self, newsletter: Newsletter, state: str | None) -> None:
        out: Any = self.stdout
        if out._out is sys.stdout and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        try:
            self._write(out, newsletter, state)
            out.flush()
        except BrokenPipeError:
            # Who reads has enough; what Python still holds must not complain at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise CommandError(
                f"It cannot be written: {error.strerror}.", returncode=REFUSED
            ) from None

    def _write(self, file: TextIO, newsletter: Newsletter, state: str | None) -> int:
        progress = Progress(self.stderr.write)
        number = 0
        for text, rows in export_subscribers(newsletter, state):
            file.write(text)
            number += rows
            progress("exported", number)
        return number


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A file beside the path, for this user alone, that takes its place when all of it is on the disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
