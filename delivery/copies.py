"""An issue's copies: from the compiled issue and a row of the ledger to what a transport takes."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from .message import Recipient, envelope_address, message_id, stamp
from .models import CompiledIssue, EmailDelivery
from .transports import Envelope


@dataclass(frozen=True)
class Row:
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

    def envelope(self, row: Row) -> Envelope:
        """Raises ValueError, without the address, where the copy cannot be made."""
        url = f"{settings.PUBLIC_URL}/u/{row.token}/"
        recipient = Recipient(row.id, row.address, row.name, url)
        return Envelope(
            self._mail_from,
            envelope_address(recipient),
            stamp(self._message, recipient),
            key=f"{self._message.nonce}-{row.id}-{row.resend_no}",
            delivery_id=row.id,
        )

    def message_id(self, delivery_id: int) -> str:
        """The Message-ID of a copy, in angle brackets: what the relays' logs know it by."""
        return message_id(self._message, delivery_id)


def read_rows(ids: list[int]) -> list[Row]:
    """In the order of their ids; a row whose subscription is gone has no token."""
    rows = EmailDelivery.objects.filter(id__in=ids).order_by("id").values_list(*ROW_FIELDS)
    return [Row(id, address, name, token or "", no) for id, address, name, token, no in rows]
