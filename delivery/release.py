"""The orchestrator: what starts, resumes and stops a release, and what is due."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

from django.db import transaction

from newsletter.calendar import at_local
from newsletter.models import Issue, Newsletter, Refused, database_now
from newsletter.models.issue import RUNNING
from newsletter.models.issue import IssueState as S

from . import notifying, queue, sending
from .models import CompiledIssue, House, Job, Occurrence
from .steps import enqueue_step


class TooEarly(Refused):
    """Its hour has not come."""

    def __init__(self, issue: Issue, at: datetime) -> None:
        super().__init__(f"{issue.label} is due at {at:%Y-%m-%d %H:%M} UTC.")
        self.at = at


def start(issue: Issue, *, actor: str, now: bool = False) -> str:
    """Start the release, or resume it where it stands; what it did, in words. Refused or TooEarly says why not.

    Called twice, or by two at once, it makes one run.
    """
    issue.refresh_from_db()
    if issue.state == S.SENT and not issue.blocked_reason:
        return f"{issue.label} is sent: nothing to do."
    if issue.state in (S.DRAFT, S.CANCELLED):
        raise Refused(f"{issue.label} is {issue.state}: only an approved issue is released.")
    if issue.paused_at:
        raise Refused(f"{issue.label} is paused ({issue.paused_reason}). Resume it first.")
    if held := House.read().why_held:
        raise Refused(f"Everything is held ({held}): `house` says what to do.")
    if issue.state != S.APPROVED:
        return _go_on(issue, actor)
    due = issue.newsletter.release_at(issue.release_date)
    if not now and database_now() < due:
        raise TooEarly(issue, due)
    with transaction.atomic():
        if _begin(issue, actor):
            return f"The release of {issue.label} has started."
    return f"The release of {issue.label} was started by somebody else just now."


def retry(row: Job, *, actor: str) -> str:
    """A dead job is tried again; its issue, where the death blocked it, goes on. Refused says why not."""
    with transaction.atomic():
        row.lock_issue()
        if not queue.retry_dead(row, actor=actor):
            raise Refused(f"{row.key} is not dead any more, or is on its way again already.")
        issue = Issue.objects.filter(pk=row.issue_id or 0).first()
        if issue:
            issue.unblock(actor=actor, reason="an operator tries again")
    return f"{row.key} is tried again."


def start_send(issue: Issue, *, actor: str) -> str:
    """The same for the send alone: only from `published` or `sending`."""
    issue.refresh_from_db()
    if issue.state not in (S.PUBLISHED, S.SENDING, S.SENT):
        raise Refused(
            f"{issue.label} is {issue.state}: it must be published before it can be sent. "
            f"Use: release {issue.label}"
        )
    return start(issue, actor=actor)


def resume(issue: Issue, *, actor: str, reason: str = "") -> bool:
    """Lift the pause and go on where it stands. What was refused before has been looked at: the count begins anew."""
    with transaction.atomic():
        resumed = issue.resume(actor=actor, reason=reason)
        if resumed:
            CompiledIssue.objects.filter(pk=issue.pk).update(results=0, refusals=0)
            enqueue_step(issue)
    return resumed


def go_without(issue: Issue, *, podcast: bool = False, blog: bool = False, actor: str) -> None:
    """An operator's word: it goes on without the podcast, or without the blog. Refused once it is past them."""
    if issue.state not in (S.APPROVED, S.AWAITING_PODCAST, S.PUBLISHING):
        raise Refused(f"{issue.label} is {issue.state}: there is no step to go on without.")
    values = {"without_podcast": True} if podcast else {}
    values |= {"without_blog": True} if blog else {}
    with transaction.atomic():
        if Issue.objects.filter(pk=issue.pk).update(**values):
            names = " and ".join(name.removeprefix("without_") for name in values)
            issue.note(f"goes on without the {names}", actor=actor)
    issue.refresh_from_db()


def cancel(issue: Issue, *, actor: str, reason: str = "") -> str:
    """-> cancelled: pending rows are skipped, rows on the wire finish, a post that stands is named."""
    with transaction.atomic():
        if not issue.cancel(actor=actor, reason=reason):
            return f"{issue.label} was cancelled before."
        skipped = sending.skip_cancelled(issue, actor, sending.REQUEST_SECONDS)
        queue.discard(issue.pk, "the issue was cancelled")
        issue.refresh_from_db()
        stands = _what_stands(issue)
        notifying.tell(
            "cancelled",
            f"“{issue.title}” was cancelled",
            f"By {actor}. {skipped} copies were not sent.",
            stands,
            level="warning",
            issue=issue,
        )
    return f"{issue.label} is cancelled; {skipped} copies were not sent. {stands}".strip()


def remove_post(issue: Issue, *, actor: str) -> None:
    """Queue the removal of a cancelled issue's post."""
    if issue.state != S.CANCELLED or not issue.post_sha:
        raise Refused(f"{issue.label} has no post to remove: only a cancelled issue's post is.")
    with transaction.atomic():
        issue.note("the removal of the post was asked for", actor=actor)
        queue.enqueue("remove_post", key=f"remove_post:{issue.pk}", issue_id=issue.pk, id=issue.pk)


