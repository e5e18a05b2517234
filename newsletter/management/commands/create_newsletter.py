from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from newsletter.management.base import REFUSED, CarteiroCommand
from newsletter.models import Newsletter
from newsletter.models.newsletter import Language, PublisherKind, Weekday


class Command(CarteiroCommand):
    help = "Create a newsletter: its sender, its podcast and its blog. A step that is not configured is skipped."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="its short name, a-z, 0-9 and hyphens")
        parser.add_argument("--name", required=True, help="as readers see it")
        parser.add_argument("--from-email", required=True, help="the sender's address")
        parser.add_argument("--from-name", default="", help="the sender's name (default: the name)")
        parser.add_argument(
            "--postal-address", required=True, help="stands under every mail, as the law asks"
        )
        parser.add_argument("--language", default="en", choices=Language.values)
        parser.add_argument("--zone", default="UTC", help="time zone, such as Europe/Lisbon")
        parser.add_argument(
            "--weekday",
            default="monday",
            choices=[day.name.lower() for day in Weekday],
            help="of the release (default: monday)",
        )
        parser.add_argument("--time", default="07:00", help="of the release (default: 07:00)")
        parser.add_argument(
            "--safety-net", default="09:00", help="time of the second look (default: 09:00)"
        )
        parser.add_argument(
            "--too-late", default="18:00", help="time after which none starts (default: 18:00)"
        )
        parser.add_argument("--podcast", default="", help="URL of a feed or of a JSON document")
        target = parser.add_mutually_exclusive_group()
        target.add_argument("--github", default="", metavar="OWNER/REPO", help="publish there")
        target.add_argument(
            "--folder", default="", metavar="DIR", help="publish into a local folder"
        )
        parser.add_argument("--branch", default="", help="of the repository (default: its own)")
        parser.add_argument(
            "--path", default="", help="of a post, with {slug}, {date}, {year}, ..."
        )
        parser.add_argument("--blog-url", default="", help="of a post, with {slug}, {date}, ...")

    def handle(self, *args: Any, **options: Any) -> None:
        folder = self._folder(options["folder"])
        newsletter = Newsletter(
            slug=options["slug"],
            name=options["name"],
            from_email=options["from_email"],
            from_name=options["from_name"],
            postal_address=options["postal_address"],
            language=options["language"],
            zone=options["zone"],
            release_weekday=Weekday[options["weekday"].upper()],
            release_time=options["time"],
            safety_net_time=options["safety_net"],
            too_late_time=options["too_late"],
            podcast_url=options["podcast"],
            publisher=_publisher(options),
            github_repository=options["github"],
            github_branch=options["branch"],
            folder=folder,
            blog_url=options["blog_url"],
        )
        if options["path"]:
            newsletter.post_path = options["path"]
        try:
            newsletter.full_clean()
        except ValidationError as error:
            raise CommandError(_in_words(error), returncode=REFUSED) from None
        newsletter.save()
        self.stdout.write(f"Created {newsletter.slug}.")

    def _folder(self, name: str) -> str:
        """Absolute: `work` may run elsewhere. Made where its parent is there: a typing error is not."""
        if not name:
            return ""
        folder = Path(name).resolve()
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"--folder: {folder} cannot be used: {error.strerror}.", returncode=REFUSED
            ) from None
        return str(folder)


def _publisher(options: dict[str, Any]) -> str:
    if options["github"]:
        return PublisherKind.GITHUB
    return PublisherKind.FOLDER if options["folder"] else PublisherKind.NONE


def _in_words(error: ValidationError) -> str:
    lines = [
        f"{field}: {' '.join(messages)}" if field != "__all__" else " ".join(messages)
        for field, messages in error.message_dict.items()
    ]
    return "The newsletter was not created.\n  " + "\n  ".join(lines)
