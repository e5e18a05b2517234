"""The one table of recurring work. The minute tick asks what is due; UNIQUE(schedule, newsletter, due) runs it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog
from django.db import transaction

from newsletter.models import Newsletter, database_now

from . import queue
from .models import Occurrence

log = structlog.get_logger(__name__)

SWEEP = timedelta(minutes=5)


@dataclass(frozen=True)
class Schedule:
    """`due` gives the due times of a day; `until` the instant after which one that was missed is not run at all."""

    name: str
    due: Callable[[Newsletter, date], Iterator[datetime]]
    until: Callable[[Newsletter, datetime], datetime]


def _release(newsletter: Newsletter, day: date) -> Iterator[datetime]:
    if day.weekday() == newsletter.release_weekday:
        yield newsletter.release_at(day)


def _safety_net(newsletter: Newsletter, day: date) -> Iterator[datetime]:
    """Every five minutes of the release day: between its hour and 09:00 only what was approved late is started."""
    if day.weekday() != newsletter.release_weekday:
        return
    at, end = newsletter.release_at(day) + SWEEP, newsletter.too_late_at(day)
    while at < end:
        yield at
        at += SWEEP


TABLE = (
    # A missed release is run late, or told: its job decides by the newsletter's bound. A week later it is history.
    Schedule("release", _release, lambda newsletter, due: due + timedelta(days=6)),
    # A missed sweep is made up for by the next.
    Schedule("safety_net", _safety_net, lambda newsletter, due: due + SWEEP),
)


def tick() -> int:
    """Make an occurrence, and its job, of all that is due; how many. Safe on any number of hosts at once."""
    now = database_now()
    made = 0
    for newsletter in Newsletter.objects.all():
        try:
            made += sum(_occur(*due) for due in due_now(newsletter, now))
        except Exception:
            # One newsletter's odd settings must not stop the others' Monday.
            log.exception("schedule.failed", newsletter=newsletter.pk)
    return made


def due_now(
    newsletter: Newsletter, now: datetime
) -> Iterator[tuple[Schedule, Newsletter, datetime]]:
    """The due times that have come, are not past their bound, and lie after the newsletter was made."""
    today = newsletter.today(now)
    for schedule in TABLE:
        for back in range(7):
            for due in schedule.due(newsletter, today - timedelta(days=back)):
                if newsletter.created_at < due <= now < schedule.until(newsletter, due):
                    yield schedule, newsletter, due


def _occur(schedule: Schedule, newsletter: Newsletter, due: datetime) -> bool:
    with transaction.atomic():
        row, created = Occurrence.objects.get_or_create(
            schedule=schedule.name, newsletter=newsletter, due_utc=due
        )
        if created:
            queue.enqueue(schedule.name, key=f"{schedule.name}:{row.pk}", occurrence_id=row.pk)
    return created
