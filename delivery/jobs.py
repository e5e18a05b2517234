"""The job bodies: load, call one method, return its outcome."""

from __future__ import annotations

from django.db import transaction

from newsletter.models import database_now

from . import notifying, recovery, release, schedules, sending, steps
from .models import Occurrence
from .models.job import Lane
from .outcome import Discard, Done, Outcome
from .queue import job


@job("await_podcast", gave_up=steps.step_gave_up)
def await_podcast(id: int) -> Outcome:
    return steps.await_podcast(id)


@job("late_podcast")
def late_podcast(id: int) -> Outcome:
    return steps.late_podcast(id)


@job("update_post")
def update_post(id: int) -> Outcome:
    return steps.update_post(id)


@job("publish", gave_up=steps.step_gave_up)
def publish(id: int) -> Outcome:
    return steps.publish(id)


@job("await_live", gave_up=steps.step_gave_up)
def await_live(id: int) -> Outcome:
    return steps.await_live(id)


@job("deliver", lane=Lane.BULK, gave_up=steps.step_gave_up)
def deliver(id: int, slot: int) -> Outcome:
    return sending.deliver(id, slot)


@job("close", gave_up=steps.step_gave_up)
def close(id: int) -> Outcome:
    return steps.close(id)


@job("report")
def report(id: int) -> Outcome:
    return steps.report(id)


@job("remove_post", lane=Lane.CRITICAL)
def remove_post(id: int) -> Outcome:
    return steps.remove_post(id)


@job("notify")
def notify(notification_id: int) -> Outcome:
    return notifying.deliver(notification_id)


@job("release")
def release_due(occurrence_id: int) -> Outcome:
    occurrence = Occurrence.objects.select_related("newsletter").filter(pk=occurrence_id).first()
    if occurrence is None:
        return Discard("the occurrence is gone")
    with transaction.atomic():
        note = release.run_occurrence(occurrence)
        Occurrence.objects.filter(pk=occurrence_id).update(note=note[:500])
    return Done(note)


@job("safety_net")
def safety_net(occurrence_id: int) -> Outcome:
    occurrence = Occurrence.objects.select_related("newsletter").filter(pk=occurrence_id).first()
    if occurrence is None:
        return Discard("the occurrence is gone")
    newsletter, now = occurrence.newsletter, database_now()
    resume = now >= newsletter.safety_net_at(newsletter.today(now))
    did = release.sweep(newsletter, now, resume=resume)
    return Done("; ".join(did) or "nothing to do")


def tick() -> None:
    """The minute tick: what django-q2's one schedule calls."""
    schedules.tick()
    recovery.recover()
