from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from newsletter.models import Subscriber, Subscription, Suppression

from .base import ReadOnlyAdmin


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


@admin.register(Suppression)
class SuppressionAdmin(ReadOnlyAdmin):
    list_display = ["id", "reason", "detail", "created_at"]
    list_filter = ["reason"]
    ordering = ["-id"]
