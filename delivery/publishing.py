"""The post: written to the blog, looked for there, and taken away again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from newsletter.models import Issue, Newsletter
from newsletter.models.newsletter import PublisherKind
from newsletter.patterns import expand
from newsletter.rendering import Slots, render_post

from . import breakers, http
from .errors import Busy, EdgeError
from .http import Page
from .models import Lease
from .publishers import EditedByPerson, Post, Published, Publisher, blob_sha
from .publishers.folder import FolderPublisher
from .publishers.github import GitHubPublisher

TRIED = 20  # our last writes: one that was never answered may stand there

fetch = partial(http.fetch, user_agent="Carteiro")


def publisher(newsletter: Newsletter) -> Publisher:
    """The configured publisher; EdgeError where there is none."""
    if newsletter.publisher == PublisherKind.GITHUB:
        return GitHubPublisher(
            newsletter.github_repository,
            newsletter.github_branch,
            settings.GITHUB_TOKEN,
            base_url=settings.GITHUB_API_URL,
        )
    if newsletter.publisher == PublisherKind.FOLDER:
        return FolderPublisher(Path(newsletter.folder))
    raise EdgeError(f"{newsletter.slug} has no blog configured", permanent=True)


def post_path(issue: Issue) -> str:
    """Where the issue's post stands, or will."""
    return issue.post_path if issue.post_sha else _expand(issue.newsletter.post_path, issue)


def blog_url(issue: Issue) -> str:
    """Where the post is read once the blog is built; empty where the newsletter does not say."""
    return _expand(issue.newsletter.blog_url, issue) if issue.newsletter.blog_url else ""


def page_url(issue: Issue) -> str:
    """The issue's own public page here."""
    return f"{settings.PUBLIC_URL}/n/{issue.newsletter.slug}/{issue.slug}/"


def publish(issue: Issue) -> Published:
    """Make the approved post stand at its path; safe to repeat. One write at a time for each target."""
    document = issue.approved_document()
    podcast = getattr(issue, "podcast", None)
    text = render_post(document, Slots(podcast.slot if podcast else None, ""))
    post = Post(post_path(issue), text.encode(), f"Publish {document.title}")
    tried = [*issue.post_tried[1 - TRIED :], [post.path, blob_sha(post.data)]]
    with _turn(issue.newsletter), _breaker(issue.newsletter):
        Issue.objects.filter(pk=issue.pk).update(post_tried=tried)
        return _write(publisher(issue.newsletter), post, issue)


def remove(issue: Issue) -> bool:
    """Take our post away; False where it is gone already."""
    with _turn(issue.newsletter), _breaker(issue.newsletter):
        return publisher(issue.newsletter).remove(
            issue.post_path, ours=issue.post_sha, message=f"Remove {issue.title}"
        )


def is_live(url: str) -> bool:
    """True where the post answers 200. Raises EdgeError where the blog does not answer, or is left alone."""
    return ask("blog", url).status == 200


def ask(service: str, url: str, **options: Any) -> Page:
    """Fetch under the breaker of the service at the URL's host; `options` as `http.fetch` takes them.

    A host that is busy or broken (429, 5xx) has failed; any other status is an answer, and returned.
    """
    with breakers.guard(f"{service}:{_host(url)}"):
        page = fetch(url, allow_private=settings.ALLOW_PRIVATE_URLS, **options)
        if page.status == 429 or page.status >= 500:
            http.expect_success(page, f"The {service}'s URL")
    return page


def _write(where: Publisher, post: Post, issue: Issue) -> Published:
    try:
        return where.publish(post, ours=issue.post_sha)
    except EditedByPerson as edited:
        # A write of ours that was never answered is ours all the same, not a person's edit.
        if [post.path, edited.found] not in issue.post_tried:
            raise
        return where.publish(post, ours=edited.found)


class _turn:
    """Held while we write to one repository or folder: two writers at once would meet each other's 409."""

    def __init__(self, newsletter: Newsletter) -> None:
        target = newsletter.github_repository or newsletter.folder
        self._name = f"publisher:{newsletter.publisher}:{target}"[:100]

    def __enter__(self) -> None:
        lease = Lease.acquire(self._name)
        if lease is None:
            raise Busy("another post is being written there just now")
        self._lease = lease

    def __exit__(self, *_: object) -> None:
        self._lease.release()


def _breaker(newsletter: Newsletter) -> AbstractContextManager[None]:
    """GitHub's; a folder needs none."""
    remote = newsletter.publisher == PublisherKind.GITHUB
    return breakers.guard("github") if remote else nullcontext()


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # malformed: the fetch says so
        return ""


def _expand(pattern: str, issue: Issue) -> str:
    try:
        return expand(pattern, slug=issue.slug, date=issue.approved_document().date)
    except ValueError as error:
        raise EdgeError(str(error), permanent=True) from None
