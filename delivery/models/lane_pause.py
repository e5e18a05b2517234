"""A lane that an operator holds: its jobs stay queued."""

from __future__ import annotations

from django.db import models

from .job import Lane


class LanePause(models.Model):
    lane = models.CharField(max_length=10, choices=Lane, unique=True)
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    since = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.lane} paused by {self.actor}"
