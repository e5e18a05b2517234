"""GitHub's REST API, one request at a time, without what PyGithub and requests do by themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from github import Auth, Github
from github.Requester import HTTPRequestsConnectionClass, HTTPSRequestsConnectionClass

from delivery.errors import EdgeError

API_VERSION = "2022-11-28"
PAUSE = 60.0  # seconds; what GitHub asks for where it limits without saying for how long
LONGEST_PAUSE = 86_400.0


class Api:
    """One connection to GitHub that neither retries, waits, nor follows a redirect by itself."""

    def __init__(self, token: str, base_url: str, timeout: int) -> None:
        self._token = token
        self._base_url = base_url
        self._timeout = timeout
        self._requester = Github(
            auth=Auth.Token(token),
            base_url=base_url,
            timeout=timeout,
            user_agent="Carteiro",
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
            lazy=True,
            api_version=API_VERSION,
        ).requester
        self._connection = _connect(base_url, timeout)

    def call(
        self,
        verb: str,
        url: str,
        parameters: dict[str, str] | None = None,
        *,
        body: dict[str, str] | None = None,
    ) -> Answer:
        """One request, one answer of whatever status. Raises a temporary EdgeError for none."""
        try:
            status, headers, text = self._requester.requestJson(
                verb, url, parameters, None, body, self._connection
            )
        except requests.Timeout:
            raise EdgeError(
                f"GitHub did not answer within {self._timeout} s; it is tried again"
            ) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise EdgeError(
                f"the connection to {urlsplit(self._base_url).hostname} failed "
                f"({type(error).__name__}); it is tried again"
            ) from None
        data = _parse(text)
        return Answer(status, headers, data, self._words(data))

    def close(self) -> None:
        """Close the sockets."""
        self._connection.close()
        self._requester.close()

    def _words(self, data: Any) -> str:
        message = data.get("message") if isinstance(data, dict) else None
        if not isinstance(message, str):
            return ""
        return " ".join(message.replace(self._token, "[token]").split())[:200]


@dataclass(frozen=True)
class Answer:
    """One answer; ``words`` is GitHub's own message, in one line and without the token."""

    status: int
    headers: Mapping[str, str]
    data: Any
    words: str

    def text(self, *keys: str) -> str:
        """The string at this place in the answer, "" where there is none."""
        value = self.data
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, str) else ""

    def pause(self) -> float | None:
        """Seconds that GitHub asks us to wait, None where it does not."""
        if self.status not in (403, 429) and self.status < 500:
            return None
        if after := self.headers.get("retry-after", ""):
            return _bounded(self._until(after))
        if self.status >= 500:
            return None
        if self.headers.get("x-ratelimit-remaining") == "0":
            reset = self.headers.get("x-ratelimit-reset", "")
            return _bounded(float(reset) - self._now() if reset.isdecimal() else PAUSE)
        limited = self.status == 429 or "rate limit" in self.words.lower()
        return PAUSE if limited else None

    def _until(self, after: str) -> float:
        if after.isdecimal():
            return float(after)
        at = _epoch(after)
        return PAUSE if at is None else at - self._now()

    def _now(self) -> float:
        """GitHub's clock, so that a wrong one here does not stretch or cut the wait."""
        at = _epoch(self.headers.get("date", ""))
        return time.time() if at is None else at


def _connect(
    base_url: str, timeout: int
) -> HTTPRequestsConnectionClass | HTTPSRequestsConnectionClass:
    """A connection of PyGithub's own kind, which it takes from us for each request."""
    where = urlsplit(base_url)
    kind = HTTPSRequestsConnectionClass if where.scheme == "https" else HTTPRequestsConnectionClass
    connection = kind(where.hostname or "", where.port, retry=None, timeout=timeout)
    connection.session.hooks["response"].append(_on_response)
    return connection


def _on_response(response: requests.Response, **_: object) -> None:
    """Stop what PyGithub would do by itself, and which would go wrong.

    It follows a 301 without the query (another branch would be read), takes a 307 for success, and
    asks again and again while it gets 202.
    """
    response.encoding = response.encoding or "utf-8"
    if response.status_code == 202:
        response.close()
        raise EdgeError("GitHub has no answer yet (202); it is tried again")
    if 300 <= response.status_code < 400:
        response.close()
        raise EdgeError(
            f"GitHub redirects us ({response.status_code}): the repository or its branch was "
            "renamed or moved. Write its new name into the newsletter, or correct GITHUB_API_URL",
            permanent=True,
        )


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _epoch(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date (RFC 9110, 5.6.7), None where it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), LONGEST_PAUSE)
