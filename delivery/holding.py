"""Everything at once: paused, resumed, cancelled, by an operator."""

from __future__ import annotations

from django.db import transaction

from newsletter.models import Issue, Refused, Transition, database_now
from newsletter.models.gate import queue_for_house
from newsletter.models.transition import Subject

from . import notifying, recovery, release, witness
from .models import House


def pause(*, actor: str, reason: str) -> bool:
    """Nothing starts any more; after the commit only rows already `sending` go out. False: it was paused before."""
    with transaction.atomic():
        queue_for_house()
        house = House.lock()
        if house.paused_at:
            return False
        old, house.paused_at = house.standing, database_now()
        house.paused_reason, house.paused_by = reason[:500], actor[:150]
        house.save(update_fields=["paused_at", "paused_reason", "paused_by"])
        _record(old, house, f"paused: {reason}", actor)
        notifying.tell(
            "everything_paused",
            "Everything is paused",
            f"By {actor}: {reason}",
            "What is on the wire finishes. Clocks go on.",
            level="warning",
            once=str(house.paused_at),
        )
    return True


def resume(*, actor: str, reason: str = "") -> bool:
    """Lift the pause, and wake all that runs. False where nothing was paused. A doubt stays: see `confirm`."""
    with transaction.atomic():
        queue_for_house()
        house = House.lock()
        if not house.paused_at:
            return False
        old, since = house.standing, house.paused_at
        house.paused_at, house.paused_reason, house.paused_by = None, "", ""
        house.save(update_fields=["paused_at", "paused_reason", "paused_by"])
        _record(old, house, f"resumed: {reason}" if reason else "resumed", actor)
        notifying.tell(
            "everything_resumed", "Everything goes on", f"By {actor}. {reason}", once=str(since)
        )
    # After the commit: it locks jobs, and a worker that finishes one may wait for the house's row.
    recovery.wake()
    return True


def cancel(*, actor: str, reason: str) -> list[str]:
    """Cancel each issue that is under way; what became of each, in words."""
    return [_cancel(issue, actor, reason) for issue in under_way()]


def confirm(*, actor: str, reason: str) -> House | None:
    """The database is believed again, by an operator's word: see `witness.confirm`."""
    house = witness.confirm(actor=actor, reason=reason)
    if house:
        recovery.wake()
    return house


def under_way() -> list[Issue]:
    return list(Issue.objects.running().select_related("newsletter").order_by("id"))


def _cancel(issue: Issue, actor: str, reason: str) -> str:
    try:
        return release.cancel(issue, actor=actor, reason=reason)
    except Refused as refused:  # it was sent just now
        return str(refused)


def _record(old: str, house: House, reason: str, actor: str) -> None:
    Transition.objects.record(Subject.HOUSE, [1], old, house.standing, reason, actor)
