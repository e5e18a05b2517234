"""History: every change of state is a row."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models
from django.db.models.functions import Now


class Subject(models.TextChoices):
    ISSUE = "issue"
    DELIVERY = "delivery"
    JOB = "job"
    SUBSCRIPTION = "subscription"
    HOUSE = "house"  # there is one: its id is 1


class TransitionQuerySet(models.QuerySet["Transition"]):
    def of(self, subject: Subject, subject_id: int) -> TransitionQuerySet:
        return self.filter(subject=subject, subject_id=subject_id).order_by("id")

    def record(
        self, subject: Subject, ids: Iterable[int], old: str, new: str, reason: str, actor: str
    ) -> None:
        """One row for each id; called in the transaction of the change itself."""
        self.bulk_create(
            (
                Transition(
                    subject=subject,
                    subject_id=id,
                    old=old,
                    new=new,
                    reason=reason[:500],
                    actor=actor[:150],
                )
                for id in ids
            ),
            batch_size=1000,
        )


class Transition(models.Model):
    """What changed, from what to what, why, by whom, and when."""

    subject = models.CharField(max_length=16, choices=Subject)
    subject_id = models.BigIntegerField()
    old = models.CharField(max_length=32)
    new = models.CharField(max_length=32)
    reason = models.CharField(max_length=500, blank=True)
    actor = models.CharField(max_length=150)
    at = models.DateTimeField(db_default=Now())

    objects = TransitionQuerySet.as_manager()

    class Meta:
        indexes = [
            # The history of one subject, in order (an issue's page).
            models.Index(fields=["subject", "subject_id", "id"], name="transition_subject"),
            # The prune.
            models.Index(fields=["subject", "at"], name="transition_age"),
        ]

    def __str__(self) -> str:
        return f"{self.old} -> {self.new}: {self.reason}"
