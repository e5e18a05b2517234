"""Jobs and what they leave behind, as rows; the page that shows it all together is delivery/views/operations.py."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator

from delivery.models import (
    Alert,
    CircuitBreaker,
    Job,
    Lease,
    Notification,
    Occurrence,
    TransactionalMail,
)
from delivery.queue.registry import REGISTRY
from delivery.templatetags import operations as shown
from delivery.views import dead_letters
from newsletter.models.transition import Subject

from .base import HistoryAdmin, ReadOnlyAdmin
from .keyset import KeysetAdmin

AT_ONCE = 200  # jobs of one bulk action

# A schedule of django-q2's names any function to call: nobody types one here. The jobs are ours to show.
for model in apps.get_app_config("django_q").get_models():
    if admin.site.is_registered(model):
        admin.site.unregister(model)


class NameFilter(admin.SimpleListFilter):
    """By the names that are registered: Django's own filter would read the whole table for them."""

    title = "name"
    parameter_name = "name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(REGISTRY)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return queryset.filter(name=self.value()) if self.value() else queryset


@admin.register(Job)
class JobAdmin(KeysetAdmin, HistoryAdmin):
    subject = Subject.JOB
    list_display = ["key", "outcome_in_short", "state", "lane", "due_at", "runs", "failures"]
    list_filter = ["state", "lane", NameFilter]
    actions = ("retry", "discard")
    change_form_template = "admin/delivery/operations_job.html"
    fields = [
        ("key", "name", "lane"),
        ("state", "runs", "crashes"),
        "arguments",
        "issue",
        "last_outcome",
        "troubles_in_a_row",
        "error",
        ("created_at", "due_at"),
        ("started_at", "finished_at", "lease_until"),
        "holder",
    ]
    readonly_fields = ("arguments", "last_outcome", "troubles_in_a_row")

    @admin.display(description="arguments")
    def arguments(self, row: Job) -> str:
        return shown.arguments(row) or "none"

    @admin.display(description="last outcome")
    def last_outcome(self, row: Job) -> str:
        return shown.redacted(row.note)

    @admin.display(description="last outcome")
    def outcome_in_short(self, row: Job) -> str:
        return Truncator(shown.redacted(row.note)).chars(80)

    @admin.display(description="troubles in a row")
    def troubles_in_a_row(self, row: Job) -> str:
        return shown.troubles(row) or "none"

    @admin.action(description="Retry the selected dead jobs", permissions=["act"])
    def retry(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        _act("retry", request, rows)

    @admin.action(description="Discard the selected dead jobs", permissions=["act"])
    def discard(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        _act("discard", request, rows)

    def has_act_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("delivery.change_job")


def _act(action: str, request: HttpRequest, rows: QuerySet[Job]) -> None:
    chosen = list(rows.order_by("id")[: AT_ONCE + 1])
    handled = dead_letters.ACTS[action](chosen[:AT_ONCE], actor=str(request.user))
    dead_letters.tell(request, handled)
    if len(chosen) > AT_ONCE:
        messages.warning(request, f"These were the first {AT_ONCE}; the others are as they were.")


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ["name", "holder", "fence", "expires_at"]
    exclude = ["token"]
    ordering = ["-expires_at"]


@admin.register(Occurrence)
class OccurrenceAdmin(KeysetAdmin, ReadOnlyAdmin):
    list_display = ["schedule", "newsletter", "due_utc", "issue", "note"]
    list_filter = ["schedule"]
    list_select_related = ["newsletter", "issue"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Occurrence]:
        """Without the issue's text, which would come again with each row."""
        return super().get_queryset(request).defer("issue__markdown", "issue__snapshot")


@admin.register(Notification)
class NotificationAdmin(KeysetAdmin, ReadOnlyAdmin):
    list_display = ["key", "channel", "state", "created_at", "note"]
    list_filter = ["state", "channel"]


@admin.register(TransactionalMail)
class TransactionalMailAdmin(KeysetAdmin, ReadOnlyAdmin):
    list_display = ["id", "kind", "to", "state", "attempts", "created_at", "settled_at", "outcome"]
    list_filter = ["state", "kind"]
    exclude = ["nonce"]

    @admin.display(description="to")
    def to(self, row: TransactionalMail) -> str:
        """Enough to know it again: `b…@example.org`."""
        local, _, domain = row.address.rpartition("@")
        return f"{local[:1]}…@{domain}"

    @admin.display(description="outcome")
    def outcome(self, row: TransactionalMail) -> str:
        return shown.redacted(row.note)


@admin.register(CircuitBreaker)
class CircuitBreakerAdmin(ReadOnlyAdmin):
    list_display = ["name", "state", "failures", "opened", "until", "reason", "changed_at"]
    ordering = ["name"]


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ["name", "raised_at", "times", "detail"]
    ordering = ["name"]
