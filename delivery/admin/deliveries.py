from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from delivery.models import EmailDelivery
from newsletter.models.transition import Subject

from .base import HistoryAdmin


@admin.register(EmailDelivery)
class EmailDeliveryAdmin(HistoryAdmin):
    subject = Subject.DELIVERY
    list_display = ["id", "issue", "address", "status", "reason", "attempt", "settled_at"]
    list_select_related = ["issue"]
    list_filter = ["status", ("issue", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["address__startswith"]
    search_help_text = "The beginning of an address"
    ordering = ["-id"]
    list_per_page = 25  # half of this page's time is rows; it must be quick while the ledger drains
    exclude = ["address_key"]
    change_form_template = "admin/delivery/delivery.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmailDelivery]:
        """Without the issue's text, which would come again with each row."""
        return super().get_queryset(request).defer("issue__markdown", "issue__snapshot")
