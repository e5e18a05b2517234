"""The one table of recurring work. The minute tick asks what is due; a unique row for each due time runs it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import NamedTuple

import structlog
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery

from newsletter.models import Newsletter, database_now
from newsletter.models.newsletter import Weekday

from . import notifying, queue
from .models import Occurrence
from .redaction import in_words

log = structlog.get_logger(__name__)

SWEEP = timedelta(minutes=5)
PRUNE_TIME = time(3, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Schedule:
    """`due` gives the due times of a day; one that was missed is run as long as it is not `late`, and then no more.

    The days are the newsletter's own; a schedule of the house has no newsletter, and its days are UTC's.
    """

    name: str
    newsletter: Newsletter | None
    due: Callable[[date], Iterator[datetime]]
    late: timedelta

    def came(self, now: datetime) -> Iterator[datetime]:
        """The due times that have come, are not too late, and lie after the newsletter was made."""
        for back in range(self.late.days + 2):
            for at in self.due(self._today(now) - timedelta(days=back)):
                if at <= now < at + self.late and not self._is_older(at):
                    yield at

    def next(self, now: datetime) -> datetime | None:
        """The first that is still to come; None where none does within a week."""
        days = (self._today(now) + timedelta(days=ahead) for ahead in range(9))
        return next((at for day in days for at in self.due(day) if at > now), None)

    def _today(self, now: datetime) -> date:
        return self.newsletter.today(now) if self.newsletter else now.astimezone(UTC).date()

    def _is_older(self, at: datetime) -> bool:
        return self.newsletter is not None and at <= self.newsletter.created_at


def of(newsletter: Newsletter) -> tuple[Schedule, ...]:
    """What recurs for each newsletter."""
    return (
        # A missed release is run late, or told: its job decides by the newsletter's bound. A week later comes the next.
        Schedule("release", newsletter, partial(_release, newsletter), timedelta(days=7)),
        # A missed sweep is made up for by the next.
        Schedule("safety_net", newsletter, partial(_safety_net, newsletter), SWEEP),
    )


def _release(newsletter: Newsletter, day: date) -> Iterator[datetime]:
    if day.weekday() == Weekday(newsletter.release_weekday):
        yield newsletter.release_at(day)


def _safety_net(newsletter: Newsletter, day: date) -> Iterator[datetime]:
    """Every five minutes of the release day: between its hour and 09:00 only what was approved late is started."""
    if day.weekday() != Weekday(newsletter.release_weekday):
        return
    at, end = newsletter.release_at(day) + SWEEP, newsletter.too_late_at(day)
    while at < end:
        yield at
        at += SWEEP


def _daily(at: time, day: date) -> Iterator[datetime]:
    yield datetime.combine(day, at)


OF_THE_HOUSE = (
    # A prune that was missed for a day needs no telling: the next takes away the same rows and more.
    Schedule("prune", None, partial(_daily, PRUNE_TIME), timedelta(days=1)),
)


def tick() -> int:
    """Make an occurrence, and its job, of all that is due; how many. Safe on any number of hosts at once."""
    now = database_now()
    made = 0
    for newsletter in Newsletter.objects.all():
        made += sum(_occur(schedule, at) for schedule, at in _came(newsletter, now))
    return made + sum(_occur(house, at) for house in OF_THE_HOUSE for at in house.came(now))


class Upcoming(NamedTuple):
    """A schedule with its last occurrence and its next due time; no next: its newsletter's settings give none."""

    schedule: str
    newsletter: Newsletter | None
    last: Occurrence | None
    next: datetime | None


def upcoming(now: datetime) -> list[Upcoming]:
    """Every schedule, those of the house first; in a few queries, however many newsletters there are."""
    schedules = [*OF_THE_HOUSE]
    for newsletter in Newsletter.objects.all():
        schedules += of(newsletter)
    last = {(row.schedule, row.newsletter_id): row for row in _last(schedules)}
    return [
        Upcoming(
            schedule.name,
            schedule.newsletter,
            last.get((schedule.name, schedule.newsletter.pk if schedule.newsletter else None)),
            _next(schedule, now),
        )
        for schedule in schedules
    ]


def _came(newsletter: Newsletter, now: datetime) -> list[tuple[Schedule, datetime]]:
    """What is due for it. Settings that are past the validators must not stop the others' Monday: they are told."""
    try:
        return [(schedule, at) for schedule in of(newsletter) for at in schedule.came(now)]
    except Exception as error:
        log.exception("schedule.failed", newsletter=newsletter.pk)
        notifying.tell(
            "schedule_failed",
            f"{newsletter.name}: when it is due cannot be worked out",
            in_words(error),
            "Nothing of it is released by itself. Correct its zone, weekday and times in the admin.",
            level="error",
            newsletter=newsletter,
            once=f"{now:%Y-%m-%d}",
        )
        return []


def _occur(schedule: Schedule, due: datetime) -> bool:
    with transaction.atomic():
        row, created = Occurrence.objects.get_or_create(
            schedule=schedule.name, newsletter=schedule.newsletter, due_utc=due
        )
        if created:
            queue.enqueue(schedule.name, key=f"{schedule.name}:{row.pk}", occurrence_id=row.pk)
    return created


def _next(schedule: Schedule, now: datetime) -> datetime | None:
    try:
        return schedule.next(now)
    except Exception:  # noqa: BLE001 - whatever odd settings raise: the tick tells it
        return None


def _last(schedules: list[Schedule]) -> QuerySet[Occurrence]:
    """The newest occurrence of each schedule of each newsletter: for each a look into the index, and no more."""
    rows = Occurrence.objects.order_by("-due_utc").values("pk")
    ids: set[int] = set()
    for name in {schedule.name for schedule in schedules if schedule.newsletter}:
        newest = Subquery(rows.filter(schedule=name, newsletter=OuterRef("pk"))[:1])
        ids |= {pk for pk in Newsletter.objects.values_list(newest, flat=True) if pk}
    for schedule in OF_THE_HOUSE:
        ids |= {row["pk"] for row in rows.filter(schedule=schedule.name, newsletter=None)[:1]}
    return Occurrence.objects.filter(pk__in=ids)
