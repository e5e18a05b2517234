"""An issue's copies: from the compiled issue and a row of the ledger to what a transport takes."""

from __future__ import annotations

from typing import NamedTuple

from django.conf import settings

from .message import Recipient, message_id, stamped
from .models import CompiledIssue, EmailDelivery
from .models.email_delivery import EmailDeliveryQuerySet
from .transports import Envelope


class Row(NamedTuple):
    """A row of the ledger: all that its bytes depend on, beside the compiled issue."""

    id: int
    address: str
    name: str
    token: str
    resend_no: int = 0


# What a Row is read from, in its order.
ROW_FIELDS = ("id", "address", "name", "subscription__token", "resend_no")


class Copies:
    """The same row gives the same bytes, in each attempt, also after a deploy."""

    def __init__(self, compiled: CompiledIssue) -> None:
        self._message = compiled.message
        self._mail_from = compiled.mail_from
        self._links = f"{settings.PUBLIC_URL}/u/"

    def envelope(self, row: Row) -> Envelope:
        """Raises ValueError, without the address, where the copy cannot be made."""
        url = f"{self._links}{row.token}/"
        copy = stamped(self._message, Recipient(row.id, row.address, row.name, url))
        key = f"{self._message.nonce}-{row.id}-{row.resend_no}"
        return Envelope(
            self._mail_from, copy.address, copy.data, key, row.id, wire_ready=copy.wire_ready
        )

    def message_id(self, delivery_id: int) -> str:
        """The Message-ID of a copy, in angle brackets: what the relays' logs know it by."""
        return message_id(self._message, delivery_id)


def read_rows(ids: list[int]) -> list[Row]:
    """In the order of their ids."""
    return rows_of(EmailDelivery.objects.filter(id__in=ids).order_by("id"))


def rows_of(deliveries: EmailDeliveryQuerySet) -> list[Row]:
    """A row whose subscription is gone has no token."""
    rows = deliveries.values_list(*ROW_FIELDS)
    return [Row(id, address, name, token or "", no) for id, address, name, token, no in rows]
