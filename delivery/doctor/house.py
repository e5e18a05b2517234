"""The installation itself: settings, witness, and whether anything may leave."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import ERROR, WARNING, CheckMessage, run_checks
from django.db.models import Count, Max

from delivery import witness
from delivery.models import House
from newsletter.models import Subscription
from newsletter.models.subscription import SubscriptionState

from .database import is_migrated
from .findings import Finding, ok, warn, wrong


def examine_settings() -> Iterator[Finding]:
    """What `check --deploy` says, a line each."""
    found = [one for one in run_checks(include_deployment_checks=True) if not one.is_silenced()]
    serious = [one for one in found if one.level >= WARNING]
    for message in serious:
        say = wrong if message.level >= ERROR else warn
        yield say("settings", *_in_a_line(message))
    if not serious:
        yield ok("settings", "check --deploy has nothing to say")


def examine_witness() -> Iterator[Finding]:
    """Whether it can be read and, where it is a file, written."""
    try:
        witness.rehearse()
        yield ok("witness", "its place answers")
    except witness.WitnessTrouble as trouble:
        yield wrong("witness", trouble.message, "look at WITNESS_URL")


def examine_standing() -> Iterator[Finding]:
    """Whether anything may leave. Raises django.db.Error without a database."""
    house = House.read() if is_migrated() else House()
    if house.doubt:
        yield wrong("house", f"this database is doubted: {house.doubt}", "confirm_database")
    elif house.paused_at:
        yield warn("house", "everything is paused", "house resume")


def readers() -> int:
    """Confirmed subscribers of the newsletter that has the most."""
    lists = Subscription.objects.filter(state=SubscriptionState.CONFIRMED).values("newsletter")
    counted = lists.annotate(n=Count("pk")).order_by().aggregate(most=Max("n"))
    return counted["most"] or 0


def _in_a_line(message: CheckMessage) -> tuple[str, str]:
    said = " ".join(str(message.msg).split())
    first, _, rest = said.partition(". ")
    todo = " ".join(str(message.hint or rest or "see check --deploy").split())
    return f"{first.rstrip('.')} ({message.id})", todo
