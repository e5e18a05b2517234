"""How fast a channel may go, shared by all senders on all hosts."""

from __future__ import annotations

from django.db import models


class Rate(models.Model):
    """The generic cell rate algorithm's one number: when the next message is due at the earliest."""

    channel = models.CharField(max_length=30, unique=True)
    next_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.channel
