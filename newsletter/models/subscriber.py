"""One person, one address."""

from __future__ import annotations

from django.db import connection, models
from django.db.models import F, OrderBy

BEYOND = chr(0x10FFFF)  # after every address that begins alike


class ByBytes(OrderBy):
    """The order of PostgreSQL's pattern operators, and so of an index that serves a LIKE."""

    template = "%(expression)s USING ~<~ /* ASC */"  # Django looks for one of the two words


class SubscriberQuerySet(models.QuerySet["Subscriber"]):
    def beginning_with(self, typed: str) -> SubscriberQuerySet:
        """Those whose address begins so, in the order of the one index that can find them."""
        if connection.vendor == "sqlite":  # its LIKE uses no index
            return self.filter(address__gte=typed, address__lt=typed + BEYOND).order_by("address")
        return self.filter(address__startswith=typed).order_by(ByBytes(F("address")))


class Subscriber(models.Model):
    address = models.CharField(max_length=254, blank=True, help_text="Empty once erased.")
    address_key = models.CharField(max_length=64, unique=True, editable=False)
    name = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SubscriberQuerySet.as_manager()

    class Meta:
        indexes = [
            # The admin's search by the beginning of an address; a plain index serves no LIKE in most collations.
            models.Index(
                fields=["address"], opclasses=["varchar_pattern_ops"], name="subscriber_beginning"
            ),
        ]

    def __str__(self) -> str:
        return self.address or f"erased subscriber {self.pk}"
