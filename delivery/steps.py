"""The steps of a release, each a job of its own: it looks where the issue stands, does its part, and says what follows.

A second run finds that the issue moved on and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.conf import settings
from django.db import IntegrityError, transaction

from newsletter.models import Issue, Podcast, database_now
from newsletter.models.issue import IssueState as S
from newsletter.models.podcast import PodcastState

from . import notifying, podcasts, publishing, queue, sending
from .errors import EdgeError
from .models import CompiledIssue, Job
from .outcome import Discard, Done, Outcome, Retry, Wait
from .podcasts import Answer, Episode, Question
from .publishers import Published

ACTOR = "release"

# The job that takes an issue out of a state.
STEP_OF_STATE = {
    S.AWAITING_PODCAST: "await_podcast",
    S.PUBLISHING: "publish",
    S.PUBLISHED: "await_live",
}


def enqueue_step(issue: Issue, *, hurry: bool = True) -> bool:
    """Want the step that the issue stands at; `hurry` cuts a wait short. True where something new was queued."""
    if issue.state == S.SENDING:
        return sending.wake(issue, hurry=hurry)
    name = STEP_OF_STATE.get(S(issue.state))
    if name is None:
        return False
    want = queue.enqueue if hurry else queue.ensure
    return want(name, key=f"{name}:{issue.pk}", issue_id=issue.pk, id=issue.pk)


def step_gave_up(job: Job, reason: str) -> None:
    """A step's job is dead: the issue is blocked where it stands, and that is told once."""
    issue = Issue.objects.select_related("newsletter").filter(pk=job.issue_id or 0).first()
    if issue is not None:
        block(issue, reason)


def block(issue: Issue, reason: str) -> None:
    """The run stands until an operator retries or goes on without."""
    if issue.block(reason=reason, actor=ACTOR):
        notifying.tell(
            "blocked",
            f"“{issue.title}” is blocked at {issue.get_state_display()}",
            reason,
            f"Put it right, then: release {issue.label}",
            level="error",
            issue=issue,
            once=f"{issue.state}:{database_now():%Y%m%d%H%M}",
        )


def _step(state: str) -> Callable[[Callable[[Issue], Outcome]], Callable[[int], Outcome]]:
    """Load the issue; leave quietly where it is gone, not in this state, paused or blocked."""

    def wrap(body: Callable[[Issue], Outcome]) -> Callable[[int], Outcome]:
        def step(issue_id: int) -> Outcome:
            issue = Issue.objects.select_related("newsletter").filter(pk=issue_id).first()
            if issue is None:
                return Discard("the issue is gone")
            if issue.state != state:
                return Done(f"nothing to do: the issue is {issue.state}")
            if issue.paused_at or issue.blocked_reason:
                return Done("paused" if issue.paused_at else "blocked")
            return body(issue)

        return step

    return wrap


@_step(S.AWAITING_PODCAST)
def await_podcast(issue: Issue) -> Outcome:
    """Ask for the episode, until it is there, failed, or the count or the clock ends the wait."""
    if not issue.newsletter.podcast_url:
        return _without_podcast(issue, "no podcast is configured")
    if issue.without_podcast:
        return _without_podcast(issue, "an operator goes on without the podcast")
    podcast, _ = Podcast.objects.get_or_create(
        issue=issue,
        defaults={"newsletter": issue.newsletter, "waiting_since": database_now()},
    )
    if podcast.slot:
        return Done("the podcast is there", partial(_to_publishing, issue, "the podcast is there"))
    answer = _ask(issue)
    if answer.state == "ready" and answer.episode:
        return _found(issue, podcast, answer.episode)
    return _not_yet(issue, podcast, answer)


def late_podcast(issue_id: int) -> Outcome:
    """After a release without its podcast: the post still gets it when it comes; there is no second mail."""
    podcast = Podcast.objects.filter(issue_id=issue_id).select_related("issue__newsletter").first()
    if podcast is None or podcast.state != PodcastState.MISSED:
        return Done("nothing is awaited")
    issue = podcast.issue
    if issue.state in (S.CANCELLED, S.DRAFT):
        return Done(f"the issue is {issue.state}")
    if podcast.waited(database_now()) > settings.PODCAST_LATE_SECONDS:
        return Done("it did not come")
    if issue.state not in (S.SENDING, S.SENT):
        return Wait(settings.PODCAST_POLL_SECONDS, "after the freeze")
    answer = _ask(issue)
    if answer.state == "ready" and answer.episode:
        return Done("it came late", partial(_add_late, issue, podcast, answer.episode))
    return Wait(settings.PODCAST_POLL_SECONDS, answer.reason)


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


