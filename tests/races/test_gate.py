"""A pause gets through to an issue's row, however many senders read it."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection, transaction

from newsletter.models import Issue, Statement, run_together
from newsletter.models.gate import both_gates
from tests import cast

SENDERS = 8


def read_for_ever(issue: Issue, stop: threading.Event) -> None:
    """As a sender does in each of its commits: overlapping, and without a pause."""
    while not stop.is_set():
        with transaction.atomic():
            look = Statement("SELECT state FROM newsletter_issue WHERE id = %s", [issue.pk])
            run_together([both_gates(issue.pk), look])
            if connection.vendor == "postgresql":
                time.sleep(0.02)
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_pause_is_not_passed_over_by_the_senders() -> None:
    issue = cast.approved(cast.newsletter())
    stop = threading.Event()
    senders = [threading.Thread(target=read_for_ever, args=(issue, stop)) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(3):
            began = time.monotonic()
            assert issue.pause(reason="by ana", actor="ana")
            assert issue.resume(actor="ana")
            assert time.monotonic() - began < 10, "it was passed over, again and again"
    finally:
        stop.set()
        for sender in senders:
            sender.join(20)
