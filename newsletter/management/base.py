"""What the commands share: how an issue or a newsletter is named, and how a refusal ends."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError

from newsletter.models import Issue, Newsletter, Refused
from newsletter.models.address import AddressKeyChanged

REFUSED = 2


class CarteiroCommand(BaseCommand):
    """A command whose refusals are one clear line and exit code 2."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (Refused, AddressKeyChanged) as refusal:
            raise CommandError(str(refusal), returncode=REFUSED) from None
        except (OperationalError, ProgrammingError) as error:
            reason = str(error).strip().split("\n")[0]
            raise CommandError(
                f"The database cannot be used: {reason}. Is it there, and up to date (migrate)?"
            ) from None

    @property
    def actor(self) -> str:
        """Who typed it, for the history."""
        try:
            return f"{getpass.getuser()} (command)"
        except (KeyError, OSError):
            return "command"


def find_newsletter(slug: str) -> Newsletter:
    """By its slug; CommandError names those that there are."""
    newsletter = Newsletter.objects.filter(slug=slug).first()
    if newsletter is None:
        known = ", ".join(Newsletter.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(
            f"There is no newsletter {slug!r} (there is: {known}).", returncode=REFUSED
        )
    return newsletter


def find_issue(name: str) -> Issue:
    """By id, by NEWSLETTER/SLUG, or by a slug that is unique."""
    issues = Issue.objects.select_related("newsletter")
    if name.isascii() and name.isdigit():
        found = issues.filter(pk=int(name)) if len(name) < 19 else issues.none()
    elif "/" in name:
        newsletter, _, slug = name.partition("/")
        found = issues.filter(newsletter__slug=newsletter, slug=slug)
    else:
        found = issues.filter(slug=name)
    rows = list(found[:2])
    if not rows:
        raise CommandError(f"There is no issue {name!r}.", returncode=REFUSED)
    if len(rows) > 1:
        names = ", ".join(issue.label for issue in found)
        raise CommandError(f"Several issues are named {name!r}: {names}.", returncode=REFUSED)
    return rows[0]


def read_file(path: str) -> bytes:
    """The bytes of a file that the user named."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CommandError(
            f"{path} cannot be read: {error.strerror}.", returncode=REFUSED
        ) from None


def open_file(path: str) -> BinaryIO:
    """A file that the user named, to be read as a stream."""
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise CommandError(
            f"{path} cannot be read: {error.strerror}.", returncode=REFUSED
        ) from None