@_step(S.PUBLISHING)
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


@_step(S.PUBLISHED)
def await_live(issue: Issue) -> Outcome:
    """Wait until the post answers 200; past the bound, or with no blog, the mail links to our own page."""
    if issue.web_url:
        return _freeze(issue)
    url = publishing.blog_url(issue) if issue.post_sha and not issue.without_blog else ""
    if not url:
        return _link(issue, publishing.page_url(issue), "the mail links to the issue's own page")
    if publishing_is_live(url):
        return _link(issue, url, "the post is live")
    since = issue.published_at or database_now()
    if (database_now() - since).total_seconds() >= settings.LIVE_WAIT_SECONDS:
        return _link(
            issue, publishing.page_url(issue), "the post is not live in time: the mail links here"
        )
    return Wait(settings.LIVE_POLL_SECONDS, "the post is not live yet")


def publishing_is_live(url: str) -> bool:
    """A blog that cannot be reached is a blog that is not live yet."""
    try:
        return publishing.is_live(url)
    except EdgeError:
        return False


def close(issue_id: int) -> Outcome:
    issue = Issue.objects.select_related("newsletter").filter(pk=issue_id).first()
    return sending.close(issue) if issue else Discard("the issue is gone")


def report(issue_id: int) -> Outcome:
    """The closed issue's figures, told once."""
    issue = Issue.objects.select_related("newsletter").filter(pk=issue_id).first()
    if issue is None or issue.state != S.SENT:
        return Discard("there is no closed issue to report")
    return Done("reported", partial(_report, issue))


def remove_post(issue_id: int) -> Outcome:
    """Take a cancelled issue's post away, if it is still ours."""
    issue = Issue.objects.select_related("newsletter").filter(pk=issue_id).first()
    if issue is None or issue.state != S.CANCELLED or not issue.post_sha:
        return Done("there is no post to remove")
    try:
        removed = publishing.remove(issue)
    except EdgeError as error:
        if error.permanent:
            return Done(error.message, partial(issue.note, error.message, actor=ACTOR))
        return Retry(error.message, error.retry_after)
    return Done("removed", partial(_removed, issue, removed))


def _ask(issue: Issue) -> Answer:
    """What the podcast's side says; a fault there is a `pending` with its reason."""
    previous = (
        Issue.objects.filter(newsletter=issue.newsletter, audience_frozen_at__isnull=False)
        .exclude(pk=issue.pk)
        .order_by("-audience_frozen_at")
        .values_list("audience_frozen_at", flat=True)
        .first()
    )
    used = Podcast.objects.filter(newsletter=issue.newsletter).exclude(key="")
    question = Question(
        issue_slug=issue.slug,
        after=previous,
        now=database_now(),
        used_keys=frozenset(used.values_list("key", flat=True)),
    )
    fetch = partial(publishing.fetch, allow_private=settings.ALLOW_PRIVATE_URLS)
    try:
        return podcasts.ask(issue.newsletter.podcast_url, question, fetch=fetch)
    except EdgeError as error:
        return Answer("pending", error.message, None)


def _found(issue: Issue, podcast: Podcast, episode: Episode) -> Outcome:
    def advance() -> None:
        if _fill(podcast, episode, PodcastState.READY):
            _to_publishing(issue, f"the podcast is there: {episode.title}")
        else:
            enqueue_step(issue)

    return Done(f"the podcast is there: {episode.title}", advance)


def _not_yet(issue: Issue, podcast: Podcast, answer: Answer) -> Outcome:
    """The end is by count or by clock, whichever comes first; `failed` ends it at once."""
    attempts = podcast.attempts + 1
    waited = podcast.waited(database_now())
    poll = settings.PODCAST_POLL_SECONDS
    spent = attempts >= settings.PODCAST_ATTEMPTS
    if answer.state == "failed" or spent or waited + poll > settings.PODCAST_WAIT_SECONDS:
        why = "the podcast failed" if answer.state == "failed" else "the podcast did not come"
        return Done(
            f"{why}: {answer.reason}", partial(_missed, issue, podcast, why, answer, attempts)
        )
    note = partial(_note_attempt, podcast, attempts, answer.reason)
    return Wait(poll, f"asked {attempts} times: {answer.reason}", note)


