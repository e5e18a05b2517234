"""The nouns of delivery: one a file."""

from .alert import Alert
from .circuit_breaker import CircuitBreaker
from .compiled_issue import CompiledIssue
from .email_delivery import EmailDelivery
from .heartbeat import Heartbeat
from .house import House
from .issue_report import IssueReport
from .job import Job
from .job_tally import JobTally
from .lane_pause import LanePause
from .lease import Lease
from .ledger_tally import LedgerTally
from .notification import Notification
from .occurrence import Occurrence
from .provider_event import ProviderEvent
from .quota_tally import QuotaTally
from .rate import Rate
from .transactional_mail import TransactionalMail

__all__ = [
    "Alert",
    "CircuitBreaker",
    "CompiledIssue",
    "EmailDelivery",
    "Heartbeat",
    "House",
    "IssueReport",
    "Job",
    "JobTally",
    "LanePause",
    "Lease",
    "LedgerTally",
    "Notification",
    "Occurrence",
    "ProviderEvent",
    "QuotaTally",
    "Rate",
    "TransactionalMail",
]
