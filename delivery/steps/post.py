"""The post's part: published, looked for, updated, removed."""

from __future__ import annotations

from functools import partial

from django.conf import settings

from delivery import publishing
from delivery.errors import EdgeError
from delivery.outcome import Done, Outcome, Retry, Wait
from delivery.publishers import Published
from newsletter.models import Issue, database_now
from newsletter.models.issue import IssueState as S

from .common import ACTOR, block, enqueue_step, find, step
from .mail import freeze


@step(S.PUBLISHING)
def publish(issue: Issue) -> Outcome:
    """Make the post stand, or block the issue where that is refused or takes too long."""
    if not issue.newsletter.publisher:
        return _published_without(issue, "no blog is configured")
    if issue.without_blog:
        return _published_without(issue, "an operator goes on without the blog")
    try:
        path, published = publishing.post_path(issue), publishing.publish(issue)
    except EdgeError as error:
        return _not_published(issue, error)
    return Done(f"the post stands at {path}", partial(_published, issue, path, published))


@step(S.PUBLISHED)
def await_live(issue: Issue) -> Outcome:
    """Wait until the post answers 200; past the bound, or with no blog, the mail links to our own page."""
    if issue.web_url:
        return freeze(issue)
    url = publishing.blog_url(issue) if issue.post_sha and not issue.without_blog else ""
    if not url:
        return _link(issue, publishing.page_url(issue), "the mail links to the issue's own page")
    if _is_live(url):
        return _link(issue, url, "the post is live")
    since = issue.published_at or database_now()
    if (database_now() - since).total_seconds() >= settings.LIVE_WAIT_SECONDS:
        return _link(
            issue, publishing.page_url(issue), "the post is not live in time: the mail links here"
        )
    return Wait(settings.LIVE_POLL_SECONDS, "the post is not live yet")


def _is_live(url: str) -> bool:
    """A blog that cannot be reached is a blog that is not live yet."""
    try:
        return publishing.is_live(url)
    except EdgeError:
        return False


def update_post(issue_id: int) -> Outcome:
    """Write the post again, with the podcast that came late."""
    issue = Issue.objects.select_related("newsletter", "podcast").filter(pk=issue_id).first()
    if issue is None or not issue.post_sha or issue.state == S.CANCELLED:
        return Done("there is no post to update")
    try:
        published = publishing.publish(issue)
    except EdgeError as error:
        if error.permanent:
            return Done(error.message, partial(issue.note, error.message, actor=ACTOR))
        return Retry(error.message, error.retry_after)
    return Done("the post has the podcast", partial(_note_update, issue, published.sha))


def remove_post(issue_id: int) -> Outcome:
    """Take a cancelled issue's post away, if it is still ours."""
    issue = find(issue_id)
    if issue is None or issue.state != S.CANCELLED or not issue.post_sha:
        return Done("there is no post to remove")
    try:
        removed = publishing.remove(issue)
    except EdgeError as error:
        if error.permanent:
            return Done(error.message, partial(issue.note, error.message, actor=ACTOR))
        return Retry(error.message, error.retry_after)
    return Done("removed", partial(_removed, issue, removed))


def _published_without(issue: Issue, reason: str) -> Outcome:
    return Done(reason, partial(_to_published, issue, reason))


def _published(issue: Issue, path: str, published: Published) -> None:
    # Also where the issue was edited or cancelled meanwhile: what we wrote must be known as ours.
    Issue.objects.filter(pk=issue.pk).update(post_path=path, post_sha=published.sha)
    what = "published" if published.changed else "stands already"
    _to_published(issue, f"{what}: {path}")


def _to_published(issue: Issue, reason: str) -> None:
    if issue.move(S.PUBLISHED, reason=reason, actor=ACTOR, published_at=database_now()):
        enqueue_step(issue)


def _not_published(issue: Issue, error: EdgeError) -> Outcome:
    since = issue.publishing_since or database_now()
    down = (database_now() - since).total_seconds() >= settings.PUBLISH_WAIT_SECONDS
    if error.permanent or down:
        reason = error.message if error.permanent else f"given up after waiting: {error.message}"
        return Done(reason, partial(block, issue, reason))
    return Retry(error.message, error.retry_after, endless=True)


def _link(issue: Issue, url: str, reason: str) -> Outcome:
    def advance() -> None:
        filled = Issue.objects.filter(pk=issue.pk, state=S.PUBLISHED, web_url="")
        if filled.update(web_url=url):
            issue.note(reason, actor=ACTOR)
        enqueue_step(issue)

    return Done(reason, advance)


def _note_update(issue: Issue, sha: str) -> None:
    Issue.objects.filter(pk=issue.pk).update(post_sha=sha)
    issue.note("the post was updated with the podcast", actor=ACTOR)


def _removed(issue: Issue, removed: bool) -> None:
    Issue.objects.filter(pk=issue.pk).update(post_sha="")
    issue.note("the post was removed" if removed else "the post was gone already", actor=ACTOR)
