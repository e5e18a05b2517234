from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from newsletter.models import Newsletter, Refused, Subscriber, Subscription, Suppression
from newsletter.models.subscription import SubscriptionState
from newsletter.models.suppression import SuppressionReason

from .base import ReadOnlyAdmin
from .keyset import BeginningOfAddress, ColumnFilter, KeysetAdmin

AT_ONCE = 200  # subscriptions that one press of the button asks


class SubscriptionInline(admin.TabularInline):
    model = Subscription
    extra = 0
    readonly_fields = ["newsletter", "state", "consent_source", "consent_at", "unsubscribed_at"]
    fields = tuple(readonly_fields)
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class NewsletterFilter(ColumnFilter):
    title = "newsletter"
    parameter_name = "newsletter__id__exact"
    column = "newsletter_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(pk), name) for pk, name in Newsletter.objects.values_list("pk", "name")]

    def chosen(self) -> int | None:
        found = super().chosen()
        return int(found) if found else None


class StateFilter(ColumnFilter):
    title = "state"
    parameter_name = "state__exact"
    column = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in SubscriptionState.values]


class ReasonFilter(ColumnFilter):
    title = "reason"
    parameter_name = "reason__exact"
    column = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(reason, str(label)) for reason, label in SuppressionReason.choices]


@admin.register(Subscriber)
class SubscriberAdmin(BeginningOfAddress, KeysetAdmin, ReadOnlyAdmin):
    list_display = ["address", "name", "created_at"]
    reader_path = "pk"
    exclude = ["address_key"]
    inlines = [SubscriptionInline]
    change_form_template = "admin/delivery/subscriber.html"


@admin.register(Subscription)
class SubscriptionAdmin(BeginningOfAddress, KeysetAdmin, ReadOnlyAdmin):
    list_display = ["subscriber", "newsletter", "state", "consent_source", "consent_at"]
    list_select_related = ["subscriber", "newsletter"]
    list_filter = [NewsletterFilter, StateFilter]
    reader_path = "subscriber_id"
    actions = ("ask_to_confirm",)

    @admin.action(description="Ask them to confirm", permissions=["ask"])
    def ask_to_confirm(self, request: HttpRequest, rows: QuerySet[Subscription]) -> None:
        actor = str(request.user)
        asked = sum(_ask(row, actor) for row in rows.filter(state="pending")[:AT_ONCE])
        self.message_user(request, f"{asked} were asked by mail.", messages.SUCCESS)
        if asked < rows[: AT_ONCE + 1].count():
            self.message_user(
                request,
                "The others are not pending, were asked just now or too often today, "
                f"or come after the first {AT_ONCE}.",
                messages.WARNING,
            )

    def has_ask_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("newsletter.change_subscription")


def _ask(row: Subscription, actor: str) -> bool:
    try:
        return row.ask_to_confirm(actor=actor)
    except Refused:  # it was pending when the list was read
        return False


@admin.register(Suppression)
class SuppressionAdmin(KeysetAdmin, ReadOnlyAdmin):
    list_display = ["id", "reason", "detail", "created_at"]
    list_filter = [ReasonFilter]
