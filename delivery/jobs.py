"""The job bodies: load, call one method, return its outcome."""

from __future__ import annotations

import structlog
from django.db import connection, transaction

from newsletter.models import database_now

from . import (
    alerts,
    clock,
    deadman,
    feedback,
    notifying,
    pruning,
    recovery,
    release,
    replaying,
    schedules,
    sending,
    steps,
    transactional,
    webhooks,
    witness,
)
from .models import Occurrence
from .models.job import Lane
from .outcome import Discard, Done, Outcome
from .queue import job

log = structlog.get_logger(__name__)


@job("await_podcast", gave_up=steps.step_gave_up)
def await_podcast(id: int) -> Outcome:
    return steps.await_podcast(id)


@job("late_podcast")
def late_podcast(id: int) -> Outcome:
    return steps.late_podcast(id)


@job("update_post", retries=steps.UPDATE)
def update_post(id: int) -> Outcome:
    return steps.update_post(id)


@job("publish", retries=steps.PUBLISH, gave_up=steps.step_gave_up)
def publish(id: int) -> Outcome:
    return steps.publish(id)


@job("await_live", gave_up=steps.step_gave_up)
def await_live(id: int) -> Outcome:
    return steps.await_live(id)


@job("deliver", lane=Lane.BULK, retries=sending.DELIVER, gave_up=steps.step_gave_up)
def deliver(id: int, slot: int) -> Outcome:
    return sending.deliver(id, slot)


@job("close", gave_up=steps.step_gave_up)
def close(id: int) -> Outcome:
    return steps.close(id)


@job("report")
def report(id: int) -> Outcome:
    return steps.report(id)


@job("remove_post", lane=Lane.CRITICAL, retries=steps.REMOVE)
def remove_post(id: int) -> Outcome:
    return steps.remove_post(id)


@job("notify", retries=notifying.NOTIFY)
def notify(notification_id: int) -> Outcome:
    return notifying.deliver(notification_id)


@job("mail", lane=Lane.CRITICAL, retries=transactional.MAIL)
def mail(mail_id: int) -> Outcome:
    return transactional.deliver(mail_id)


@job("ping_deadman", retries=deadman.PING)
def ping_deadman(id: int) -> Outcome:
    return deadman.ping(id)


@job("apply_event")
def apply_event(event_id: int) -> Outcome:
    return feedback.apply_event(event_id)


@job("fetch_certificate", retries=webhooks.SNS)
def fetch_certificate(url: str) -> Outcome:
    return webhooks.fetch_certificate(url)


@job("confirm_subscription", retries=webhooks.SNS)
def confirm_subscription(event_id: int) -> Outcome:
    return webhooks.confirm_subscription(event_id)


@job("replay_unknowns", lane=Lane.BULK, retries=sending.DELIVER)
def replay_unknowns(id: int) -> Outcome:
    return replaying.replay(id)


@job("release")
def release_due(occurrence_id: int) -> Outcome:
    occurrence = Occurrence.objects.select_related("newsletter").filter(pk=occurrence_id).first()
    if occurrence is None:
        return Discard("the occurrence is gone")
    with transaction.atomic():
        note = release.run_occurrence(occurrence)
        Occurrence.objects.filter(pk=occurrence_id).update(note=note[:500])
    return Done(note)


@job("prune", lane=Lane.BULK)  # it can wait, and takes its time
def prune(occurrence_id: int) -> Outcome:
    return pruning.prune(occurrence_id)


@job("safety_net")
def safety_net(occurrence_id: int) -> Outcome:
    occurrence = Occurrence.objects.select_related("newsletter").filter(pk=occurrence_id).first()
    if occurrence is None or occurrence.newsletter is None:
        return Discard("the occurrence is gone")
    newsletter, now = occurrence.newsletter, database_now()
    resume = now >= newsletter.safety_net_at(newsletter.today(now))
    did = release.sweep(newsletter, now, resume=resume)
    return Done("; ".join(did) or "nothing to do")


# What the recovery had to call unknown may be known by somebody already.
SETTLING = (feedback.look_again, replaying.enqueue_replays)
# The witness comes first: a database that was put back starts nothing. Recovering comes before the clocks are noted: it
# asks whether they were set since they were.
PARTS = (witness.keep, schedules.tick, recovery.recover, *SETTLING, clock.note, alerts.check)


def tick() -> None:
    """The minute tick, which the watchdog of each host makes. A part that fails does not stop the others."""
    for part in PARTS:
        try:
            part()
        except Exception:
            log.exception("tick.failed", part=part.__module__)
            connection.close_if_unusable_or_obsolete()
