"""A sign of life from a lane of one `work`, written by a worker of that lane."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models

TICK = "tick"  # not a lane: the minute tick's own row, one for each host
WITNESS = "witness"  # nor this: this host has compared the database with its witness


class HeartbeatQuerySet(models.QuerySet["Heartbeat"]):
    def fresh(self, now: datetime) -> HeartbeatQuerySet:
        """Those of a pool that lives; `now` is database_now(). One whose workers are all in a sender's turn cannot
        answer before its end."""
        seconds = settings.WATCHDOG_SECONDS + settings.SENDER_SECONDS
        return self.filter(at__gt=now - timedelta(seconds=seconds))


class Heartbeat(models.Model):
    work = models.CharField(max_length=100)  # which `work`: host:pid of its supervisor
    lane = models.CharField(max_length=10)
    at = models.DateTimeField()
    # Of the tick: the host's monotonic clock at `at`, and the boot that it counts from. They tell when the
    # database's clock was set.
    monotonic = models.FloatField(null=True)
    boot = models.CharField(max_length=36, blank=True)

    objects = HeartbeatQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(name="heartbeat_once", fields=["work", "lane"])]

    def __str__(self) -> str:
        return f"{self.work} {self.lane}"
