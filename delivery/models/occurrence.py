"""One due time of a schedule: the row that lets it run once on any number of hosts."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from newsletter.models import Issue, Newsletter


class Occurrence(models.Model):
    schedule = models.CharField(max_length=30)
    newsletter = models.ForeignKey(Newsletter, models.CASCADE, null=True)  # none: of the house
    due_utc = models.DateTimeField()
    noticed_at = models.DateTimeField(db_default=Now())
    issue = models.ForeignKey(Issue, models.SET_NULL, null=True, blank=True)  # what it started
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="occurrence_once", fields=["schedule", "newsletter", "due_utc"]
            ),
            models.UniqueConstraint(
                name="occurrence_of_the_house_once",
                fields=["schedule", "due_utc"],
                condition=models.Q(newsletter=None),
            ),
        ]
        indexes = [models.Index(fields=["due_utc"], name="occurrence_prune")]

    def __str__(self) -> str:
        return f"{self.schedule} {self.due_utc:%Y-%m-%d %H:%M}Z"