def run_occurrence(occurrence: Occurrence) -> str:
    """The hour has come: start what is due, tell where there is nothing."""
    newsletter = occurrence.newsletter
    if newsletter is None:
        return "it belongs to no newsletter"
    day = newsletter.today(occurrence.due_utc)
    if database_now() >= newsletter.too_late_at(day):
        return "a release has begun" if _began_on(newsletter, day) else _too_late(newsletter, day)
    if held := House.read().why_held:
        return _held(newsletter, day, held)
    started = start_due(newsletter, day, actor="schedule")
    if started is None and not _began_on(newsletter, day):
        notifying.tell(
            "nothing_approved",
            f"{newsletter.name}: no approved issue",
            f"At {newsletter.release_time:%H:%M} there was nothing to release. Approve an issue before "
            f"{newsletter.too_late_time:%H:%M}: the next sweep starts it.",
            level="warning",
            newsletter=newsletter,
            once=f"{day}",
        )
        return "no approved issue"
    Occurrence.objects.filter(pk=occurrence.pk).update(issue=started)
    return f"started {started.label}" if started else "another issue was started on this day"


def start_due(newsletter: Newsletter, day: date, *, actor: str) -> Issue | None:
    """Start the approved issue with the oldest date that is not after `day`; one a day."""
    with transaction.atomic():
        # One at a time for each newsletter: two sweeps must not start two issues.
        Newsletter.objects.select_for_update().get(pk=newsletter.pk)
        if _began_on(newsletter, day):
            _tell_of_those_that_wait(newsletter, day)
            return None
        due = list(_due(newsletter, day)[:6])
        if not due or not _begin(due[0], actor):
            return None
        _tell_of_those_that_wait(newsletter, day)
        return due[0]


def sweep(newsletter: Newsletter, now: datetime, *, resume: bool = True) -> list[str]:
    """The safety net: start what was approved late, resume what lies there; what it did, in words.

    A run that waits, is blocked or is paused is left alone, and everything while it is held;
    a run whose audience is frozen is resumed at any hour.
    """
    if House.read().is_held:
        return [f"left {newsletter.name} alone: everything is held"]
    day = newsletter.today(now)
    did = []
    is_release_day = day.weekday() == newsletter.release_weekday
    if is_release_day and newsletter.release_at(day) <= now < newsletter.too_late_at(day):
        started = start_due(newsletter, day, actor="safety net")
        did += [f"started {started.label}"] if started else []
    runs = Issue.objects.running().unhindered().filter(newsletter=newsletter)
    for issue in runs if resume else ():
        if enqueue_step(issue, hurry=False):
            did.append(f"resumed {issue.label} at {issue.state}")
    return did


def _go_on(issue: Issue, actor: str) -> str:
    with transaction.atomic():
        if issue.unblock(actor=actor, reason="an operator tries again"):
            Issue.objects.filter(pk=issue.pk).update(publishing_since=database_now())
        enqueue_step(issue)
    return f"The release of {issue.label} goes on: {issue.state}."


def _begin(issue: Issue, actor: str) -> bool:
    won = issue.move(
        S.AWAITING_PODCAST, reason="the release starts", actor=actor, started_at=database_now()
    )
    if won:
        enqueue_step(issue)
        notifying.tell(
            "started", f"The release of “{issue.title}” has started", f"By {actor}.", issue=issue
        )
    return won


def _due(newsletter: Newsletter, day: date) -> list[Issue]:
    rows = Issue.objects.filter(newsletter=newsletter, state=S.APPROVED, release_date__lte=day)
    return list(rows.filter(paused_at=None).order_by("release_date", "id"))


def _began_on(newsletter: Newsletter, day: date) -> bool:
    return Issue.objects.filter(
        newsletter=newsletter,
        started_at__gte=at_local(day, time(0), newsletter.zone),
        started_at__lt=at_local(day + timedelta(days=1), time(0), newsletter.zone),
        state__in=(*RUNNING, S.SENT),
    ).exists()


def _tell_of_those_that_wait(newsletter: Newsletter, day: date) -> None:
    if due := _due(newsletter, day):
        notifying.tell(
            "others_wait",
            f"{newsletter.name}: one issue a day is released by itself",
            "Still waiting: " + ", ".join(issue.label for issue in due),
            "Start it by hand if it is to go out today: release ISSUE --now",
            level="warning",
            newsletter=newsletter,
            once=f"{day}",
        )


def _held(newsletter: Newsletter, day: date, held: str) -> str:
    notifying.tell(
        "release_held",
        f"{newsletter.name}: nothing is started, everything is held",
        held,
        f"Let go before {newsletter.too_late_time:%H:%M}, the next sweep starts what is approved.",
        level="error",
        newsletter=newsletter,
        once=f"{day}",
    )
    return "everything is held: not started"


def _too_late(newsletter: Newsletter, day: date) -> str:
    waiting = [issue.label for issue in _due(newsletter, day)]
    notifying.tell(
        "too_late",
        f"{newsletter.name}: the release of {day} was missed",
        f"Nothing was running here before {newsletter.too_late_time:%H:%M}. Not started: "
        + (", ".join(waiting) or "nothing was approved"),
        "Start it by hand if it is still wanted: release ISSUE --now",
        level="error",
        newsletter=newsletter,
        once=f"{day}",
    )
    return "too late: not started"


def _what_stands(issue: Issue) -> str:
    if not issue.post_sha:
        return ""
    return f"The post stands at {issue.post_path}; it can be removed from the issue's page."
