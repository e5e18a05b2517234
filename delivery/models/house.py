"""What holds for all newsletters at once: the number of releases, and whether anything may leave at all."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class HouseQuerySet(models.QuerySet["House"]):
    def held(self) -> HouseQuerySet:
        return self.filter(Q(paused_at__isnull=False) | ~Q(doubt=""))


class House(models.Model):
    """One row at most; none is a house where nothing was released or held yet."""

    # Raised before a first byte; a witness outside has it too, under the identity.
    releases = models.BigIntegerField(default=0)
    identity = models.CharField(max_length=32, blank=True)
    paused_at = models.DateTimeField(null=True)
    paused_reason = models.CharField(max_length=500, blank=True)
    paused_by = models.CharField(max_length=150, blank=True)
    doubt = models.CharField(max_length=500, blank=True)  # why this database is not believed
    doubted_at = models.DateTimeField(null=True)

    objects = HouseQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(name="house_is_one", condition=Q(pk=1)),
        ]
        permissions = [("hold_house", "Can pause and resume everything")]

    def __str__(self) -> str:
        return f"{self.releases} releases"

    @classmethod
    def read(cls) -> House:
        return cls.objects.filter(pk=1).first() or cls(pk=1)

    @classmethod
    def lock(cls) -> House:
        """The row, made where there is none, locked in the caller's transaction."""
        return cls.objects.select_for_update().get_or_create(pk=1)[0]

    @classmethod
    def named(cls) -> House:
        """The row with its identity, made where it has none."""
        cls.objects.get_or_create(pk=1)
        cls.objects.filter(pk=1, identity="").update(identity=uuid.uuid4().hex)
        return cls.read()

    @property
    def is_held(self) -> bool:
        """Nothing starts: somebody paused everything, or the database may be an old one."""
        return self.paused_at is not None or bool(self.doubt)

    @property
    def why_held(self) -> str:
        return self.doubt or (self.paused_reason if self.paused_at else "")

    @property
    def standing(self) -> str:
        """In one word, as history has it."""
        return "doubted" if self.doubt else "paused" if self.paused_at else "open"
