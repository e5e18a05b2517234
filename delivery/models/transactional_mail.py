"""One mail to one person that they wait for: a confirmation, a test. Delivered at least once."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from newsletter.models import Issue, Subscription


class MailKind(models.TextChoices):
    CONFIRMATION = "confirmation"  # of a subscription
    TEST = "test"  # of an issue


class MailState(models.TextChoices):
    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"  # refused for good, or not taken before its wall-clock end
    DROPPED = "dropped"  # not wanted any more


class TransactionalMail(models.Model):
    kind = models.CharField(max_length=12, choices=MailKind)
    address = models.CharField(max_length=254)
    subscription = models.ForeignKey(Subscription, models.CASCADE, null=True, blank=True)
    issue = models.ForeignKey(Issue, models.CASCADE, null=True, blank=True)
    state = models.CharField(max_length=10, choices=MailState, default=MailState.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    nonce = models.CharField(max_length=24)  # of the Message-ID: the same in each attempt
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)  # the first attempt
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="transactional_has_its_subject",
                condition=Q(kind="confirmation", subscription__isnull=False)
                | Q(kind="test", issue__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["created_at"], name="transactional_prune")]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}: {self.state}"
