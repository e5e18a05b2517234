"""An address that must not be mailed, and why."""

from __future__ import annotations

from django.db import models, transaction

from .gate import queue_for_house


class SuppressionReason(models.TextChoices):
    BAD_ADDRESS = "bad_address"  # the server said that there is no such mailbox (5.1.x)
    COMPLAINT = "complaint"  # the reader called it spam
    OPERATOR = "operator"  # somebody here decided it


class SuppressionManager(models.Manager["Suppression"]):
    def add(self, address_key: str, reason: str, detail: str = "") -> bool:
        """Never mail it again: after the commit only rows that are already `sending` go out. False: it was known."""
        with transaction.atomic():
            queue_for_house()
            values = {"reason": reason, "detail": detail[:500]}
            _, created = self.get_or_create(address_key=address_key, defaults=values)
        return created


class Suppression(models.Model):
    """Kept by the address's keyed hash, so that it outlives the erasure of the person."""

    address_key = models.CharField(max_length=64, unique=True)
    reason = models.CharField(max_length=20, choices=SuppressionReason)
    detail = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SuppressionManager()

    class Meta:
        indexes = [
            # The admin's list by reason.
            models.Index(fields=["reason", "id"], name="suppression_reason")
        ]

    def __str__(self) -> str:
        return f"{self.reason} since {self.created_at:%Y-%m-%d}"
