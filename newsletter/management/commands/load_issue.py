from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError

from newsletter import rendering
from newsletter.documents import DocumentError, parse
from newsletter.management.base import REFUSED, CarteiroCommand, find_newsletter, read_file
from newsletter.models import Issue


class Command(CarteiroCommand):
    help = "Load an issue from a Markdown file with front matter (title, slug, date, summary, author, tags)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file")
        parser.add_argument("--newsletter", required=True, metavar="SLUG")
        parser.add_argument("--approve", action="store_true", help="approve it as it is")

    def handle(self, *args: Any, **options: Any) -> None:
        newsletter = find_newsletter(options["newsletter"])
        try:
            parsed = parse(read_file(options["file"]))
        except DocumentError as error:
            where = f"{options['file']}, line {error.line}" if error.line else options["file"]
            raise CommandError(f"{where}: {error.message}", returncode=REFUSED) from None
        for problem in parsed.warnings:
            where = f"line {problem.line}: " if problem.line else ""
            self.stderr.write(f"warning: {where}{problem.message}")
        issue = Issue(
            newsletter=newsletter,
            slug=parsed.slug,
            title=parsed.title,
            summary=parsed.summary,
            author=parsed.author,
            tags=list(parsed.tags),
            release_date=parsed.date,
            markdown=parsed.markdown,
        )
        self._save(issue)
        for warning in rendering.warnings(issue.document()):
            self.stderr.write(f"warning: {warning}")
        self.stdout.write(f"Loaded {issue.label} as issue {issue.pk}: a draft.")
        if options["approve"]:
            issue.approve(actor=self.actor)
            self.stdout.write(f"Approved {issue.label} for {issue.release_date}.")

    def _save(self, issue: Issue) -> None:
        taken = (
            f"The slug {issue.slug!r} is taken in {issue.newsletter.slug}: an issue is loaded once. "
            "Edit that issue in the admin, or give this file another slug."
        )
        if Issue.objects.filter(newsletter=issue.newsletter, slug=issue.slug).exists():
            raise CommandError(taken, returncode=REFUSED)
        try:
            issue.full_clean()
            issue.save()
        except ValidationError as error:
            text = "; ".join(f"{k}: {' '.join(v)}" for k, v in error.message_dict.items())
            raise CommandError(f"The issue was not loaded: {text}", returncode=REFUSED) from None
        except IntegrityError:
            raise CommandError(taken, returncode=REFUSED) from None
