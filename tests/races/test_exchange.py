"""A no that is being said while a sender asks for its next rows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import transaction

from delivery import breakers, holding, release
from delivery.claims import lease_name
from delivery.models import EmailDelivery, Lease
from delivery.sender import Sender
from newsletter.models import Issue
from tests.drain import frozen
from tests.races import together


def leave(issue: Issue) -> None:
    for row in EmailDelivery.objects.of(issue.pk).select_related("subscription"):
        assert row.subscription
        row.subscription.unsubscribe(reason="enough", actor="reader")


def pause(issue: Issue) -> None:
    assert issue.pause(reason="a typo", actor="ana")


def cancel(issue: Issue) -> None:
    release.cancel(issue, actor="ana")


def hold(_: Issue) -> None:
    assert holding.pause(actor="ana", reason="a fire")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("say", [leave, pause, cancel, hold])
def test_who_says_no_is_waited_for_and_heard(say: Callable[[Issue], None]) -> None:
    """A statement does not see what commits while it runs: on PostgreSQL it waits at the gates before it begins."""
    issue = frozen(3)
    lease = Lease.acquire(lease_name(issue.pk, 0))
    assert lease
    sender = Sender(issue, lease, breakers.enter("smtp"), 0.0)
    rows, won = list(EmailDelivery.objects.of(issue.pk).values_list("id")), list[object]()
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        won.append(sender.exchange.run([], rows))

    with transaction.atomic():
        say(issue)
        (thread,) = together(1, ask)
        assert asked.wait(10)
        thread.join(0.3)
        assert thread.is_alive(), "it did not wait"
    thread.join(20)
    assert won == [([], [])]
