"""What all steps share: what follows a state, what blocks an issue, and when a step leaves quietly."""

from __future__ import annotations

from collections.abc import Callable

from delivery import notifying, queue, sending
from delivery.models import House, Job
from delivery.outcome import Discard, Done, Outcome, Wait
from newsletter.models import Issue, database_now
from newsletter.models.issue import MAILED
from newsletter.models.issue import IssueState as S

ACTOR = "release"
HELD_SECONDS = 60.0  # until it is looked at again whether everything is still held

# The job that takes an issue out of a state.
STEP_OF_STATE = {
    S.AWAITING_PODCAST: "await_podcast",
    S.PUBLISHING: "publish",
    S.PUBLISHED: "await_live",
}


def enqueue_step(issue: Issue, *, hurry: bool = True) -> bool:
    """Want the step that the issue stands at; `hurry` cuts a wait short. True where something new was queued."""
    if issue.state in MAILED:
        return sending.wake(issue, hurry=hurry)
    name = STEP_OF_STATE.get(S(issue.state))
    if name is None:
        return False
    want = queue.enqueue if hurry else queue.ensure
    return want(name, key=f"{name}:{issue.pk}", issue_id=issue.pk, id=issue.pk)


def step_gave_up(job: Job, reason: str) -> None:
    """A step's job is dead: the issue is blocked where it stands, and that is told once."""
    issue = find(job.issue_id or 0)
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


def step(state: str) -> Callable[[Callable[[Issue], Outcome]], Callable[[int], Outcome]]:
    """Load the issue; leave quietly where it is gone, not in this state, paused or blocked, or everything is held."""

    def wrap(body: Callable[[Issue], Outcome]) -> Callable[[int], Outcome]:
        def load(issue_id: int) -> Outcome:
            issue = find(issue_id)
            if issue is None:
                return Discard("the issue is gone")
            if issue.state != state:
                return Done(f"nothing to do: the issue is {issue.state}")
            if issue.paused_at or issue.blocked_reason:
                return Done("paused" if issue.paused_at else "blocked")
            if held := House.read().why_held:
                return Done(f"everything is held: {held}")  # who lets it go on wakes it
            return body(issue)

        return load

    return wrap


def unless_held(body: Callable[[int], Outcome]) -> Callable[[int], Outcome]:
    """For what follows a run, and nobody wakes: it waits while everything is held."""

    def wait(issue_id: int) -> Outcome:
        if held := House.read().why_held:
            return Wait(HELD_SECONDS, f"everything is held: {held}")
        return body(issue_id)

    return wait


def find(issue_id: int) -> Issue | None:
    return Issue.objects.select_related("newsletter").filter(pk=issue_id).first()
