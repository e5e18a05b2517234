from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from newsletter.models import Refused, Subscriber, Subscription, Suppression

from .base import ReadOnlyAdmin

AT_ONCE = 200  # subscriptions that one press of the button asks


class SubscriptionInline(admin.TabularInline):
    model = Subscription
    extra = 0
    readonly_fields = ["newsletter", "state", "consent_source", "consent_at", "unsubscribed_at"]
    fields = tuple(readonly_fields)
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Subscriber)
class SubscriberAdmin(ReadOnlyAdmin):
    list_display = ["address", "name", "created_at"]
    search_fields = ["address__startswith"]
    search_help_text = "The beginning of an address"
    ordering = ["-id"]
    exclude = ["address_key"]
    inlines = [SubscriptionInline]
    change_form_template = "admin/delivery/subscriber.html"


@admin.register(Subscription)
class SubscriptionAdmin(ReadOnlyAdmin):
    list_display = ["subscriber", "newsletter", "state", "consent_source", "consent_at"]
    list_select_related = ["subscriber", "newsletter"]
    list_filter = ["state", "newsletter"]
    search_fields = ["subscriber__address__startswith"]
    search_help_text = "The beginning of an address"
    ordering = ["-id"]
    actions = ("ask_to_confirm",)

    @admin.action(description="Ask them to confirm", permissions=["ask"])
    def ask_to_confirm(self, request: HttpRequest, rows: QuerySet[Subscription]) -> None:
        actor = str(request.user)
        asked = sum(_ask(row, actor) for row in rows.filter(state="pending")[:AT_ONCE])
        self.message_user(request, f"{asked} were asked by mail.", messages.SUCCESS)
        if asked < rows.count():
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
class SuppressionAdmin(ReadOnlyAdmin):
    list_display = ["id", "reason", "detail", "created_at"]
    list_filter = ["reason"]
    ordering = ["-id"]
