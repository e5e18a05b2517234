"""What an operator or a reader does in the middle of it, each in its own process, with the times around its commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from typing import Any

from django.db import OperationalError, connection, transaction
from django_q.models import OrmQ

from delivery import holding, release, sending
from delivery.copies import Copies, read_rows
from delivery.models import (
    CircuitBreaker,
    CompiledIssue,
    EmailDelivery,
    House,
    Job,
    Lease,
    Notification,
    Rate,
)
from delivery.transports.api import ApiTransport
from delivery.transports.api_url import parse_api_url
from newsletter.models import (
    Issue,
    Newsletter,
    Refused,
    Subscriber,
    Subscription,
    Suppression,
    Transition,
    address_key,
    database_now,
)
from newsletter.models.issue import IssueState
from newsletter.models.suppression import SuppressionReason

ACTOR = "operator"
MARKDOWN = "Hello **readers**.\n\n" + "Some text with a [link](https://example.org/).\n\n" * 20


def do(what: str, **args: Any) -> dict[str, Any]:
    """Do it; {"what", "before", "after" (Unix times), "came"}. A database that is away is asked again."""
    while True:
        before = time.time()
        try:
            came = DEEDS[what](**args)
        except OperationalError:
            connection.close()
            time.sleep(0.05)
            continue
        except Refused as refused:
            came = f"refused: {refused}"
        return {"what": what, **args, "before": before, "after": time.time(), "came": came}


def found(seed: int, recipients: int) -> dict[str, Any]:
    """A newsletter, its readers, and an issue whose audience is frozen; all of an earlier seed is gone."""
    with transaction.atomic():
        _clear()
        weekly = Newsletter.objects.create(
            slug=f"weekly-{seed}",
            name="The Weekly",
            from_email="ana@news.example.org",
            postal_address="1 Main Street, Lisbon",
        )
        _readers(weekly, seed, recipients)
        issue = Issue.objects.create(
            newsletter=weekly,
            slug="first",
            title=f"The issue of {seed}",
            release_date=date(2026, 6, 1),
            markdown=MARKDOWN,
        )
        issue.approve(actor=ACTOR)
        Issue.objects.filter(pk=issue.pk).update(state=IssueState.PUBLISHED)
        issue.refresh_from_db()
        sending.freeze(issue, sending.compile_issue(issue), actor=ACTOR)
        rows = EmailDelivery.objects.of(issue.pk).order_by("id").values_list("id", "address")
        return {"issue": issue.pk, "readers": [list(row) for row in rows]}


def pause(issue: int) -> bool:
    return Issue.objects.get(pk=issue).pause(reason="the chaos", actor=ACTOR)


def resume(issue: int) -> bool:
    return release.resume(Issue.objects.get(pk=issue), actor=ACTOR)


def hold(issue: int) -> bool:
    """A pause of everything."""
    return holding.pause(actor=ACTOR, reason="the chaos")


def let_go(issue: int) -> bool:
    return holding.resume(actor=ACTOR)


def cancel(issue: int) -> str:
    return release.cancel(Issue.objects.get(pk=issue), actor=ACTOR)


def send(issue: int) -> str:
    return release.start_send(Issue.objects.get(pk=issue), actor=ACTOR)


def unsubscribe(row: int) -> bool:
    subscription = Subscription.objects.filter(emaildelivery=row).first()
    return bool(subscription and subscription.unsubscribe(actor="reader", reason="by link"))


def suppress(row: int) -> bool:
    key = EmailDelivery.objects.values_list("address_key", flat=True).get(pk=row)
    Suppression.objects.get_or_create(
        address_key=key, defaults={"reason": SuppressionReason.OPERATOR}
    )
    return True


def erase(row: int) -> bool:
    """The person is forgotten: the subscription is gone, the address is blank."""
    with transaction.atomic():
        subscription = Subscription.objects.filter(emaildelivery=row).first()
        if subscription is None:
            return False
        Subscriber.objects.filter(pk=subscription.subscriber_id).update(address="", name="")
        subscription.delete()
    return True


def ask_ses(issue: int) -> int:
    """One attempt at Amazon's API while it answers 503: how many requests it has seen."""
    from tests.stand_ins.http import reply
    from tests.stand_ins.providers import ProviderStandIn

    with ProviderStandIn("ses") as api:
        api.on(reply(503))
        way_out = ApiTransport(parse_api_url(api.url)).connect()
        row = EmailDelivery.objects.of(issue).values_list("id", flat=True)[:1]
        copies = Copies(CompiledIssue.objects.get(pk=issue))
        way_out.send(copies.envelope(read_rows(list(row))[0]))
        way_out.close()
        return len(api.requests)


DEEDS: dict[str, Callable[..., Any]] = {
    deed.__name__: deed
    for deed in (
        found,
        pause,
        resume,
        hold,
        let_go,
        cancel,
        send,
        unsubscribe,
        suppress,
        erase,
        ask_ses,
    )
}


def _clear() -> None:
    House.objects.update(paused_at=None)
    models: tuple[Any, ...] = (
        EmailDelivery,
        CompiledIssue,
        Job,
        Transition,
        Notification,
        Issue,
        Subscription,
        Subscriber,
        Newsletter,
        Suppression,
        Lease,
        CircuitBreaker,
        Rate,
        OrmQ,
    )
    for model in models:
        model.objects.all().delete()


def _readers(weekly: Newsletter, seed: int, count: int) -> None:
    addresses = [f"s{seed}r{number}@example.org" for number in range(count)]
    people = [
        Subscriber(address=address, address_key=address_key(address), name=f"Reader {number}")
        for number, address in enumerate(addresses)
    ]
    Subscriber.objects.bulk_create(people)
    now = database_now()
    Subscription.objects.bulk_create(
        Subscription(
            subscriber=person,
            newsletter=weekly,
            state="confirmed",
            consent_source="the chaos",
            consent_at=now,
        )
        for person in people
    )
