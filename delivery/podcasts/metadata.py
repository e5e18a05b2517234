"""A podcast's metadata file: one JSON object for the next episode.

`status` is ready, pending or failed; `issue` the slug that it is meant for (optional), `url`,
`title`, and `duration` in seconds (optional; "MM:SS" and "HH:MM:SS" are understood too).
"""

from __future__ import annotations

import json
from typing import Any

from delivery.errors import EdgeError
from delivery.http import Page
from delivery.podcasts import (
    LONGEST_URL,
    Answer,
    Episode,
    Question,
    duration_of,
    is_web_url,
    key_of,
    plain,
)

STATES = ("ready", "pending", "failed")


def read(page: Page, question: Question) -> Answer:
    """What the file says about this issue. Its errors are temporary: it may be mended."""
    data = _object(page)
    issue = data.get("issue")
    if issue is not None and str(issue) != question.issue_slug:
        told = plain(str(issue), 80)
        return Answer("pending", f'the metadata is still for another issue, "{told}"', None)
    state = data.get("status")
    if state == "pending":
        return Answer("pending", "the metadata says pending", None)
    if state == "failed":
        return Answer("failed", "the metadata says failed", None)
    if state != "ready":
        raise _wrong(page, f'"status" must be one of {", ".join(STATES)}')
    return _ready(page, data, question)


def _object(page: Page) -> dict[str, Any]:
    try:
        data = json.loads(page.body)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _wrong(page, f"it is not valid JSON ({where})") from None
    except (ValueError, RecursionError):
        raise _wrong(page, "it is not valid JSON in UTF-8") from None
    if not isinstance(data, dict):
        raise _wrong(page, "it must be one JSON object")
    return data


def _ready(page: Page, data: dict[str, Any], question: Question) -> Answer:
    url = data.get("url")
    if not isinstance(url, str) or not url.strip():
        raise _wrong(page, '"status" is ready, but "url" is missing')
    url = url.strip()
    if not is_web_url(url):
        raise _wrong(page, f'"url" must be an http(s) URL of at most {LONGEST_URL} characters')
    if key_of(url) in question.used_keys:
        return Answer("pending", "the metadata still has an episode that was used already", None)
    episode = Episode(key_of(url), _title(page, data), url, _duration(page, data), None)
    return Answer("ready", "the metadata says ready", episode)


def _title(page: Page, data: dict[str, Any]) -> str:
    title = data.get("title")
    if title is not None and not isinstance(title, str):
        raise _wrong(page, '"title" must be text')
    return plain(title or "")


def _duration(page: Page, data: dict[str, Any]) -> int | None:
    duration = data.get("duration")
    if duration is None or duration == "":
        return None
    known = isinstance(duration, int | float | str) and not isinstance(duration, bool)
    seconds = duration_of(str(duration)) if known else None
    if seconds is None:
        raise _wrong(page, '"duration" must be a number of seconds')
    return seconds


def _wrong(page: Page, what: str) -> EdgeError:
    return EdgeError(f"The podcast's metadata at {page.host}: {what}; mend the file there")
