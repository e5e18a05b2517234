"""The registered bodies, by the names that stand in the rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from delivery.errors import BreakerOpen
from delivery.models.job import Job, Lane
from delivery.outcome import Outcome
from delivery.patience import AWAY
from delivery.retries import HOUR, Backoff, On

# Of every job: a database that is away, locked or full comes back, or its operator is told by everything else first;
# and a service that is left alone just now is asked later.
ALWAYS = (
    On(AWAY, Backoff(first=2, cap=60), times=5_000, within=24 * HOUR),
    On(BreakerOpen, Backoff(), times=5_000, within=24 * HOUR),
)


@dataclass(frozen=True)
class JobType:
    """A registered body with its policies. `gave_up(job, reason)` runs in the transaction that declares it dead, and
    tells it."""

    body: Callable[..., Outcome]
    lane: Lane
    retries: tuple[On, ...] = ()
    gave_up: Callable[[Job, str], None] | None = None

    def policy(self, error: Exception) -> On | None:
        """The first that names the error; None: nobody declared it."""
        for policy in (*self.retries, *ALWAYS):
            if isinstance(error, policy.error):
                return policy
        return None

    def mismatch(self, row: Job) -> str:
        """What is wrong with the row's arguments, for this version of the body; empty where they fit."""
        try:
            inspect.signature(self.body).bind(**row.args)
        except TypeError as error:
            return str(error)
        return ""


REGISTRY: dict[str, JobType] = {}


def job(
    name: str,
    *,
    lane: Lane = Lane.DEFAULT,
    retries: tuple[On, ...] = (),
    gave_up: Callable[[Job, str], None] | None = None,
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Register a job's body under a name that stays the same across deploys."""

    def register(body: Callable[..., Outcome]) -> Callable[..., Outcome]:
        REGISTRY[name] = JobType(body, lane, retries, gave_up)
        return body

    return register
