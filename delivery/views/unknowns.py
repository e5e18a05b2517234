"""The unknown page: rows of which nobody can tell whether they were accepted, the evidence, and an operator's word."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, F, OuterRef
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_POST, require_safe

from delivery import settling, timeline, words
from delivery.copies import Copies
from delivery.models import CompiledIssue, EmailDelivery, LedgerTally
from delivery.models.email_delivery import DeliveryStatus, EmailDeliveryQuerySet
from newsletter.models import Issue, Refused
from newsletter.models.transition import Subject

from .operations import for_staff

ROWS = 25  # a page
ISSUES = 100
NUMBER = re.compile("[0-9]{1,18}")
MAY_SETTLE = "newsletter.release_issue"


@dataclass(frozen=True)
class Case:
    """One row and what speaks for or against its acceptance."""

    row: EmailDelivery
    why: str
    sender: str
    message_id: str
    lines: list[timeline.Line]

    @property
    def reader(self) -> str:
        return self.row.address or f"erased address, delivery {self.row.pk}"


@dataclass(frozen=True)
class Word:
    """What an operator says of rows, and how it is told when it is done."""

    settle: Callable[..., int]
    done: str


WORDS = {
    "sent": Word(settling.mark_sent, "marked as sent"),
    "failed": Word(settling.mark_failed, "marked as failed"),
    "resend": Word(settling.resend, "to be sent again"),
}


@require_safe
@for_staff("view_emaildelivery")
def overview(request: HttpRequest) -> HttpResponse:
    """The issues that have such rows, the newest first."""
    rows = EmailDelivery.objects.filter(status=DeliveryStatus.UNKNOWN)
    issues = list(
        Issue.objects.filter(Exists(rows.filter(issue_id=OuterRef("pk"))))
        .exclude(audience_frozen_at=None)
        .select_related("newsletter")
        .defer("markdown", "snapshot")
        .order_by("-audience_frozen_at")[:ISSUES]
    )
    told = LedgerTally.objects.figures_of([issue.pk for issue in issues])
    found = [(issue, _number_of(issue, told.get(issue.pk))) for issue in issues]
    return _show(request, "unknowns", "Unknown rows", {"issues": found})


@require_safe
@for_staff("view_emaildelivery")
def of_issue(request: HttpRequest, issue_id: int) -> HttpResponse:
    """One issue's rows by their ids, from `?after=ID` on; `?row=ID` is that row alone."""
    issue = _issue(issue_id)
    rows = _unknown(issue)
    after, only = _number(request, "after"), _number(request, "row")
    listed = rows.filter(pk=only) if only else rows.filter(pk__gt=after)
    # By a sum: an order by the key itself lets PostgreSQL read the whole ledger along it.
    shown = listed.select_related("sender", "subscription").order_by(F("id") + 0)[: ROWS + 1]
    cases = _cases(issue, list(shown))
    found = {
        "issue": issue,
        "zone": issue.newsletter.zone,
        "number": _number_of(issue, LedgerTally.objects.figures(issue.pk)),
        "cases": cases[:ROWS],
        "after": after,
        "only": only,
        "next_after": cases[ROWS - 1].row.pk if len(cases) > ROWS else 0,
        "may_settle": request.user.has_perm(MAY_SETTLE),
        "is_cancelled": issue.state == "cancelled",
    }
    return _show(request, "unknowns_issue", f"Unknown rows of “{issue.title}”", found)


@require_POST
@for_staff("view_emaildelivery")
def settle(request: HttpRequest, issue_id: int) -> HttpResponse:
    """An operator's word (`as`: sent, failed or resend) on the ticked rows, with a reason."""
    if not request.user.has_perm(MAY_SETTLE):
        raise PermissionDenied
    word = WORDS.get(request.POST.get("as", ""))
    if word is None:
        raise Http404
    issue = _issue(issue_id)
    ids = _ticked(request)
    reason = request.POST.get("reason", "").replace("\0", "").strip()[:300]
    if trouble := _trouble(request, ids, reason):
        messages.error(request, trouble)
    else:
        _apply(request, issue, word, ids, reason)
    after = _number(request, "after")
    back = reverse("unknown_of", args=[issue.pk])
    return redirect(f"{back}?after={after}" if after else back)


