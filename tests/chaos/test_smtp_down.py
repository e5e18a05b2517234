"""A mail server that is not there: the issue waits, says so, and goes out when it comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.house import READERS, House, a_house
from tests.stand_ins.smtp import SmtpStandIn

WAITING = "SELECT note FROM delivery_job WHERE name = 'deliver' AND state = 'queued' AND note LIKE 'the mail server%'"


@pytest.fixture
def server() -> Iterator[SmtpStandIn]:
    """Its port is known, and nobody listens there yet."""
    made = SmtpStandIn(keep_data=False)
    made.start()
    made.stop()
    yield made
    made.stop()


@pytest.fixture
def house(server: SmtpStandIn) -> Iterator[House]:
    """A sender has met the closed port."""
    with a_house(EMAIL_URL=server.url) as made:
        made.start_work()
        made.manage("release", "first", "--now")
        made.wait_until(lambda: made.query(WAITING), 20)
        yield made


def test_the_issue_goes_out_without_help_when_the_server_comes(
    house: House, server: SmtpStandIn
) -> None:
    server.start()
    house.wait_until(lambda: house.state() == "sent", 40)
    assert set(server.accepted().values()) == {1}
    assert house.statuses() == {"sent": READERS}


def test_nobody_loses_an_attempt_while_the_server_is_away(house: House) -> None:
    assert house.state() == "sending"
    # The other sender may be in the middle of its own try.
    house.wait_until(lambda: house.statuses() == {"pending": READERS}, 20)
    assert house.value("SELECT max(attempts_spent) FROM delivery_emaildelivery") == 0


def test_the_wait_stands_where_an_operator_reads_it(house: House) -> None:
    notes = [note for (note,) in house.query(WAITING)]
    assert all("the mail server did not take it" in note for note in notes)


def test_send_hurries_the_next_try(house: House, server: SmtpStandIn) -> None:
    house.change("UPDATE delivery_job SET due_at = '2999-01-01 00:00:00' WHERE name = 'deliver'")
    server.start()
    house.manage("send", "first")
    house.wait_until(lambda: house.state() == "sent", 20)
