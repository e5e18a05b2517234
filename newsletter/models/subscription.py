"""Subscriber x newsletter, with its consent."""

from __future__ import annotations

from django.db import models, transaction
from django.db.models import Q

from newsletter.signals import confirmation_requested, consent_withdrawn
from newsletter.tokens import new_token

from .clock import database_now
from .gate import queue_for_house
from .issue import Refused
from .newsletter import Newsletter
from .subscriber import Subscriber
from .transition import Subject, Transition

BY_LINK = "confirmed by link"  # the button behind the link of our mail


class SubscriptionState(models.TextChoices):
    PENDING = "pending"  # asked to join, did not confirm yet
    CONFIRMED = "confirmed"  # is mailed
    UNSUBSCRIBED = "unsubscribed"  # said no; only the person can take it back


class Subscription(models.Model):
    subscriber = models.ForeignKey(Subscriber, models.CASCADE)
    newsletter = models.ForeignKey(Newsletter, models.CASCADE, db_index=False)
    state = models.CharField(max_length=12, choices=SubscriptionState)
    # In the links of the mails; stored, so that they work after a deploy or a rotated key.
    token = models.CharField(max_length=43, unique=True, default=new_token, editable=False)
    consent_source = models.CharField(max_length=200)
    consent_at = models.DateTimeField(null=True, blank=True)
    unsubscribed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="subscription_once", fields=["subscriber", "newsletter"]),
            models.CheckConstraint(
                name="subscription_confirmed_has_consent",
                condition=~Q(state="confirmed") | Q(consent_at__isnull=False),
            ),
        ]
        indexes = [
            # The freeze: everybody of one newsletter who is mailed. The admin's list by newsletter and state.
            models.Index(fields=["newsletter", "state", "id"], name="subscription_standing"),
            # The admin's list by one of them.
            models.Index(fields=["newsletter", "id"], name="subscription_newsletter"),
            models.Index(fields=["state", "id"], name="subscription_state"),
        ]

    def __str__(self) -> str:
        return f"{self.newsletter}: {self.state}"

    def ask_to_confirm(self, *, actor: str) -> bool:
        """Have a pending one's person asked by mail; False where they were asked just now, or too often today."""
        self.refresh_from_db()
        if self.state != SubscriptionState.PENDING:
            raise Refused(f"Subscription {self.pk} is {self.state}: there is nothing to confirm.")
        with transaction.atomic():
            answers = confirmation_requested.send(Subscription, subscription_id=self.pk)
            asked = any(answer for _, answer in answers)
            if asked:
                self._note("pending", "asked to confirm", actor)
        return asked

    def confirm(self, *, actor: str) -> bool:
        """pending -> confirmed, by the person's own word; False where it was not pending any more."""
        with transaction.atomic():
            moved = Subscription.objects.filter(pk=self.pk, state=SubscriptionState.PENDING).update(
                state=SubscriptionState.CONFIRMED,
                consent_source=BY_LINK,
                consent_at=database_now(),
            )
            if moved:
                self._note("confirmed", BY_LINK, actor)
        self.refresh_from_db()
        return bool(moved)

    def unsubscribe(self, *, actor: str, reason: str) -> bool:
        """Withdraw the consent; False where that was done before. Never undone by an import.

        After the commit only rows that are already `sending` go out.
        """
        with transaction.atomic():
            queue_for_house()
            moved = (
                Subscription.objects.filter(pk=self.pk)
                .exclude(state=SubscriptionState.UNSUBSCRIBED)
                .update(state=SubscriptionState.UNSUBSCRIBED, unsubscribed_at=database_now())
            )
            if not moved:
                return False
            Transition.objects.record(
                Subject.SUBSCRIPTION, [self.pk], self.state, "unsubscribed", reason, actor
            )
            consent_withdrawn.send(Subscription, subscription_id=self.pk)
        self.refresh_from_db()
        return True

    def _note(self, new: str, reason: str, actor: str) -> None:
        Transition.objects.record(Subject.SUBSCRIPTION, [self.pk], "pending", new, reason, actor)
