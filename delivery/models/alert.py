"""An alert that is up, or was: raised once, and cleared once."""

from __future__ import annotations

from django.db import models


class Alert(models.Model):
    name = models.CharField(
        max_length=100, unique=True
    )  # what it watches, such as "failures:publish"
    raised_at = models.DateTimeField(null=True, blank=True)  # empty: all is well
    times = models.PositiveIntegerField(default=0)  # how often it was raised
    detail = models.CharField(max_length=500, blank=True)

    def __str__(self) -> str:
        return f"{self.name}: {'raised' if self.raised_at else 'clear'}"
