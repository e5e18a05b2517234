"""A durable unit of work: its row, its claim, its finish."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from delivery import identity
from newsletter.models import Issue, Transition, database_now, update_returning
from newsletter.models.gate import queue_for_issue
from newsletter.models.transition import Subject

MAX_CRASHES = 3


class Lane(models.TextChoices):
    CRITICAL = "critical"  # confirmations, pause, cancel
    DEFAULT = "default"
    BULK = "bulk"  # sending


class JobState(models.TextChoices):
    QUEUED = "queued"  # due at due_at
    RUNNING = "running"  # under a lease
    DONE = "done"
    DISCARDED = "discarded"  # cannot be done any more, and need not be
    DEAD = "dead"  # gave up; an operator may queue it again


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class JobQuerySet(models.QuerySet["Job"]):
    def unfinished(self) -> JobQuerySet:
        return self.filter(state__in=UNFINISHED, finished_at=None)

    def due(self, now: datetime) -> JobQuerySet:
        """`now` is database_now(): SQLite's own CURRENT_TIMESTAMP has milliseconds and compares as text."""
        return self.filter(state=JobState.QUEUED, due_at__lte=now)

    def held(self) -> JobQuerySet:
        """Under a lease that is not over."""
        return self.filter(lease_until__gt=Now())

    def abandoned(self) -> JobQuerySet:
        """Running under a lease that is over: the worker died or was lost."""
        return self.filter(state=JobState.RUNNING, lease_until__lte=Now())


class Job(models.Model):
    key = models.CharField(max_length=150)
    name = models.CharField(max_length=50)
    args = models.JSONField(default=dict)  # ids and scalars
    issue = models.ForeignKey("newsletter.Issue", models.CASCADE, null=True, blank=True)
    lane = models.CharField(max_length=10, choices=Lane, default=Lane.DEFAULT)
    state = models.CharField(max_length=10, choices=JobState, default=JobState.QUEUED)
    due_at = models.DateTimeField()
    woken_at = models.DateTimeField(
        null=True
    )  # when django-q2 was last told to wake a worker for it
    token = models.CharField(max_length=32, blank=True)
    lease_until = models.DateTimeField(null=True)
    again = models.BooleanField(default=False)  # wanted once more while it was running
    runs = models.PositiveIntegerField(default=0)
    # What went wrong in a row, by exception: {"EdgeError": {"count": 2, "since": "<ISO time>"}}; a success or a
    # wait forgets it.
    troubles = models.JSONField(default=dict)
    error = models.TextField(blank=True)  # the last one, with its place in the code; redacted
    holder = models.CharField(max_length=110, blank=True)  # work/pid of the last worker, for people
    crashes = models.PositiveSmallIntegerField(default=0)
    note = models.CharField(max_length=500, blank=True)  # the last outcome in words
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="job_one_unfinished_a_key",
                fields=["key"],
                condition=Q(state__in=["queued", "running"]),
            ),
            models.CheckConstraint(
                name="job_running_has_lease",
                condition=~Q(state="running") | Q(lease_until__isnull=False) & ~Q(token=""),
            ),
        ]
        indexes = [
            # The sweep: what is due and was not woken.
            models.Index(fields=["due_at"], condition=Q(state="queued"), name="job_due"),
            # The sweep: whose worker is gone.
            models.Index(
                fields=["lease_until"], condition=Q(state="running"), name="job_abandoned"
            ),
            # A lane's depth and its oldest. With the state: SQLite looks up each row for a bound parameter else.
            models.Index(
                fields=["lane", "due_at", "state"], condition=Q(state="queued"), name="job_lane"
            ),
            # The dead letters.
            models.Index(fields=["id"], condition=Q(state="dead"), name="job_dead"),
            # The prune.
            models.Index(
                fields=["finished_at"], condition=Q(finished_at__isnull=False), name="job_ended"
            ),
            # The unfinished one of a key. SQLite does not see that `state IN (?, ?)` is the constraint's condition.
            models.Index(
                fields=["key"], condition=Q(finished_at__isnull=True), name="job_unfinished"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key}: {self.state}"

    @property
    def failures(self) -> int:
        """How often it failed in a row, of all exceptions."""
        return sum(int(trouble["count"]) for trouble in self.troubles.values())

    def claim(self) -> bool:
        """queued -> running, for one caller only and not before it is due."""
        now = database_now()
        won = update_returning(
            Job.objects.due(now).filter(pk=self.pk),
            state=JobState.RUNNING,
            token=(token := secrets.token_hex(16)),
            lease_until=now + timedelta(seconds=settings.LEASE_SECONDS),
            holder=identity.me(),
            started_at=now,
            runs=F("runs") + 1,
            again=False,
        )
        if won:
            self.refresh_from_db()
        return bool(won) and self.token == token

    def renew(self) -> bool:
        """False: the job was taken back; what this run does next may not be applied.

        A lease that is over is renewed where nobody took the job: a clock that was set ends no living worker's run.
        """
        until = database_now() + timedelta(seconds=settings.LEASE_SECONDS)
        return bool(self._mine().update(lease_until=until))

    def finish(self, state: str, note: str) -> bool:
        """running -> done, discarded or dead; False where the token no longer holds."""
        return self._leave(state, note, finished_at=database_now())

    def requeue(self, due_at: datetime, note: str) -> bool:
        """running -> queued; False where the token no longer holds."""
        return self._leave(JobState.QUEUED, note, due_at=due_at, crashes=0)

    def lock_issue(self) -> None:
        """Before the job's own row, as everybody does who wants a job for an issue: else the two can deadlock."""
        if self.issue_id:
            queue_for_issue(self.issue_id)
            rows = Issue.objects.select_for_update(no_key=True).filter(pk=self.issue_id)
            rows.values_list("pk").first()

    def _leave(self, state: str, note: str, **values: Any) -> bool:
        with transaction.atomic():
            won = self._mine().update(
                state=state,
                note=note[:500],
                token="",
                lease_until=None,
                troubles=self.troubles,
                error=self.error,
                **values,
            )
            if won and state == JobState.DEAD:
                self.record(JobState.RUNNING, state, note)
        return bool(won)

    def _mine(self) -> JobQuerySet:
        return Job.objects.filter(pk=self.pk, state=JobState.RUNNING, token=self.token)

    def record(self, old: str, new: str, reason: str, actor: str = "jobs") -> None:
        Transition.objects.record(Subject.JOB, [self.pk], old, new, reason, actor)
