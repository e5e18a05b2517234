"""The ledger: one row for each recipient of an issue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from delivery.moves import Move, Need
from newsletter.models import Issue, Subscription, Suppression

from .house import House
from .lease import Lease


class DeliveryStatus(models.TextChoices):
    PENDING = "pending"  # owed; nothing of it can have been accepted
    SENDING = "sending"  # marked before the first byte that could lead to acceptance
    SENT = "sent"  # a well-formed 2xx after the end of DATA
    FAILED = "failed"  # refused for good, attempts spent, or expired
    UNKNOWN = "unknown"  # nobody can tell; never resent automatically
    SKIPPED = "skipped"  # unsubscribed, suppressed or cancelled before the wire


OPEN = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)

Facts = Mapping[str, Any]


def _lease(facts: Facts) -> Q:
    lease: Lease = facts["lease"]
    return Q(Exists(lease.mine().held().filter(fence=lease.fence)))


def _consent(facts: Facts) -> Q:
    confirmed = Subscription.objects.filter(pk=OuterRef("subscription_id"), state="confirmed")
    suppressed = Suppression.objects.filter(address_key=OuterRef("address_key"))
    return Q(Exists(confirmed), ~Exists(suppressed))


def _may_send(facts: Facts) -> Q:
    free = Issue.objects.may_send().filter(pk=OuterRef("issue_id"))
    return Q(Exists(free), ~Exists(House.objects.held()))


def _orphaned(facts: Facts) -> Q:
    alive = Lease.objects.held().filter(pk=OuterRef("sender_id"), fence=OuterRef("fence"))
    return Q(~Exists(alive), sender__isnull=False)


def _cancelled(facts: Facts) -> Q:
    return Q(Exists(Issue.objects.filter(pk=OuterRef("issue_id"), state="cancelled")))


def _late(facts: Facts) -> Q:
    """Frozen, or resent where that was later, `before` that time."""
    before = facts["before"]
    frozen = Issue.objects.filter(pk=OuterRef("issue_id"), audience_frozen_at__lte=before)
    return Q(resent_at__lte=before) | Q(Exists(frozen), resent_at=None)


def _given(facts: Facts) -> Q:
    """Not the row's to know: who calls the move has it, and history names it."""
    return Q()


def _spent(facts: Facts) -> Q:
    return Q(**facts["spent"])


# The SQL of each need of the table.
CONDITIONS: dict[Need, Callable[[Facts], Q]] = {
    Need.LEASE: _lease,
    Need.DUE: lambda facts: Q(next_attempt_at=None) | Q(next_attempt_at__lte=Now()),
    Need.CONSENT: _consent,
    Need.NO_CONSENT: lambda facts: ~_consent(facts),
    Need.MAY_SEND: _may_send,
    Need.ATTEMPT: lambda facts: Q(attempt=facts["attempt"]),
    Need.CANCELLED: _cancelled,
    Need.NOT_CANCELLED: lambda facts: ~_cancelled(facts),
    Need.ORPHANED: _orphaned,
    Need.SPENT: _spent,
    Need.LATE: _late,
    Need.EVIDENCE: _given,
    Need.OPERATOR: _given,
}


def legal(move: Move, facts: Facts) -> Q:
    """The condition that the table sets for a move."""
    needs = sorted(move.needs, key=lambda need: need.name)
    return Q(*(CONDITIONS[need](facts) for need in needs), status__in=move.old)


class EmailDeliveryQuerySet(models.QuerySet["EmailDelivery"]):
    def of(self, issue_id: int) -> EmailDeliveryQuerySet:
        return self.filter(issue_id=issue_id)

    def pending(self) -> EmailDeliveryQuerySet:
        return self.filter(status=DeliveryStatus.PENDING)

    def due(self) -> EmailDeliveryQuerySet:
        return self.filter(CONDITIONS[Need.DUE]({}))

    def open_to(self, move: Move, **facts: Any) -> EmailDeliveryQuerySet:
        """The rows for which the move is legal now. `facts`: what its needs ask for (`lease`, `attempt`...)."""
        return self.filter(legal(move, facts))

    def count_by_status(self) -> dict[str, int]:
        """A fresh count; every status is named."""
        counted = dict(self.values_list("status").annotate(n=models.Count("*")).order_by())
        return {status: counted.get(status, 0) for status in DeliveryStatus.values}


class EmailDelivery(models.Model):
    issue = models.ForeignKey(Issue, models.PROTECT, db_index=False)
    # Two references that the database does not check: at a freeze of 1,000,000 that took as long as the freeze itself,
    # and with each START a look at the lease. A row whose subscription is gone has no consent, and is not sent.
    subscription = models.ForeignKey(Subscription, models.SET_NULL, null=True, db_constraint=False)
    address = models.CharField(max_length=254, blank=True)
    address_key = models.CharField(max_length=64)  # outlives the erasure of the address
    name = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=10, choices=DeliveryStatus)
    reason = models.CharField(max_length=100, blank=True)
    reply = models.CharField(
        max_length=500, blank=True
    )  # the other side's last words, addresses removed
    attempt = models.PositiveIntegerField(
        default=0
    )  # goes up with each `sending`; a result names its own
    attempts_spent = models.PositiveSmallIntegerField(default=0)
    dot_refusals = models.PositiveSmallIntegerField(
        default=0
    )  # 4xx at the dot; five of them fail the row
    resend_no = models.PositiveSmallIntegerField(default=0)  # an operator's recorded resends
    resent_at = models.DateTimeField(null=True, blank=True)  # its time begins anew
    provider_message_id = models.CharField(max_length=200, blank=True)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    sender = models.ForeignKey(
        Lease, models.SET_NULL, null=True, db_index=False, db_constraint=False
    )
    fence = models.BigIntegerField(null=True)
    sending_at = models.DateTimeField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)

    objects = EmailDeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "email deliveries"
        constraints = [
            # P1 begins here: one row for each (issue, address).
            models.UniqueConstraint(name="delivery_once", fields=["issue", "address_key"]),
            models.CheckConstraint(
                name="delivery_status_is_known", condition=Q(status__in=DeliveryStatus.values)
            ),
            models.CheckConstraint(
                name="delivery_sending_is_fenced",
                condition=~Q(status="sending")
                | Q(fence__isnull=False, attempt__gt=0, sending_at__isnull=False),
            ),
        ]
        indexes = [
            # The books: count by status of one issue; the claim, and the admin's filter, in the order of the ids.
            models.Index(fields=["issue", "status", "id"], name="delivery_books"),
            # The recovery: rows in somebody's hands.
            models.Index(
                fields=["sender", "status"],
                condition=Q(sender__isnull=False),
                name="delivery_in_hands",
            ),
            # When is the next retry of an issue due.
            models.Index(
                fields=["issue", "next_attempt_at"],
                condition=Q(status="pending", next_attempt_at__isnull=False),
                name="delivery_retry",
            ),
            # A provider's event that names only its own message.
            models.Index(
                fields=["provider_message_id"],
                condition=~Q(provider_message_id=""),
                name="delivery_provider_message",
            ),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk}: {self.status}"
