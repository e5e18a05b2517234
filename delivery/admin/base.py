"""Rows that are shown and not edited: the ledger, the jobs, the history."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from newsletter.models import Transition
from newsletter.models.transition import Subject

LINES = 200  # of a row's history on its page


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
        told = history(self.subject, int(object_id)) if object_id.isdecimal() else {}
        return super().change_view(request, object_id, form_url, told)


def history(subject: Subject, id: int) -> dict[str, Any]:
    """For `history.html`: the newest `LINES` lines in their order, and whether older ones are left out."""
    rows = list(Transition.objects.of(subject, id).order_by("-id")[: LINES + 1])
    return {"transitions": rows[:LINES][::-1], "is_history_cut": len(rows) > LINES}