urlpatterns = [
    path("", overview, name="unknowns"),
    path("<int:issue_id>/", of_issue, name="unknown_of"),
    path("<int:issue_id>/settle/", settle, name="unknown_settle"),
]


def _issue(issue_id: int) -> Issue:
    rows = Issue.objects.select_related("newsletter").defer("markdown", "snapshot")
    return get_object_or_404(rows.exclude(audience_frozen_at=None), pk=issue_id)


def _unknown(issue: Issue) -> EmailDeliveryQuerySet:
    return EmailDelivery.objects.of(issue.pk).filter(status=DeliveryStatus.UNKNOWN)


def _number_of(issue: Issue, told: dict[str, int] | None) -> int:
    return told[DeliveryStatus.UNKNOWN] if told else _unknown(issue).count()


def _number(request: HttpRequest, name: str) -> int:
    """A row's id from the address or the form; 0 where there is none."""
    given = request.POST.get(name) or request.GET.get(name) or ""
    return int(given) if NUMBER.fullmatch(given) else 0


def _cases(issue: Issue, rows: list[EmailDelivery]) -> list[Case]:
    ids = [row.pk for row in rows]
    told = timeline.histories(Subject.DELIVERY, ids)
    events = timeline.events_of(ids)
    name = _message_ids(issue)
    found = []
    for row in rows:
        lines = [*timeline.told_in_words(told[row.pk]), *timeline.events_in_words(events[row.pk])]
        lines.sort(key=lambda line: line.at)
        why = words.reason_in_words(row.reason)
        found.append(Case(row, why, _sender(row), name(row.pk), lines))
    return found


def _message_ids(issue: Issue) -> Callable[[int], str]:
    compiled = CompiledIssue.objects.filter(pk=issue.pk).first()
    try:
        return Copies(compiled).message_id if compiled else lambda _: ""
    except ValueError:  # stored by another version
        return lambda _: ""


def _sender(row: EmailDelivery) -> str:
    """The process that had it; a lease that has passed on names another one by now."""
    if row.sender is None:
        return ""
    if row.sender.fence == row.fence:
        return f"{row.sender.holder}, as {row.sender.name}, fence {row.fence}"
    return (
        f"an earlier holder of {row.sender.name}, fence {row.fence} (it is {row.sender.fence} now)"
    )


def _ticked(request: HttpRequest) -> list[int]:
    """Those that are ticked, or all that the page showed."""
    given = request.POST.getlist("shown" if "all" in request.POST else "row")
    return list(dict.fromkeys(int(each) for each in given if NUMBER.fullmatch(each)))[:ROWS]


def _trouble(request: HttpRequest, ids: list[int], reason: str) -> str:
    """Why nothing can be done yet; empty where it can."""
    if not ids:
        return "Nothing was changed: tick the rows first."
    if not reason:
        return "Nothing was changed: say why. The reason stands in the history of each row."
    if request.POST.get("as") == "resend" and "twice" not in request.POST:
        return "Nothing was changed: to send again, tick that a second copy may arrive."
    return ""


def _apply(request: HttpRequest, issue: Issue, word: Word, ids: list[int], reason: str) -> None:
    rows = list(_unknown(issue).filter(pk__in=ids).values_list("pk", flat=True))
    try:
        won = word.settle(rows, actor=str(request.user), reason=reason) if rows else 0
    except Refused as refusal:
        messages.error(request, str(refusal))
        return
    if won:
        messages.success(request, f"{_rows(won)} {word.done}.")
    if left := len(ids) - won:
        messages.warning(request, f"{_rows(left)} not unknown any more, and left alone.")


def _rows(number: int) -> str:
    return "1 row is" if number == 1 else f"{number} rows are"


def _show(request: HttpRequest, name: str, title: str, found: dict[str, Any]) -> HttpResponse:
    context = {**admin.site.each_context(request), **found, "title": title}
    return render(request, f"admin/delivery/{name}.html", context)
