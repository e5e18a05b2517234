"""Lanes, retries, dead letters: the only importer of django_q.

django-q2 wakes a worker with a job's id and nothing else. The job's row decides: who claims it runs it, and the
finish counts only while the claim's token holds. A wake-up may come twice, late, or never.
"""

from .registry import job
from .rows import discard, enqueue, ensure, recover, retry_dead
from .runner import backoff, run
from .wakeups import set_tick

__all__ = [
    "backoff",
    "discard",
    "enqueue",
    "ensure",
    "job",
    "recover",
    "retry_dead",
    "run",
    "set_tick",
]
