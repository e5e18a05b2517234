"""What happens here and concerns those who deliver: sent inside the transaction of the change."""

from __future__ import annotations

from django.dispatch import Signal

issue_edited = Signal()  # issue_id: an approved issue went back to draft
consent_withdrawn = Signal()  # subscription_id
# subscription_id: a pending one is to be asked by mail; a receiver answers True where it will be
confirmation_requested = Signal()
