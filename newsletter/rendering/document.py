"""What rendering takes and gives: plain, frozen data that fits in JSON."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit


class RenderingError(ValueError):
    """A document cannot be rendered; the message says why and what to do."""


@dataclass(frozen=True)
class Document:
    """All that an issue says: the snapshot that is approved, stored and rendered.

    `language` is a BCP 47 tag ("en", "pt-br"); `postal_address` may have several lines.
    """

    newsletter_slug: str
    newsletter_name: str
    language: str
    sender_name: str
    postal_address: str
    slug: str
    title: str
    date: datetime.date
    summary: str
    author: str
    tags: tuple[str, ...]
    markdown: str

    def to_json(self) -> dict[str, Any]:
        """Return a dict that fits in a JSONField: the date as YYYY-MM-DD, the tags as a list."""
        return {**asdict(self), "date": self.date.isoformat(), "tags": list(self.tags)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Document:
        """Read back what `to_json` gave; unknown keys are ignored, a missing one is an error."""
        missing = [name for name in cls.__dataclass_fields__ if name not in stored]
        if missing:
            raise RenderingError(f"The stored document lacks {', '.join(missing)}; approve again.")
        fields = {name: stored[name] for name in cls.__dataclass_fields__}
        fields["date"] = datetime.date.fromisoformat(stored["date"])
        fields["tags"] = tuple(stored["tags"])
        return cls(**fields)


@dataclass(frozen=True)
class PodcastSlot:
    """The episode that goes with an issue; the duration is in seconds, None if not known."""

    title: str
    url: str
    duration_seconds: int | None

    def __post_init__(self) -> None:
        _require_web(self.url, "The episode's")


@dataclass(frozen=True)
class Slots:
    """What is known only at release: the episode, and the issue's page on the web ("" if none)."""

    podcast: PodcastSlot | None
    web_url: str

    def __post_init__(self) -> None:
        if self.web_url:
            _require_web(self.web_url, "The issue's")


@dataclass(frozen=True)
class Rendered:
    """A mail before it is compiled; html and text hold the words of `placeholders`."""

    subject: str
    html: str
    text: str


def _require_web(url: str, whose: str) -> None:
    """Refuse javascript: and the like, which would be a link in every reader's mail."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise RenderingError(f"{whose} address is no http or https URL; give one that is.")
