"""The episode that belongs to an issue, or the wait for it."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q

from newsletter.rendering import PodcastSlot

from .issue import Issue
from .newsletter import Newsletter


class PodcastState(models.TextChoices):
    WAITING = "waiting"  # asked again until the count or the clock ends it
    READY = "ready"  # came in time: in the mail and in the post
    MISSED = "missed"  # given up: the mail goes without; the post may still get it
    LATE = "late"  # came after all: in the post only


class Podcast(models.Model):
    issue = models.OneToOneField(Issue, models.CASCADE)
    newsletter = models.ForeignKey(Newsletter, models.CASCADE)
    state = models.CharField(max_length=10, choices=PodcastState, default=PodcastState.WAITING)
    waiting_since = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    last_answer = models.CharField(max_length=500, blank=True)
    key = models.CharField(max_length=500, blank=True)
    title = models.CharField(max_length=300, blank=True)
    url = models.CharField(max_length=2000, blank=True)
    duration_seconds = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            # An episode used once is never used again.
            models.UniqueConstraint(
                name="podcast_episode_once", fields=["newsletter", "key"], condition=~Q(key="")
            ),
            models.CheckConstraint(
                name="podcast_found_has_url",
                condition=Q(state__in=["waiting", "missed"]) | ~Q(key="") & ~Q(url=""),
            ),
        ]

    def __str__(self) -> str:
        return self.title or self.state

    @property
    def slot(self) -> PodcastSlot | None:
        """What fills the slot of the mail and of the post, once there is an episode."""
        if not self.key:
            return None
        return PodcastSlot(self.title, self.url, self.duration_seconds)

    def waited(self, now: datetime) -> float:
        """Seconds since the wait began."""
        return (now - self.waiting_since).total_seconds()
