"""The registered bodies, by the names that stand in the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from delivery.models.job import Job, Lane
from delivery.outcome import Outcome


@dataclass(frozen=True)
class JobType:
    """A registered body. `gave_up(job, reason)` runs in the transaction that declares it dead."""

    body: Callable[..., Outcome]
    lane: Lane
    gave_up: Callable[[Job, str], None] | None


REGISTRY: dict[str, JobType] = {}


def job(
    name: str, *, lane: Lane = Lane.DEFAULT, gave_up: Callable[[Job, str], None] | None = None
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Register a job's body under a name that stays the same across deploys."""

    def register(body: Callable[..., Outcome]) -> Callable[..., Outcome]:
        REGISTRY[name] = JobType(body, lane, gave_up)
        return body

    return register
