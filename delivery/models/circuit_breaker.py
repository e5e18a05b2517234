"""Whether an outside service is worth asking just now: one row for each, shared by all workers."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class BreakerState(models.TextChoices):
    CLOSED = "closed"  # work goes through
    OPEN = "open"  # nobody asks before `until`
    HALF_OPEN = "half-open"  # one probe is on its way, under a lease


class CircuitBreaker(models.Model):
    name = models.CharField(max_length=100, unique=True)
    state = models.CharField(max_length=10, choices=BreakerState, default=BreakerState.CLOSED)
    failures = models.PositiveIntegerField(default=0)  # in a row
    opened = models.PositiveIntegerField(default=0)  # in a row: each time for longer
    reason = models.CharField(max_length=500, blank=True)
    until = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="breaker_open_has_until",
                condition=Q(state="closed") | Q(until__isnull=False) & ~Q(reason=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.state}"
