"""The dead-man's switch: a service elsewhere that raises an alarm where it does not hear from us each week."""

from __future__ import annotations

from functools import partial

from django.conf import settings

from newsletter.models import Issue
from newsletter.models.issue import IssueState

from . import breakers, http, notifying
from .errors import EdgeError
from .models import Job
from .outcome import Discard, Done, Outcome
from .retries import HOUR, Backoff, On

fetch = partial(http.fetch, user_agent="Carteiro")


def ping(issue_id: int) -> Outcome:
    """Tell it that the issue is closed; twice does no harm. Raises EdgeError, which names no more than its host."""
    if not settings.DEADMAN_URL:
        return Discard("DEADMAN_URL is not set")
    if not Issue.objects.filter(pk=issue_id, state=IssueState.SENT).exists():
        return Discard("there is no closed issue to tell of")
    with breakers.guard("deadman"):
        page = fetch(settings.DEADMAN_URL, allow_private=settings.ALLOW_PRIVATE_URLS)
        http.expect_success(page, "The dead-man's switch")
    return Done("the dead-man's switch was told")


def give_up(job: Job, reason: str) -> None:
    """It will raise its alarm: the people who get it know from this notice that the issue is closed all the same."""
    issue = Issue.objects.select_related("newsletter").filter(pk=job.issue_id or 0).first()
    if issue is not None:
        notifying.tell(
            "deadman_not_told",
            f"The dead-man's switch does not know that “{issue.title}” was sent",
            reason,
            "It may raise its alarm. Check DEADMAN_URL.",
            level="warning",
            issue=issue,
        )


PING = (On(EdgeError, Backoff(), times=100, within=6 * HOUR, then=give_up),)
