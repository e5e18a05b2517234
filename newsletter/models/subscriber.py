"""One person, one address."""

from __future__ import annotations

from django.db import models


class Subscriber(models.Model):
    address = models.CharField(max_length=254, blank=True, help_text="Empty once erased.")
    address_key = models.CharField(max_length=64, unique=True, editable=False)
    name = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["address"], name="subscriber_address")
        ]  # the admin's search

    def __str__(self) -> str:
        return self.address or f"erased subscriber {self.pk}"
