"""A pause gets through to an issue's row, however many senders read it."""

from __future__ import annotations

import pytest

from newsletter.models import Issue, run_together
from newsletter.models.gate import both_gates
from tests import cast
from tests.races import get_through, senders_that_read


@pytest.mark.django_db(transaction=True)
def test_a_pause_is_not_passed_over_by_the_senders() -> None:
    issue = cast.approved(cast.newsletter())

    def look() -> None:
        run_together([both_gates(issue.pk)])
        Issue.objects.only("state").get(pk=issue.pk)

    with senders_that_read(look):
        get_through(
            lambda: issue.pause(reason="by ana", actor="ana"), lambda: issue.resume(actor="ana")
        )
