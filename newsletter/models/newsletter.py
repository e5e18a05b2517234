"""A newsletter: the publication, its sender and its week."""

from __future__ import annotations

import zoneinfo
from datetime import date, datetime, time

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, URLValidator
from django.db import models
from django.db.models import Q

from newsletter.calendar import at_local
from newsletter.patterns import check_path_pattern, check_pattern

from .address import normalise_address

ONE_LINE = RegexValidator(r"^[^\x00-\x1f\x7f]*$", "Takes one line, without control characters.")


class Weekday(models.IntegerChoices):
    """As datetime.date.weekday() counts."""

    MONDAY = 0
    TUESDAY = 1
    WEDNESDAY = 2
    THURSDAY = 3
    FRIDAY = 4
    SATURDAY = 5
    SUNDAY = 6


class Language(models.TextChoices):
    ENGLISH = "en", "English"
    PORTUGUESE = "pt", "Português"
    BRAZILIAN = "pt-br", "Português (Brasil)"
    SPANISH = "es", "Español"
    GERMAN = "de", "Deutsch"
    FRENCH = "fr", "Français"


class PublisherKind(models.TextChoices):
    NONE = "", "none"  # the step is passed through
    GITHUB = "github", "GitHub repository"
    FOLDER = "folder", "local folder"


def check_zone(value: str) -> None:
    if value not in zoneinfo.available_timezones():
        raise ValidationError(f"{value} is not a time zone such as Europe/Lisbon.")


class Newsletter(models.Model):
    slug = models.SlugField(max_length=50, unique=True)
    name = models.CharField(max_length=100, validators=[ONE_LINE])
    language = models.CharField(max_length=10, choices=Language, default=Language.ENGLISH)
    from_name = models.CharField(
        max_length=100, blank=True, validators=[ONE_LINE], help_text="Where empty: the name."
    )
    from_email = models.EmailField()
    postal_address = models.CharField(
        max_length=300,
        blank=True,
        help_text="Stands under every mail; nothing is approved without.",
    )

    zone = models.CharField(max_length=50, default="UTC", validators=[check_zone])
    release_weekday = models.SmallIntegerField(choices=Weekday, default=Weekday.MONDAY)
    release_time = models.TimeField(default=time(7, 0))
    safety_net_time = models.TimeField(default=time(9, 0))
    too_late_time = models.TimeField(
        default=time(18, 0), help_text="A release that did not start by then is told, not started."
    )

    podcast_url = models.URLField(
        max_length=500, blank=True, help_text="A feed, or a JSON document about the next episode."
    )
    publisher = models.CharField(max_length=10, choices=PublisherKind, blank=True)
    github_repository = models.CharField(
        max_length=200,
        blank=True,
        validators=[RegexValidator(r"^[\w.-]+/[\w.-]+$", "Takes OWNER/REPO.")],
        help_text="OWNER/REPO",
    )
    github_branch = models.CharField(max_length=200, blank=True)
    folder = models.CharField(max_length=500, blank=True)
    post_path = models.CharField(
        max_length=300,
        default="content/posts/{date}-{slug}.md",
        validators=[check_pattern, check_path_pattern],
        help_text="Knows {slug}, {date}, {year}, {month} and {day}.",
    )
    blog_url = models.CharField(
        max_length=500,
        blank=True,
        validators=[check_pattern, URLValidator(["http", "https"])],
        help_text="Where a post is read, such as https://blog.example.org/{slug}/.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="newsletter_publisher_is_configured",
                condition=(
                    Q(publisher="")
                    | Q(publisher="github") & ~Q(github_repository="")
                    | Q(publisher="folder") & ~Q(folder="")
                ),
                violation_error_message="The publisher needs its repository or folder.",
            ),
            models.CheckConstraint(
                name="newsletter_day_is_in_order",
                condition=Q(release_time__lt=models.F("too_late_time"))
                & Q(safety_net_time__gte=models.F("release_time")),
                violation_error_message="Release, safety net and 'too late' must follow each other.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def sender_name(self) -> str:
        return self.from_name or self.name

    @property
    def list_id(self) -> str:
        """RFC 2919: the slug below the sender's domain."""
        return f"{self.slug}.{normalise_address(self.from_email).rpartition('@')[2]}"

    def envelope(self) -> dict[str, str]:
        """What an approval freezes of the newsletter, beside the document."""
        return {"from_email": normalise_address(self.from_email), "list_id": self.list_id}

    def today(self, now: datetime) -> date:
        return now.astimezone(zoneinfo.ZoneInfo(self.zone)).date()

    def release_at(self, day: date) -> datetime:
        return at_local(day, self.release_time, self.zone)

    def safety_net_at(self, day: date) -> datetime:
        return at_local(day, self.safety_net_time, self.zone)

    def too_late_at(self, day: date) -> datetime:
        return at_local(day, self.too_late_time, self.zone)
