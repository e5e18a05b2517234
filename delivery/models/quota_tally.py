"""How many messages a channel started, by the ten minutes: what a quota a day is counted from."""

from __future__ import annotations

from django.db import models


class QuotaTally(models.Model):
    channel = models.CharField(max_length=30)
    at = models.DateTimeField()  # the beginning of its ten minutes
    started = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="quota_tally_once", fields=["at", "channel"]),
        ]

    def __str__(self) -> str:
        return f"{self.channel}: {self.started}"
