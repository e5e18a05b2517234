"""The podcast's part: the wait for the episode, its end, and an episode that comes after all."""

from __future__ import annotations

from functools import partial

from django.conf import settings
from django.db import IntegrityError, transaction

from delivery import notifying, podcasts, publishing, queue
from delivery.errors import BreakerOpen, EdgeError
from delivery.outcome import Done, Outcome, Wait
from delivery.podcasts import Answer, Episode, Question
from newsletter.models import Issue, Podcast, database_now
from newsletter.models.issue import IssueState as S
from newsletter.models.podcast import PodcastState

from .common import ACTOR, enqueue_step, step, unless_held


@step(S.AWAITING_PODCAST)
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
    try:
        answer = _ask(issue)
    except BreakerOpen as shut:
        return _unasked(issue, podcast, shut)
    if answer.state == "ready" and answer.episode:
        return _found(issue, podcast, answer.episode)
    return _not_yet(issue, podcast, answer)


@unless_held
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
    try:
        answer = _ask(issue)
    except BreakerOpen as shut:
        return Wait(_until(shut), shut.message)
    if answer.state == "ready" and answer.episode:
        return Done("it came late", partial(_add_late, issue, podcast, answer.episode))
    return Wait(settings.PODCAST_POLL_SECONDS, answer.reason)


def _ask(issue: Issue) -> Answer:
    """What the podcast's side says; a fault there is a `pending` with its reason. BreakerOpen: it was not asked."""
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
    fetch = partial(publishing.ask, "podcast")
    try:
        return podcasts.ask(issue.newsletter.podcast_url, question, fetch=fetch)
    except BreakerOpen:
        raise
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
    return Wait(poll, f"asked {_times(attempts)}: {answer.reason}", note)


def _unasked(issue: Issue, podcast: Podcast, shut: BreakerOpen) -> Outcome:
    """Its host is left alone just now: that counts as no question, but the clock's end holds."""
    left = settings.PODCAST_WAIT_SECONDS - podcast.waited(database_now())
    if left > 0:
        return Wait(min(_until(shut), left), shut.message)
    why, answer = "the podcast did not come", Answer("pending", shut.message, None)
    missed = partial(_missed, issue, podcast, why, answer, podcast.attempts)
    return Done(f"{why}: {shut.message}", missed)


def _until(shut: BreakerOpen) -> float:
    return max(1.0, (shut.until - database_now()).total_seconds())


def _note_attempt(podcast: Podcast, attempts: int, reason: str) -> None:
    Podcast.objects.filter(pk=podcast.pk, state=PodcastState.WAITING).update(
        attempts=attempts, last_answer=reason[:500]
    )


def _missed(issue: Issue, podcast: Podcast, why: str, answer: Answer, attempts: int) -> None:
    _note_attempt(podcast, attempts, answer.reason)
    Podcast.objects.filter(pk=podcast.pk, state=PodcastState.WAITING).update(
        state=PodcastState.MISSED
    )
    if not _to_publishing(issue, f"goes on without the podcast: {why}, asked {_times(attempts)}"):
        return
    notifying.tell(
        "podcast_missed",
        f"“{issue.title}” goes out without its podcast",
        f"{why}: {answer.reason}",
        f"It was asked for {_times(attempts)}. If it comes late, the post gets it; there is no second mail.",
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


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
