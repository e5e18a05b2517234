"""Several settle the same unknown rows at once: each row is won by one of them, and nothing locks up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from delivery import feedback, release, sending, settling
from delivery.models import EmailDelivery, ProviderEvent
from newsletter.models import Issue, Refused, Transition, database_now
from newsletter.models.transition import Subject
from tests.drain import frozen

READERS = 6
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def issue() -> Issue:
    made = frozen(READERS)
    now = database_now()
    EmailDelivery.objects.update(status="unknown", attempt=1, sending_at=now, settled_at=now)
    return made


def at_once(*deeds: Callable[[], object]) -> list[object]:
    """What each of them gave, started together, each with a connection of its own."""
    gate, gave = threading.Barrier(len(deeds)), [None] * len(deeds)

    def do(number: int, deed: Callable[[], object]) -> None:
        try:
            gate.wait(10)
            gave[number] = deed()  # type: ignore[call-overload]
        finally:
            connection.close()

    threads = [threading.Thread(target=do, args=pair) for pair in enumerate(deeds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return list(gave)


def ids() -> list[int]:
    return list(EmailDelivery.objects.values_list("pk", flat=True))


def test_two_operators_make_one_resend(issue: Issue) -> None:
    rows = ids()
    won = at_once(
        *[lambda: settling.resend(rows, actor="ana", reason="lost")] * 2,
        *[lambda: settling.resend(rows[::-1], actor="rui", reason="lost")] * 2,
    )
    assert sorted(won) == [0, 0, 0, READERS]  # type: ignore[type-var]
    assert set(EmailDelivery.objects.values_list("status", "resend_no")) == {("pending", 1)}


def test_of_contrary_words_each_row_follows_one(issue: Issue) -> None:
    rows = ids()
    won = at_once(
        lambda: settling.mark_failed(rows, actor="ana", reason="x"),
        lambda: settling.resend(rows, actor="rui", reason="x"),
        lambda: settling.prove(rows, sent=False, source="postfix log"),
    )
    assert sum(filter(None, won)) == READERS  # type: ignore[arg-type]
    moved = Transition.objects.filter(subject=Subject.DELIVERY, old="unknown")
    assert moved.count() == READERS
    assert sending.books(issue)["balanced"]


def test_a_cancel_beside_a_resend_leaves_nothing_to_send(issue: Issue) -> None:
    rows = ids()

    def resend() -> int:
        try:
            return settling.resend(rows, actor="ana", reason="lost")
        except Refused:
            return 0

    won, _ = at_once(resend, lambda: release.cancel(issue, actor="rui"))
    expected = "skipped" if won else "unknown"
    assert set(EmailDelivery.objects.values_list("status", flat=True)) == {expected}


def test_an_event_that_two_apply_at_once_is_applied_once(issue: Issue) -> None:
    told = {"type": "email.bounced", "data": {"tags": {"delivery": str(ids()[0])}}}
    event = ProviderEvent.objects.create(
        provider="resend", event_key="x", kind="bounced", raw=json.dumps(told)
    )

    def apply() -> bool:
        with transaction.atomic():
            return feedback._look_at(event.pk)

    assert at_once(*[apply] * 4) == [True] * 4
    assert Transition.objects.filter(subject=Subject.DELIVERY, old="unknown").count() == 1
