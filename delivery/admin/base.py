"""Rows that are shown and not edited: the ledger, the jobs, the history."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from newsletter.models import Transition
from newsletter.models.transition import Subject


class ReadOnlyAdmin(admin.ModelAdmin):
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class HistoryAdmin(ReadOnlyAdmin):
    """A row's page shows its history below it."""

    subject: Subject

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        rows = (
            Transition.objects.of(self.subject, int(object_id))
            if object_id.isdecimal()
            else Transition.objects.none()
        )
        return super().change_view(request, object_id, form_url, {"transitions": rows})
