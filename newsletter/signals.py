"""What happens here and concerns those who deliver. Sent inside the transaction of the change; `delivery/receivers.py` listens."""

from __future__ import annotations

from django.dispatch import Signal

issue_edited = Signal()  # issue_id: an approved issue went back to draft
consent_withdrawn = Signal()  # subscription_id
