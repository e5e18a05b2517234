"""A podcast's feed, RSS or Atom: the newest item with an enclosure that no issue has had yet.

feedparser is lenient, which feeds need, and fetches nothing: it is given bytes. Before it sees
them, entities (billion laughs), odd encodings and long prologues are refused, on which it would
spend minutes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import feedparser

from delivery.errors import EdgeError
from delivery.http import Page
from delivery.podcasts import (
    Answer,
    Episode,
    Question,
    duration_of,
    is_web_url,
    key_of,
    plain,
)

PROLOGUE_BYTES = 8192  # the root element begins within these
LONGEST_MARKUP = 4000  # of a title; html.parser takes the square of it at worst
_ROOT = re.compile(rb"<(?:[\w.-]{1,40}:)?(?:rss|feed|rdf)[\s>/]", re.IGNORECASE)
_ENCODING = re.compile(rb"encoding\s*=\s*[\"'](.*?)[\"']", re.IGNORECASE)
_USUAL_ENCODING = re.compile(
    rb"utf-?8|us-ascii|ascii|iso-?8859-\d+|latin-?1|windows-125\d|cp125\d|koi8-[ru]|gbk|gb2312"
    rb"|gb18030|big5|shift[_-]jis|euc-(?:jp|kr)",
    re.IGNORECASE,
)


def read(page: Page, question: Question) -> Answer:
    """The newest episode that counts, or what was seen instead. Raises temporary errors."""
    _refuse_hostile(page)
    episodes = list(_episodes(_entries(page), page.url))
    fresh = [episode for episode in episodes if _counts(episode, question)]
    if not fresh:
        return Answer("pending", _seen(episodes, question), None)
    newest = max(fresh, key=_age)
    return Answer("ready", f"the feed has an episode {_dated(newest)}", newest)


def _refuse_hostile(page: Page) -> None:
    if b"\0" in page.body:
        raise _wrong(page, "it must be in UTF-8")
    if not _ROOT.search(page.body[:PROLOGUE_BYTES]):
        raise _wrong(page, "it is neither RSS nor Atom nor a JSON object (is it a web page?)")
    if b"<!ENTITY" in page.body.upper():
        raise _wrong(page, "it declares entities, which is refused")
    for encoding in _ENCODING.findall(page.body.partition(b"\n")[0]):
        if not _USUAL_ENCODING.fullmatch(encoding):
            raise _wrong(page, "it declares an unusual encoding; it must be in UTF-8")


def _entries(page: Page) -> list[Any]:
    # BytesIO: given bytes, feedparser first tries to open a file of that name.
    # It is not told the URL: it would make guids such as "42" into URLs, which then change with it.
    # Sanitising is off because titles are made plain below, and no other markup is read.
    try:
        parsed = feedparser.parse(
            io.BytesIO(page.body),
            response_headers={"content-type": "application/xml"},
            resolve_relative_uris=False,
            sanitize_html=False,
        )
    except Exception:  # noqa: BLE001  feedparser lets errors of many kinds through on broken input
        raise _wrong(page, "it cannot be read as a feed") from None
    if not parsed.version and not parsed.entries:
        raise _wrong(page, "it cannot be read as a feed")
    return list(parsed.entries)


def _episodes(entries: list[Any], base: str) -> Iterator[Episode]:
    for entry in entries:
        url = _enclosure(entry, base)
        if url:
            yield Episode(
                key=key_of(str(entry.get("id") or "")) or key_of(url),
                title=_title(entry),
                url=url,
                duration_seconds=duration_of(str(entry.get("itunes_duration") or "")),
                published_at=_published(entry),
            )


def _enclosure(entry: Any, base: str) -> str:
    """The first audio or video, else the first enclosure of any type; "" without one."""
    found = [
        (str(link.get("type") or "").lower().startswith(("audio/", "video/")), href)
        for link in entry.get("enclosures") or []
        if is_web_url(href := _absolute(base, str(link.get("href") or "").strip()))
    ]
    media = [href for is_media, href in found if is_media]
    return (media or [href for _, href in found] or [""])[0]


def _absolute(base: str, href: str) -> str:
    try:
        return urljoin(base, href) if href else ""
    except ValueError:
        return ""


def _published(entry: Any) -> datetime | None:
    name = "published_parsed" if "published_parsed" in entry else "updated_parsed"
    parsed = entry.get(name) if name in entry else None
    if not parsed:
        return None
    try:
        year, month, day, hour, minute, second = parsed[:6]
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _title(entry: Any) -> str:
    text = str(entry.get("title") or "")[:LONGEST_MARKUP]
    kind = (entry.get("title_detail") or {}).get("type")
    return plain(text if kind == "text/plain" else _without_markup(text))


def _without_markup(text: str) -> str:
    reader = _TextReader()
    reader.feed(text)
    reader.close()
    return "".join(reader.parts)


class _TextReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _counts(episode: Episode, question: Question) -> bool:
    """An item without a date counts for the first issue only: nothing says that it is new."""
    if episode.key in question.used_keys:
        return False
    if episode.published_at is None:
        return question.after is None
    late_enough = question.after is None or episode.published_at > question.after
    return late_enough and episode.published_at <= question.now


def _age(episode: Episode) -> datetime:
    return episode.published_at or datetime.min.replace(tzinfo=UTC)


def _dated(episode: Episode) -> str:
    return f"of {episode.published_at:%Y-%m-%d}" if episode.published_at else "without a date"


def _seen(episodes: list[Episode], question: Question) -> str:
    if not episodes:
        return "the feed has no item with an enclosure yet"
    past = [e for e in episodes if e.published_at is None or e.published_at <= question.now]
    if not past:
        soonest = min(episodes, key=_age)
        return f"the feed's next episode is {_dated(soonest)}, in the future"
    newest = max(past, key=_age)
    if newest.key in question.used_keys:
        return f"newest episode is {_dated(newest)}, and was used already"
    if newest.published_at is None:
        return "newest episode is without a date, so nothing says that it is new"
    return f"newest episode is {_dated(newest)}, before the last release"


def _wrong(page: Page, what: str) -> EdgeError:
    return EdgeError(f"The podcast's feed at {page.host}: {what}; check the address or the feed")
