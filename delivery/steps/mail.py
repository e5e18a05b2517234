"""The mail's part: the audience frozen, the books closed, the report."""

from __future__ import annotations

from functools import partial

from delivery import notifying, reports, sending
from delivery.models import CompiledIssue
from delivery.outcome import Discard, Done, Outcome
from newsletter.models import Issue
from newsletter.models.issue import IssueState as S

from .common import ACTOR, block, find


def freeze(issue: Issue) -> Outcome:
    """Compile once, and take the audience with the finish of the step."""
    try:
        compiled = sending.compile_issue(issue)
    except ValueError as error:
        reason = f"the mail cannot be made: {error}"
        return Done(reason, partial(block, issue, reason))
    return Done("the audience is frozen", partial(_frozen, issue, compiled))


def close(issue_id: int) -> Outcome:
    issue = find(issue_id)
    return sending.close(issue) if issue else Discard("the issue is gone")


def report(issue_id: int) -> Outcome:
    """The closed issue's figures, told once."""
    issue = find(issue_id)
    if issue is None or issue.state != S.SENT:
        return Discard("there is no closed issue to report")
    # Before the advance: its transaction would keep SQLite's one writer while every row is read.
    return Done("reported", partial(_report, issue, reports.report(issue)))


def _frozen(issue: Issue, compiled: CompiledIssue) -> None:
    if sending.freeze(issue, compiled, actor=ACTOR):
        return
    issue.refresh_from_db()
    if issue.state == S.PUBLISHED and not issue.paused_at:
        block(issue, "the audience is empty: no confirmed subscriber")


def _report(issue: Issue, found: reports.Report) -> None:
    reports.store(issue, found)
    number = found.books.number
    failed = not number("sent") and not number("skipped")
    level: notifying.Level = (
        "error" if failed else "warning" if number("unknown") or number("failed") else "info"
    )
    notifying.tell(
        "sent",
        f"“{issue.title}” was not delivered to anybody" if failed else f"“{issue.title}” was sent",
        *reports.sentences(issue, found),
        level=level,
        issue=issue,
    )
