"""Every run of a job is counted, by the way in which it ended."""

from __future__ import annotations

from django.db.models import F

from delivery.models import JobTally
from delivery.models.job import Job
from delivery.models.job_tally import BOUNDS, BUCKETS, Ending
from newsletter.models import database_now


def count(row: Job, ending: Ending, seconds: float, items: int) -> None:
    """Add to the tally. The last statement of the finish: who counts the same at the same time waits for its commit."""
    at = database_now().replace(second=0, microsecond=0)
    bucket = next(
        (name for bound, name in zip(BOUNDS, BUCKETS, strict=False) if seconds <= bound),
        BUCKETS[-1],
    )
    own = JobTally.objects.filter(name=row.name, ending=ending, at=at)
    more = {
        "runs": F("runs") + 1,
        "seconds": F("seconds") + seconds,
        "items": F("items") + items,
        bucket: F(bucket) + 1,
    }
    if not own.update(**more):
        JobTally.objects.bulk_create(
            [JobTally(name=row.name, ending=ending, at=at)], ignore_conflicts=True
        )
        own.update(**more)
