from __future__ import annotations

from django.apps import apps
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from delivery.models import Job, Lease, Notification, Occurrence
from delivery.queue import retry_dead

from .base import ReadOnlyAdmin

# A schedule of django-q2's names any function to call: nobody types one here. The jobs are ours to show.
for model in apps.get_app_config("django_q").get_models():
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ["key", "state", "lane", "due_at", "runs", "failures", "note"]
    list_filter = ["state", "lane", "name"]
    ordering = ["-id"]
    exclude = ["token"]
    actions = ("queue_again",)

    @admin.action(description="Queue the selected dead jobs again", permissions=["queue"])
    def queue_again(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        queued = sum(retry_dead(row) for row in rows.filter(state="dead")[:200])
        self.message_user(request, f"{queued} jobs were queued again.", messages.SUCCESS)

    def has_queue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("delivery.change_job")


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ["name", "holder", "fence", "expires_at"]
    exclude = ["token"]
    ordering = ["-expires_at"]


@admin.register(Occurrence)
class OccurrenceAdmin(ReadOnlyAdmin):
    list_display = ["schedule", "newsletter", "due_utc", "issue", "note"]
    list_filter = ["schedule"]
    list_select_related = ["newsletter", "issue"]
    ordering = ["-id"]


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ["key", "channel", "state", "created_at", "note"]
    list_filter = ["state", "channel"]
    ordering = ["-id"]