def _note_attempt(podcast: Podcast, attempts: int, reason: str) -> None:
    Podcast.objects.filter(pk=podcast.pk, state=PodcastState.WAITING).update(
        attempts=attempts, last_answer=reason[:500]
    )


def _missed(issue: Issue, podcast: Podcast, why: str, answer: Answer, attempts: int) -> None:
    _note_attempt(podcast, attempts, answer.reason)
    Podcast.objects.filter(pk=podcast.pk, state=PodcastState.WAITING).update(
        state=PodcastState.MISSED
    )
    if not _to_publishing(issue, f"goes on without the podcast: {why}, asked {attempts} times"):
        return
    notifying.tell(
        "podcast_missed",
        f"“{issue.title}” goes out without its podcast",
        f"{why}: {answer.reason}",
        f"It was asked for {attempts} times. If it comes late, the post gets it; there is no second mail.",
        level="warning",
        issue=issue,
    )
    queue.ensure(
        "late_podcast",
        key=f"late_podcast:{issue.pk}",
        issue_id=issue.pk,
        delay=settings.PODCAST_POLL_SECONDS,
        id=issue.pk,
    )


def _fill(podcast: Podcast, episode: Episode, state: str) -> bool:
    """Fill the slot, once; False where another issue has used that episode meanwhile."""
    try:
        with transaction.atomic():
            return bool(
                Podcast.objects.filter(pk=podcast.pk, key="").update(
                    state=state,
                    key=episode.key[:500],
                    title=episode.title[:300],
                    url=episode.url[:2000],
                    duration_seconds=episode.duration_seconds,
                    attempts=podcast.attempts + 1,
                    last_answer="ready",
                )
            )
    except IntegrityError:
        return False


def _add_late(issue: Issue, podcast: Podcast, episode: Episode) -> None:
    if not _fill(podcast, episode, PodcastState.LATE):
        return
    issue.note(f"the podcast came late: {episode.title}", actor=ACTOR)
    queue.enqueue("update_post", key=f"update_post:{issue.pk}", issue_id=issue.pk, id=issue.pk)


def _without_podcast(issue: Issue, reason: str) -> Outcome:
    return Done(reason, partial(_to_publishing, issue, reason))


def _to_publishing(issue: Issue, reason: str) -> bool:
    moved = issue.move(S.PUBLISHING, reason=reason, actor=ACTOR, publishing_since=database_now())
    if moved:
        enqueue_step(issue)
    return moved


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


def _freeze(issue: Issue) -> Outcome:
    try:
        compiled = sending.compile_issue(issue)
    except ValueError as error:
        reason = f"the mail cannot be made: {error}"
        return Done(reason, partial(block, issue, reason))
    return Done("the audience is frozen", partial(_frozen, issue, compiled))


def _frozen(issue: Issue, compiled: CompiledIssue) -> None:
    if sending.freeze(issue, compiled, actor=ACTOR):
        return
    issue.refresh_from_db()
    if issue.state == S.PUBLISHED and not issue.paused_at:
        block(issue, "the audience is empty: no confirmed subscriber")


def _note_update(issue: Issue, sha: str) -> None:
    Issue.objects.filter(pk=issue.pk).update(post_sha=sha)
    issue.note("the post was updated with the podcast", actor=ACTOR)


def _removed(issue: Issue, removed: bool) -> None:
    Issue.objects.filter(pk=issue.pk).update(post_sha="")
    issue.note("the post was removed" if removed else "the post was gone already", actor=ACTOR)


def _report(issue: Issue) -> None:
    figures = sending.books(issue)
    started, closed = issue.audience_frozen_at, issue.closed_at
    minutes = (closed - started).total_seconds() / 60 if started and closed else 0
    failed = not figures["sent"] and not figures["skipped"]
    level: notifying.Level = (
        "error" if failed else "warning" if figures["unknown"] or figures["failed"] else "info"
    )
    notifying.tell(
        "sent",
        f"“{issue.title}” was not delivered to anybody" if failed else f"“{issue.title}” was sent",
        f"Audience {issue.audience}: {figures['sent']} sent, {figures['failed']} failed, "
        f"{figures['unknown']} unknown, {figures['skipped']} skipped; the books balance.",
        f"It took {minutes:.1f} minutes. {issue.web_url}",
        level=level,
        issue=issue,
    )
