"""A release, as one watches it in the terminal: each step once, and a bar for the sending."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from delivery import sending
from delivery.models import Job
from newsletter.models import Issue, Transition
from newsletter.models.issue import IssueState as S
from newsletter.models.transition import Subject

ENDED = (S.SENT, S.CANCELLED, S.DRAFT)
BAR = 30


def follow(issue: Issue, out: Any, is_terminal: bool, poll: float = 0.5) -> bool:
    """Print what happens until the release ends or needs somebody; True where it was sent.

    A pause or a block ends the watching, not the release.
    """
    seen, last = 0, ""
    while True:
        issue.refresh_from_db()
        seen = _print_history(issue, out, seen)
        if issue.state in ENDED or issue.paused_at or issue.blocked_reason:
            _print_history(issue, out, seen)
            return issue.state == S.SENT
        line = _progress(issue)
        if line != last and (is_terminal or issue.state != S.SENDING):
            out.write(line, ending="\r" if is_terminal and issue.state == S.SENDING else "\n")
            out.flush()
        last = line
        time.sleep(poll)


def _print_history(issue: Issue, out: Any, seen: int) -> int:
    for row in Transition.objects.of(Subject.ISSUE, issue.pk).filter(id__gt=seen):
        out.write(f"{row.at:%H:%M:%S}  {row.new:<17} {row.reason}{' ' * 20}")
        seen = row.pk
    return seen


def _progress(issue: Issue) -> str:
    if issue.state != S.SENDING:
        return _waiting(issue)
    figures = sending.books(issue)
    done = int(issue.audience or 0) - int(figures["pending"] or 0) - int(figures["sending"] or 0)
    share = done / (issue.audience or 1)
    bar = "#" * round(BAR * share)
    return f"          [{bar:<{BAR}}] {done}/{issue.audience}  {share:.0%}"


def _waiting(issue: Issue) -> str:
    job = Job.objects.filter(issue=issue, state="queued").exclude(note="").order_by("-id").first()
    return f"          ... {job.note}" if job else "          ..."


def print_books(figures: Mapping[str, object], out: Any) -> None:
    """The ledger in figures, a line each."""
    for name, value in figures.items():
        out.write(f"{name:<9} {_in_words(value)}")


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not frozen yet" if value is None else str(value)
