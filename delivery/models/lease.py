"""A named claim with owner token, fence number and expiry, by the database's clock."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from newsletter.models import database_now, update_returning


class LeaseQuerySet(models.QuerySet["Lease"]):
    def over(self, now: datetime) -> LeaseQuerySet:
        return self.filter(expires_at__lte=now)

    def held(self) -> LeaseQuerySet:
        return self.filter(expires_at__gt=Now())


class Lease(models.Model):
    name = models.CharField(max_length=100, unique=True)
    token = models.CharField(max_length=32, blank=True)
    fence = models.BigIntegerField(
        default=0
    )  # one more for each owner: the rows that it marks carry it
    holder = models.CharField(max_length=100, blank=True)  # host:pid, for people
    expires_at = models.DateTimeField()
    # The ids between which a sender has read rows ahead (delivery/claims.py); void once the lease is over.
    claim_first = models.BigIntegerField(null=True)
    claim_last = models.BigIntegerField(null=True)

    objects = LeaseQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name} #{self.fence}"

    @classmethod
    def acquire(cls, name: str) -> Lease | None:
        """The lease, or None while somebody else holds it."""
        now = database_now()
        cls.objects.bulk_create([cls(name=name, expires_at=now)], ignore_conflicts=True)
        won = update_returning(
            cls.objects.filter(name=name).over(now),
            ("id", "fence"),
            token=(token := secrets.token_hex(16)),
            fence=models.F("fence") + 1,
            holder=f"{socket.gethostname()}:{os.getpid()}"[:100],
            expires_at=now + timedelta(seconds=settings.LEASE_SECONDS),
            claim_first=None,
            claim_last=None,
        )
        if not won:
            return None
        return cls(id=won[0][0], name=name, token=token, fence=won[0][1])

    def renew(self) -> bool:
        """False: it is over or another's; its holder starts no new step."""
        until = database_now() + timedelta(seconds=settings.LEASE_SECONDS)
        return bool(self.mine().held().update(expires_at=until))

    def release(self) -> None:
        """Free it, if it is still ours: the loser frees nothing."""
        nothing = {"claim_first": None, "claim_last": None}
        self.mine().update(token="", expires_at=database_now(), **nothing)

    def mine(self) -> LeaseQuerySet:
        return Lease.objects.filter(pk=self.pk, token=self.token)
