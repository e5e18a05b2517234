"""Is this issue's podcast episode there? Asked of a feed or of a metadata file.

To add a source: a module with `read(page, question) -> Answer` that raises `EdgeError`, temporary
where a later file may be right, and a line in `ask`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from delivery.errors import EdgeError
from delivery.http import Fetch, Page, expect_success

LONGEST_KEY = 255
LONGEST_TITLE = 300
LONGEST_URL = 2000
LONGEST_DURATION = 7 * 86_400  # seconds

# Controls, line and paragraph separators, bidirectional overrides, halves of surrogate pairs.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Episode:
    """One episode. ``key`` tells it from others, for ever; at most 255 characters.

    ``title`` is plain text of at most 300 characters, ``url`` http(s) of at most 2,000,
    ``published_at`` is in UTC.
    """

    key: str
    title: str
    url: str
    duration_seconds: int | None
    published_at: datetime | None


@dataclass(frozen=True)
class Answer:
    """``ready`` has an episode, the other states have none; ``reason`` is for operators."""

    state: Literal["ready", "pending", "failed"]
    reason: str
    episode: Episode | None


@dataclass(frozen=True)
class Question:
    """Which episode is wanted. Both times are aware.

    ``after`` is the previous release, None before the first one; ``used_keys`` are the keys of
    the episodes that other issues have.
    """

    issue_slug: str
    after: datetime | None
    now: datetime
    used_keys: frozenset[str]


def ask(url: str, question: Question, *, fetch: Fetch) -> Answer:
    """Fetch the URL and read it as metadata (JSON) or as a feed (anything else).

    Raises `EdgeError`. A 404 is temporary here: the file may not be uploaded yet.
    """
    # Both need the classes above.
    from delivery.podcasts import feed, metadata

    page = fetch(url, headers={"Accept": "application/rss+xml, application/json, */*;q=0.5"})
    if page.status == 404:
        raise EdgeError(f"The podcast's URL: nothing is there yet at {page.host} (status 404)")
    expect_success(page, "The podcast's URL")
    return metadata.read(page, question) if _is_json(page) else feed.read(page, question)


def plain(text: str, limit: int = LONGEST_TITLE) -> str:
    """One line of printable text, at most ``limit`` characters."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())[:limit].rstrip()


def key_of(identity: str) -> str:
    """The key that stands for a guid or URL; a hash where that is too long to be stored."""
    line = plain(identity, len(identity))
    if len(line) <= LONGEST_KEY:
        return line
    return "sha256:" + hashlib.sha256(line.encode()).hexdigest()


def is_web_url(text: str) -> bool:
    """Whether it is an absolute http(s) URL that may stand in a mail."""
    if len(text) > LONGEST_URL or not re.fullmatch(r"https?://[^\s<>\"\\]+", text, re.IGNORECASE):
        return False
    try:
        parts = urlsplit(text)
        return text.isprintable() and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def duration_of(text: str) -> int | None:
    """Seconds of "SS", "MM:SS" or "HH:MM:SS" (itunes:duration); None for anything else.

    Fractions are dropped; more than a week is taken for a mistake.
    """
    match = re.fullmatch(
        r"(?:(\d{1,3}):)?(?:(\d{1,4}):)?(\d{1,6})(?:\.\d+)?", text.strip(), re.ASCII
    )
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    if minutes is None:  # one colon: the first group took the minutes
        hours, minutes = None, hours
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds)
    return total if total <= LONGEST_DURATION else None


def _is_json(page: Page) -> bool:
    start = page.body[:200].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return start != b"<" and (start in (b"{", b"[") or "json" in page.content_type.lower())
