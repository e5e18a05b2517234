"""One notice for one channel: told at most once, never resent when nobody knows."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from newsletter.models import Issue


class NotificationState(models.TextChoices):
    PENDING = "pending"
    SENDING = "sending"  # marked before the first byte; stays so where the worker died
    SENT = "sent"
    FAILED = "failed"


class Notification(models.Model):
    key = models.CharField(max_length=150)  # the event that it tells
    channel = models.CharField(max_length=20)
    issue = models.ForeignKey(Issue, models.CASCADE, null=True, blank=True)
    notice = models.JSONField()
    state = models.CharField(
        max_length=10, choices=NotificationState, default=NotificationState.PENDING
    )
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="notification_once", fields=["key", "channel"]),
            models.CheckConstraint(
                name="notification_state_is_known",
                condition=Q(state__in=NotificationState.values),
            ),
        ]
        indexes = [models.Index(fields=["created_at"], name="notification_prune")]

    def __str__(self) -> str:
        return f"{self.key} to {self.channel}: {self.state}"
