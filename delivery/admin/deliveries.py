"""The ledger's list: by issue, by status within an issue, by the reader's address."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import F, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from delivery.models import EmailDelivery, LedgerTally
from delivery.models.email_delivery import DeliveryStatus
from newsletter.models import Issue
from newsletter.models.transition import Subject

from .base import HistoryAdmin
from .keyset import BeginningOfAddress, ColumnFilter, KeysetAdmin, along

ISSUE, STATUS = "issue__id__exact", "status__exact"
NUMBER = re.compile("[0-9]{1,18}")
SHOWN = 60  # issues to choose from: a year of them


class StatusFilter(ColumnFilter):
    title = "status"
    parameter_name = STATUS
    column = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status, status) for status in DeliveryStatus.values]


class IssueFilter(ColumnFilter):
    """The newest that have a ledger; the address takes any. Django's own filter would read the ledger for them."""

    title = "issue"
    parameter_name = ISSUE
    column = "issue_id"
    is_whole = False

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        issues = frozen().values_list("pk", "title")[:SHOWN]
        return [(str(pk), title) for pk, title in issues]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[EmailDelivery]
    ) -> QuerySet[EmailDelivery]:
        """All rows of an issue have no index of their own."""
        chosen = self._id()
        self.is_whole = not (STATUS in request.GET or request.GET.get(SEARCH_VAR))
        return whole(queryset, chosen) if chosen and self.is_whole else queryset

    def chosen(self) -> int | None:
        return None if self.is_whole else self._id()

    def _id(self) -> int | None:
        value = self.value()
        if value and not NUMBER.fullmatch(value):
            raise IncorrectLookupParameters
        return int(value) if value else None


@admin.register(EmailDelivery)
class EmailDeliveryAdmin(BeginningOfAddress, KeysetAdmin, HistoryAdmin):
    subject = Subject.DELIVERY
    list_display = ["id", "issue", "address", "status", "reason", "attempt", "settled_at"]
    list_select_related = ["issue"]
    list_filter = [IssueFilter, StatusFilter]
    reader_path = "subscription__subscriber_id"
    list_per_page = 25  # half of this page's time is rows; it must be quick while the ledger drains
    exclude = ["address_key"]
    change_form_template = "admin/delivery/delivery.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmailDelivery]:
        """Without the issue's text, which would come again with each row."""
        return super().get_queryset(request).defer("issue__markdown", "issue__snapshot")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A status alone is that of one issue, and the page says which: an index for it would cost each mail."""
        status, is_searched = request.GET.get(STATUS), request.GET.get(SEARCH_VAR)
        may_look = request.method == "GET" and self.has_view_permission(request)
        if may_look and status and not is_searched and ISSUE not in request.GET:
            issue = newest_with(status)
            if issue is not None:
                chosen = request.GET.copy()
                chosen[ISSUE] = str(issue)
                return redirect(f"{request.path}?{chosen.urlencode()}")
        return super().changelist_view(request, extra_context)


def frozen() -> QuerySet[Issue]:
    return Issue.objects.exclude(audience_frozen_at=None).order_by("-audience_frozen_at")


def newest_with(status: str) -> int | None:
    """The newest issue that has such rows; where none has, the newest of all."""
    if status in DeliveryStatus.values:
        having = LedgerTally.objects.values_list("issue_id").annotate(n=Sum(status)).filter(n__gt=0)
        by_time = having.exclude(issue__audience_frozen_at=None).order_by(
            "-issue__audience_frozen_at"
        )
        if found := by_time.first():
            return int(found[0])
    return frozen().values_list("pk", flat=True).first()


def whole(rows: QuerySet[EmailDelivery], issue_id: int) -> QuerySet[EmailDelivery]:
    """All rows of an issue along the primary key, from its last to its first; others may stand in between."""
    all_rows = EmailDelivery.objects.all()
    found = Issue.objects.filter(pk=issue_id).values_list(
        *(
            Subquery(way.values("id")[:1])
            for status in DeliveryStatus.values
            for newest in [along(all_rows, [("issue_id", issue_id), ("status", status)])]
            for way in (newest, newest.reverse())
        )
    )
    ids = [id for id in found.first() or () if id is not None]
    if not ids:
        return rows.none()
    # By a sum: by the issue itself SQLite takes an index of a million rows, and sorts.
    stretch = rows.filter(pk__range=(min(ids), max(ids)))
    return stretch.alias(of=F("issue_id") + 0).filter(of=issue_id)
