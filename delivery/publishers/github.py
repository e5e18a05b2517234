"""Publish through GitHub's contents API, idempotent by content; why: docs/decisions/0002.

Sources: docs.github.com/en/rest/repos/contents, /rest/branches/branches and
/rest/using-the-rest-api/rate-limits-for-the-rest-api. A write carries the sha of the blob that it
replaces, so of two equal writes only one becomes a commit; the other gets 409 or 422.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlsplit

from delivery.errors import EdgeError
from delivery.publishers import Post, Published, blob_sha, require_ours, require_path
from delivery.publishers.github_api import Answer, Api

GITHUB_API_URL = "https://api.github.com"
ROUNDS = 3  # looks at the path before one call gives up on a moving target

T = TypeVar("T")


class GitHubPublisher:
    """A publisher whose blog is built from a GitHub repository.

    ``repository`` is "owner/name", ``branch`` "" means the repository's default, ``timeout`` is in
    seconds and bounds each wait for the network. Construction asks nothing and refuses nothing:
    wrong arguments are reported, like all else, by the first call.
    """

    def __init__(
        self,
        repository: str,
        branch: str,
        token: str,
        *,
        base_url: str = GITHUB_API_URL,
        timeout: int = 20,
    ) -> None:
        self.repository = repository
        self.branch = branch
        self._token = token.strip()
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout

    def publish(self, post: Post, *, ours: str) -> Published:
        """See ``Publisher.publish``. Exactly one commit, however often it is called again."""
        sha = blob_sha(post.data)

        def once() -> Published:
            found = self._look(api, post.path)
            if found.sha == sha:
                return Published(sha, changed=False, url=found.url)
            require_ours(post.path, found=found.sha, ours=ours)
            return self._put(api, post, sha, found.sha)

        with self._session(post.path) as api:
            return self._in_rounds(post.path, once)

    def remove(self, path: str, *, ours: str, message: str) -> bool:
        """See ``Publisher.remove``."""

        def once() -> bool:
            found = self._look(api, path)
            if not found.sha:
                return False
            require_ours(path, found=found.sha, ours=ours)
            self._delete(api, path, message, found.sha)
            return True

        with self._session(path) as api:
            return self._in_rounds(path, once)

    @contextmanager
    def _session(self, path: str) -> Iterator[Api]:
        require_path(path)
        self._check_arguments()
        api = Api(self._token, self._base_url, self._timeout)
        try:
            yield api
        finally:
            api.close()

    def _check_arguments(self) -> None:
        if not self._token:
            raise EdgeError("GITHUB_TOKEN is not set: set it and retry", permanent=True)
        if not re.fullmatch(r"[!-~]+", self._token):
            raise EdgeError(
                "GITHUB_TOKEN holds a space or another character that no token has: copy it again",
                permanent=True,
            )
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository, re.ASCII):
            raise EdgeError(
                f"the blog's repository {self.repository!r} is not of the form owner/name: "
                "correct it in the newsletter",
                permanent=True,
            )
        if not _is_web_address(self._base_url):
            raise EdgeError(
                "GITHUB_API_URL is no address such as https://api.github.com: correct it",
                permanent=True,
            )

    def _look(self, api: Api, path: str) -> _Found:
        """What stands at the path on the branch. Never its content: over 1 MB GitHub leaves it out.

        A 404 says "no such file", "no such branch" and "no such repository" alike.
        """
        answer = api.call("GET", self._contents(path), {"ref": self.branch} if self.branch else {})
        if answer.status == 404:
            if "repository is empty" not in answer.words:
                self._check_branch(api)
            return _Found()
        if answer.status != 200:
            raise self._refusal(answer, "read")
        if isinstance(answer.data, list):
            raise EdgeError(
                f"{path} is a directory in {self.repository}: choose another path", permanent=True
            )
        sha = answer.text("sha")
        if not re.fullmatch(r"[0-9a-f]{40}", sha):
            raise EdgeError(f"GitHub's answer about {path} in {self.repository} makes no sense")
        return _Found(sha, answer.text("html_url"))

    def _check_branch(self, api: Api) -> None:
        branch = f"/branches/{quote(self.branch)}" if self.branch else ""
        answer = api.call("GET", f"/repos/{self.repository}{branch}")
        if answer.status == 404 and "branch not found" in answer.words.lower():
            raise EdgeError(
                f"the branch {self.branch} does not exist in {self.repository}: "
                "create it, or correct the newsletter's branch",
                permanent=True,
            )
        if answer.status != 200:
            raise self._refusal(answer, "read")

    def _put(self, api: Api, post: Post, sha: str, replaces: str) -> Published:
        content = base64.b64encode(post.data).decode()
        body = {"message": post.message, "content": content, **self._on(replaces)}
        answer = api.call("PUT", self._contents(post.path), body=body)
        if answer.status in (409, 422):
            raise _Conflict(replaces, answer)
        if answer.status not in (200, 201):
            raise self._refusal(answer, "write")
        if answer.text("content", "sha") != sha:
            raise EdgeError(f"GitHub took {post.path}, but its answer makes no sense: look again")
        return Published(sha, changed=True, url=answer.text("content", "html_url"))

    def _delete(self, api: Api, path: str, message: str, sha: str) -> None:
        body = {"message": message, **self._on(sha)}
        answer = api.call("DELETE", self._contents(path), body=body)
        if answer.status in (404, 409, 422):
            raise _Conflict(sha, answer)
        if answer.status != 200:
            raise self._refusal(answer, "write")

    def _on(self, replaces: str) -> dict[str, str]:
        fields = {"branch": self.branch, "sha": replaces}
        return {name: value for name, value in fields.items() if value}

    def _contents(self, path: str) -> str:
        return f"/repos/{self.repository}/contents/{quote(path)}"

    def _in_rounds(self, path: str, once: Callable[[], T]) -> T:
        """Look and decide again after a conflict; a refusal of an unchanged state is final."""
        refused: set[str] = set()
        for _ in range(ROUNDS):
            try:
                return once()
            except _Conflict as conflict:
                answer = conflict.answer
                if conflict.is_refusal:
                    if conflict.found in refused:
                        raise self._refusal(answer, "write", permanent=True) from None
                    refused.add(conflict.found)
        raise EdgeError(
            f"{path} in {self.repository} would not hold still: {ROUNDS} writes in a row met "
            f"another state ({answer.status} {answer.words})"
        )

    def _refusal(self, answer: Answer, verb: str, *, permanent: bool | None = None) -> EdgeError:
        pause = answer.pause()
        if permanent is None:
            permanent = pause is None and answer.status < 500 and answer.status not in (408, 409)
        advice = _advice(answer.status, verb) if permanent else "it is tried again later"
        said = f"{answer.status} {answer.words}".strip()
        return EdgeError(
            f"GitHub did not let us {verb} in {self.repository} ({said}): {advice}",
            permanent=permanent,
            retry_after=pause,
        )


@dataclass(frozen=True)
class _Found:
    """The blob sha and page of what stands at a path, both "" for nothing."""

    sha: str = ""
    url: str = ""


class _Conflict(Exception):
    """A write met another state than the one that we had looked at (``found``), or a rule."""

    # A write that only lost a race says so; these words come from a validation or a branch rule.
    RACE = re.compile(r"\bsha\b|does not match|but expected", re.IGNORECASE)
    RULE = re.compile(
        r"rule violation|protected branch|pull request|could not \w+ file", re.IGNORECASE
    )

    def __init__(self, found: str, answer: Answer) -> None:
        super().__init__(answer.status)
        self.found = found
        self.answer = answer

    @property
    def is_refusal(self) -> bool:
        if self.answer.status == 409:
            return bool(self.RULE.search(self.answer.words))
        return not self.RACE.search(self.answer.words)


def _advice(status: int, verb: str) -> str:
    if status == 401:
        return "the token is wrong or has expired; set GITHUB_TOKEN to a valid one"
    if status == 403:
        return f"give GITHUB_TOKEN the permission contents:{verb} for this repository"
    if status == 404:
        return (
            "the repository or branch does not exist, or the token has no access to it; "
            f"correct the name, or give GITHUB_TOKEN the permission contents:{verb}"
        )
    if status in (409, 422):
        return "GitHub refuses this change; mend what it names (a rule of the branch, the path)"
    return "correct the newsletter's repository, branch or path"


def _is_web_address(url: str) -> bool:
    try:
        where = urlsplit(url)
        return where.scheme in ("http", "https") and bool(where.hostname) and where.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
