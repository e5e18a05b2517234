"""The post's part: published, looked for, updated, removed."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from django.conf import settings

from delivery import notifying, publishing
from delivery.errors import Busy, EdgeError
from delivery.models import Job
from delivery.outcome import Done, Outcome, Wait
from delivery.publishers import Published
from delivery.retries import HOUR, Backoff, Fixed, On
from newsletter.models import Issue, database_now
from newsletter.models.issue import IssueState as S

from .common import ACTOR, enqueue_step, find, step, step_gave_up, unless_held
from .mail import freeze

BUSY = On(Busy, Fixed(2), times=1800, within=HOUR)


@step(S.PUBLISHING)
def publish(issue: Issue) -> Outcome:
    """Make the post stand, or block the issue where that is refused or takes too long."""
    if not issue.newsletter.publisher:
        return _published_without(issue, "no blog is configured")
    if issue.without_blog:
        return _published_without(issue, "an operator goes on without the blog")
    path, published = publishing.post_path(issue), publishing.publish(issue)
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
        late = "the post is not live in time: the mail links here"
        return _link(issue, publishing.page_url(issue), late, in_stead=url)
    return Wait(settings.LIVE_POLL_SECONDS, "the post is not live yet")


def _is_live(url: str) -> bool:
    """A blog that cannot be reached is a blog that is not live yet."""
    try:
        return publishing.is_live(url)
    except EdgeError:
        return False


@unless_held
def update_post(issue_id: int) -> Outcome:
    """Write the post again, with the podcast that came late."""
    issue = Issue.objects.select_related("newsletter", "podcast").filter(pk=issue_id).first()
    if issue is None or not issue.post_sha or issue.state == S.CANCELLED:
        return Done("there is no post to update")
    published = publishing.publish(issue)
    return Done("the post has the podcast", partial(_note_update, issue, published.sha))


@unless_held
def remove_post(issue_id: int) -> Outcome:
    """Take a cancelled issue's post away, if it is still ours."""
    issue = find(issue_id)
    if issue is None or issue.state != S.CANCELLED or not issue.post_sha:
        return Done("there is no post to remove")
    removed = publishing.remove(issue)
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


def publishing_since(row: Job) -> datetime | None:
    """When the issue came to its post: a pause does not stop that clock."""
    issue = find(row.issue_id or 0)
    return issue.publishing_since if issue else None


def not_updated(row: Job, reason: str) -> None:
    """The post stays without the podcast that came late."""
    _tell_of_the_post(row, "post_not_updated", "keeps its post as it was", reason, "warning")


def not_removed(row: Job, reason: str) -> None:
    """The cancelled issue's post still stands."""
    _tell_of_the_post(row, "post_not_removed", "still has its post", reason, "error")


def _tell_of_the_post(row: Job, event: str, what: str, reason: str, level: notifying.Level) -> None:
    issue = find(row.issue_id or 0)
    if issue is None:
        return
    issue.note(reason, actor=ACTOR)
    notifying.tell(
        event, f"“{issue.title}” {what}", reason, level=level, issue=issue, once=str(row.pk)
    )


def _link(issue: Issue, url: str, reason: str, in_stead: str = "") -> Outcome:
    def advance() -> None:
        filled = Issue.objects.filter(pk=issue.pk, state=S.PUBLISHED, web_url="")
        if filled.update(web_url=url):
            issue.note(reason, actor=ACTOR)
            if in_stead:
                _tell_of_the_link(issue, in_stead)
        enqueue_step(issue)

    return Done(reason, advance)


def _tell_of_the_link(issue: Issue, post_url: str) -> None:
    notifying.tell(
        "post_not_live",
        f"“{issue.title}” goes out before its post is live",
        f"{post_url} did not answer in time: the mail links to the issue's own page.",
        level="warning",
        issue=issue,
    )


def _note_update(issue: Issue, sha: str) -> None:
    Issue.objects.filter(pk=issue.pk).update(post_sha=sha)
    issue.note("the post was updated with the podcast", actor=ACTOR)


def _removed(issue: Issue, removed: bool) -> None:
    Issue.objects.filter(pk=issue.pk).update(post_sha="")
    issue.note("the post was removed" if removed else "the post was gone already", actor=ACTOR)


# How the jobs of this step meet trouble: GitHub that is down is waited for; what it refuses is a person's to mend.
PUBLISH = (
    On(Busy, Fixed(2), times=3600, within=2 * HOUR, then=step_gave_up),
    On(
        EdgeError,
        Backoff(),
        times=1000,
        within=lambda: settings.PUBLISH_WAIT_SECONDS,
        then=step_gave_up,
        since=publishing_since,
    ),
)
UPDATE = (BUSY, On(EdgeError, Backoff(), times=200, within=6 * HOUR, then=not_updated))
REMOVE = (BUSY, On(EdgeError, Backoff(), times=200, within=6 * HOUR, then=not_removed))
