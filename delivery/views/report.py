"""The report of an issue, drawn: a section of the issue's page, and a page of its own for a ledger that is long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import path
from django.views.decorators.http import require_safe

from delivery import reports
from newsletter.models import Issue

from .operations import for_staff

# Rows that are read each time that an issue's page is looked at: 20,000 took 0.29 s on PostgreSQL. A longer ledger has
# its report on a page of its own.
AT_ONCE = 10_000
WIDTH = 1000
LEAST = 4  # of the bar, for what is there but few


class Piece(NamedTuple):
    status: str
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class Bar:
    """The audience as one bar, in the order of the statuses; `label` says the same in words."""

    pieces: tuple[Piece, ...]
    label: str
    width: int = WIDTH


def bar(books: reports.Books) -> Bar:
    there = [share for share in books.shares if share.number]
    widths = [max(LEAST, WIDTH * share.percent / 100) for share in there]
    scale = WIDTH / (sum(widths) or 1)
    pieces, x = [], 0.0
    for share, width in zip(there, widths, strict=True):
        title = f"{share.number:,} {share.status}"
        pieces.append(Piece(share.status, round(x, 1), round(width * scale, 1), title))
        x += width * scale
    said = ", ".join(piece.title for piece in pieces)
    return Bar(tuple(pieces), f"Of {books.audience:,}: {said}")


def context(issue: Issue, *, whole: bool = False) -> dict[str, Any]:
    """What the template `report.html` shows; nothing before the freeze. The books alone while it is sending."""
    if not issue.audience:
        return {}
    at_rest = reports.is_at_rest(issue)
    report, counted_at = None, None
    if at_rest and issue.audience <= AT_ONCE:
        report = reports.report(issue)
    elif at_rest and whole:
        report, counted_at = reports.latest(issue)
    books = report.books if report else reports.books(issue)
    return {
        "books": books,
        "bar": bar(books),
        "report": report,
        "counted_at": counted_at,
        "is_elsewhere": at_rest and report is None,
        "unknown": books.number("unknown"),
        "on_wire": books.number("sending"),
        "waiting": books.number("pending"),
        "zone": issue.newsletter.zone,
    }


@require_safe
@for_staff("view_emaildelivery")
def page(request: HttpRequest, issue_id: int) -> HttpResponse:
    issues = Issue.objects.select_related("newsletter").defer("markdown", "snapshot")
    issue = get_object_or_404(issues, pk=issue_id)
    found = context(issue, whole=True)
    if not found:
        raise Http404
    shown = {"title": f"Report of {issue.label}", "original": issue}
    everything = {**admin.site.each_context(request), **found, **shown}
    return render(request, "admin/delivery/report_page.html", everything)


urlpatterns = [path("<int:issue_id>/", page, name="report")]
