"""Which rows a sender reads ahead: a stretch of ids, written to its lease.

It keeps the senders of an issue out of each other's way, and spares each row a write of its own. It decides nothing:
whose a row is, and whether it may go, is said by START alone. A claim ends with its lease.
"""

from __future__ import annotations

from django.db import transaction

from newsletter.models.gate import queue_for_claims

from .copies import Row, rows_of
from .models import EmailDelivery, Lease
from .models.email_delivery import EmailDeliveryQuerySet

SENDERS = "sender:"  # what their leases' names begin with
# Ids between the first and the last of a claim, at most: what lies between is hidden from others, also what it has not.
WIDEST = 10_000


def lease_name(issue_id: int, slot: int) -> str:
    """Of the sender in this slot of the issue."""
    return f"{SENDERS}{issue_id}:{slot}"


def unclaimed(issue_id: int, lease: Lease | None = None) -> EmailDeliveryQuerySet:
    """The issue's rows that are pending, and that no living sender, but for the holder of `lease`, has read ahead."""
    rows = EmailDelivery.objects.of(issue_id).pending()
    claims = Lease.objects.held().filter(name__startswith=f"{SENDERS}{issue_id}:")
    others = claims.exclude(pk=lease.pk) if lease else claims
    for stretch in others.exclude(claim_first=None).values_list("claim_first", "claim_last"):
        rows = rows.exclude(id__range=stretch)
    return rows


def claim(issue_id: int, lease: Lease, after: int, limit: int) -> list[Row] | None:
    """The next rows that are due, in the order of their ids, in place of those that it had. None: the lease is over."""
    with transaction.atomic():
        queue_for_claims(issue_id)
        free = unclaimed(issue_id, lease).due().filter(id__gt=after)
        found = rows_of(free.order_by("id")[:limit])
        rows = [row for row in found if row.id < found[0].id + WIDEST]
        first, last = (rows[0].id, rows[-1].id) if rows else (None, None)
        alive = lease.mine().held().update(claim_first=first, claim_last=last)
        return rows if alive else None
