"""How a job leaves `running`: each in the transaction of the finish, only where its token still holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from delivery.errors import BreakerOpen, EdgeError
from delivery.models.job import Job, JobState
from delivery.models.job_tally import Ending
from delivery.outcome import Discard, Done, Outcome, Wait
from delivery.redaction import describe, in_words
from delivery.retries import On
from newsletter.models import database_now

from .registry import REGISTRY
from .rows import ensure, tell_death
from .wakeups import wake

UNDECLARED = "an error that nobody declared"


def finish(row: Job, outcome: Outcome) -> Ending | None:
    """Apply what the body returned; None where the token no longer holds."""
    match outcome:
        case Done(note, advance):
            row.troubles, row.error = {}, ""
            if not row.finish(JobState.DONE, note):
                return None
            advance()
            _run_again(row)
            return Ending.DONE
        case Wait(seconds, note, advance):
            row.troubles, row.error = {}, ""
            if not _requeue(row, seconds, note):
                return None
            advance()
            return Ending.WAITING
        case Discard(note):
            if not row.finish(JobState.DISCARDED, note):
                return None
            _run_again(row)
            return Ending.DISCARDED


def fail(row: Job, error: Exception) -> Ending | None:
    """Apply the policy that names the error: once more, or what was declared for its end; None as above."""
    job_type = REGISTRY.get(row.name)
    policy = job_type.policy(error) if job_type else None
    row.error = describe(error)
    if policy is None:
        return Ending.DEAD if bury(row, f"{UNDECLARED}: {in_words(error)}") else None
    said = error.message if isinstance(error, EdgeError) else in_words(error)
    if isinstance(error, BreakerOpen):
        return _delay(row, policy, error)
    name = type(error).__name__
    now = database_now()
    trouble = row.troubles.get(name) or {"count": 0, "since": now.isoformat()}
    trouble = {**trouble, "count": trouble["count"] + 1}
    row.troubles = {**row.troubles, name: trouble}
    left = _end(row, policy, datetime.fromisoformat(trouble["since"])) - now
    permanent = isinstance(error, EdgeError) and error.permanent
    if permanent or trouble["count"] >= policy.times or left <= timedelta():
        spent = "" if permanent else f"given up after {_times(trouble['count'])}: "
        return _spend(row, policy, spent + said)
    named = error.retry_after if isinstance(error, EdgeError) else None
    seconds = max(named or 0.0, policy.wait.seconds(trouble["count"]))
    # Not past its end: there it is asked a last time.
    seconds = min(seconds, max(1.0, left.total_seconds()))
    if not _requeue(row, seconds, said):
        return None
    row.record(JobState.RUNNING, JobState.QUEUED, said)
    return Ending.RETRIED


def bury(row: Job, reason: str) -> bool:
    """running -> dead: kept with its arguments, error and history, and told once."""
    if not row.finish(JobState.DEAD, reason):
        return False
    tell_death(row, reason)
    return True


def _delay(row: Job, policy: On, error: BreakerOpen) -> Ending | None:
    """An open breaker spends no attempt, but its wall-clock end holds."""
    now = database_now()
    trouble = row.troubles.get(BreakerOpen.__name__) or {"count": 0, "since": now.isoformat()}
    row.troubles = {**row.troubles, BreakerOpen.__name__: trouble}
    end = _end(row, policy, _first(row, now))
    if now >= end:
        return _spend(row, policy, f"given up: {error.message}")
    seconds = max(1.0, (min(error.until, end) - now).total_seconds())
    return Ending.DELAYED if _requeue(row, seconds, error.message) else None


def _first(row: Job, now: datetime) -> datetime:
    """When the present streak of troubles began."""
    return min(
        (datetime.fromisoformat(trouble["since"]) for trouble in row.troubles.values()), default=now
    )


def _end(row: Job, policy: On, first: datetime) -> datetime:
    since = policy.since(row) if policy.since else None
    return (since or first).astimezone(UTC) + timedelta(seconds=policy.bound)


def _spend(row: Job, policy: On, reason: str) -> Ending | None:
    if policy.then is None:
        return Ending.DEAD if bury(row, reason) else None
    if not row.finish(JobState.DONE, reason):
        return None
    policy.then(row, reason)
    _run_again(row)
    return Ending.DEGRADED


def _requeue(row: Job, seconds: float, note: str) -> bool:
    due = database_now() + timedelta(seconds=seconds)
    if not row.requeue(due, note):
        return False
    if _wanted_again(row):  # only now: the row is ours, and locked
        due = database_now()
        Job.objects.filter(pk=row.pk).update(due_at=due)
    wake(row, due)
    return True


def _wanted_again(row: Job) -> bool:
    return bool(Job.objects.filter(pk=row.pk, again=True).update(again=False))


def _run_again(row: Job) -> None:
    if _wanted_again(row):
        ensure(row.name, key=row.key, issue_id=row.issue_id, **row.args)


def _times(number: int) -> str:
    return "one try" if number == 1 else f"{number} tries"
