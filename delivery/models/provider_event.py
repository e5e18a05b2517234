"""What a provider told of a message afterwards, as it came in."""

from __future__ import annotations

from django.db import models

from .email_delivery import EmailDelivery


class EventKind(models.TextChoices):
    SENT = "sent"  # the provider has taken it over
    DELIVERED = "delivered"  # the recipient's server has
    DEFERRED = "deferred"
    BOUNCED = "bounced"  # for good
    REJECTED = "rejected"  # the provider did not send it
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    OTHER = "other"  # opens, clicks: kept raw, never applied


class ProviderEvent(models.Model):
    """Kept once by the provider's own key of it, however often it is told."""

    provider = models.CharField(max_length=20)
    event_key = models.CharField(
        max_length=64
    )  # SHA-256 of the provider's id, or of the whole event
    kind = models.CharField(max_length=15, choices=EventKind)
    delivery = models.ForeignKey(EmailDelivery, models.SET_NULL, null=True)
    provider_message_id = models.CharField(max_length=200, blank=True)
    raw = models.TextField()
    occurred_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(auto_now_add=True)
    applied_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=500, blank=True)  # what it changed, or why nothing

    class Meta:
        constraints = [
            models.UniqueConstraint(name="provider_event_once", fields=["provider", "event_key"]),
        ]
        indexes = [
            # The job that applies what came in.
            models.Index(
                fields=["id"],
                condition=models.Q(applied_at__isnull=True),
                name="provider_event_new",
            ),
            # The prune.
            models.Index(fields=["received_at"], name="provider_event_age"),
        ]

    def __str__(self) -> str:
        return f"{self.provider}: {self.kind}"
