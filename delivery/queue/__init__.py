"""Lanes, retries, dead letters: the only importer of django_q.

django-q2 wakes a worker with a job's id and nothing else. The job's row decides: who claims it runs it, and the
finish counts only while the claim's token holds. A wake-up may come twice, late, or never.
"""

from .housekeeping import move_wakeups, old_results, stale_wakeups
from .lanes import pause_lane, paused_lanes, resume_lane
from .registry import job
from .rows import discard, discard_dead, enqueue, ensure, recover, retry_dead
from .runner import run
from .wakeups import ask_for_beat, beat, forget

__all__ = [
    "ask_for_beat",
    "beat",
    "discard",
    "discard_dead",
    "enqueue",
    "ensure",
    "forget",
    "job",
    "move_wakeups",
    "old_results",
    "pause_lane",
    "paused_lanes",
    "recover",
    "resume_lane",
    "retry_dead",
    "run",
    "stale_wakeups",
]
