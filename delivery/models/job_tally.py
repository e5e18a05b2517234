"""How often jobs ended in which way, and how long they took: a row for each name, outcome and minute."""

from __future__ import annotations

from django.db import models

# Upper bounds of the durations' histogram, in seconds; beyond the last is `over`.
BOUNDS = (0.05, 0.25, 1.0, 5.0, 30.0, 120.0)
BUCKETS = ("to_50_ms", "to_250_ms", "to_1_s", "to_5_s", "to_30_s", "to_120_s", "over")


class Ending(models.TextChoices):
    """How a run ended. The alert's failures are `retried`, `degraded`, `crashed` and `dead`."""

    DONE = "done"
    WAITING = "waiting"  # expected: once more later
    DELAYED = "delayed"  # by an open breaker
    RETRIED = "retried"
    DEGRADED = "degraded"  # spent, and its policy knew how to go on
    CRASHED = "crashed"  # its worker died or was lost
    DISCARDED = "discarded"
    DEAD = "dead"


class JobTally(models.Model):
    name = models.CharField(max_length=50)
    ending = models.CharField(max_length=10, choices=Ending)
    at = models.DateTimeField()  # the minute; old ones are added up into one row at the epoch
    runs = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField(default=0)  # in all
    items = models.PositiveBigIntegerField(default=0)  # what they moved: mails of a sender
    to_50_ms = models.PositiveBigIntegerField(default=0)
    to_250_ms = models.PositiveBigIntegerField(default=0)
    to_1_s = models.PositiveBigIntegerField(default=0)
    to_5_s = models.PositiveBigIntegerField(default=0)
    to_30_s = models.PositiveBigIntegerField(default=0)
    to_120_s = models.PositiveBigIntegerField(default=0)
    over = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="job_tally_once", fields=["at", "name", "ending"])
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.ending} {self.at:%Y-%m-%d %H:%M}"
