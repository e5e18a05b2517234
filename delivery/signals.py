"""What the lower rooms of delivery tell the higher ones: sent inside the transaction of the change."""

from __future__ import annotations

from django.dispatch import Signal

job_died = (
    Signal()
)  # row: the Job; reason: in words. Only where its type has no `gave_up` of its own.
# name, is_open; where it is open: reason, until (aware). Closed -> open and back, not each probe that failed.
job_discarded = Signal()  # row: a dead Job that an operator gave up; actor
breaker_changed = Signal()
