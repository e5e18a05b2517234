"""The nouns of delivery: one a file."""

from .compiled_issue import CompiledIssue
from .email_delivery import EmailDelivery
from .job import Job
from .lease import Lease
from .notification import Notification
from .occurrence import Occurrence
from .rate import Rate

__all__ = [
    "CompiledIssue",
    "EmailDelivery",
    "Job",
    "Lease",
    "Notification",
    "Occurrence",
    "Rate",
]
