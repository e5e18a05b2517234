"""The close: by the balance and by nothing else, and one report."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from delivery import release, sending
from delivery.models import EmailDelivery, Job, Notification
from delivery.outcome import Done
from newsletter.models import Issue, database_now
from tests.drain import drain, frozen, history, moves, row_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def channel(settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = "http://127.0.0.1:1/webhook"


@pytest.fixture
def issue() -> Issue:
    """All four are settled; the close is still to come."""
    made = frozen(4)
    Job.objects.filter(name="deliver").delete()
    settle("bob", "carla", "davi", "eva")
    return made


def settle(*names: str, status: str = "sent") -> None:
    rows = EmailDelivery.objects.filter(address__in=[f"{name}@example.org" for name in names])
    rows.update(status=status, settled_at=database_now())


def close(issue: Issue) -> Issue:
    """The job's body and its advance, then what follows."""
    issue.refresh_from_db()
    outcome = sending.close(issue)
    assert isinstance(outcome, Done)
    outcome.advance()
    drain(but="deliver")
    issue.refresh_from_db()
    return issue


def notices(event: str) -> list[Notification]:
    rows = Notification.objects.filter(channel="log").order_by("id")
    return [row for row in rows if row.notice["event"] == event]


def test_it_is_closed_when_nothing_is_open_and_the_books_balance(issue: Issue) -> None:
    close(issue)
    assert issue.state == "sent" and issue.closed_at
    assert history(issue)[-1] == "the books balance: 4 sent of 4"


@pytest.mark.parametrize("status", ["pending", "sending"])
def test_it_is_not_closed_while_a_row_is_open(issue: Issue, status: str) -> None:
    row = row_of("bob")
    EmailDelivery.objects.filter(pk=row.pk).update(
        status=status, attempt=1, fence=1, sending_at=database_now()
    )
    close(issue)
    assert issue.state == "sending"
    assert Job.objects.unfinished().filter(name="deliver").exists()


def test_it_is_closed_once_and_reported_once(issue: Issue) -> None:
    close(issue)
    close(issue)
    assert moves(issue).count("sent") == 1
    assert len(notices("sent")) == 1


def test_two_closes_that_looked_at_the_same_time_close_it_once(issue: Issue) -> None:
    outcomes = [sending.close(issue), sending.close(issue)]
    for outcome in outcomes:
        assert isinstance(outcome, Done)
        outcome.advance()
    assert moves(issue).count("sent") == 1
    assert Job.objects.filter(name="report").count() == 1


def test_a_row_that_came_back_meanwhile_keeps_it_open(issue: Issue) -> None:
    outcome = sending.close(issue)
    settle("bob", status="pending")
    assert isinstance(outcome, Done)
    outcome.advance()
    issue.refresh_from_db()
    assert issue.state == "sending"


def test_a_missing_row_blocks_it_and_is_told(issue: Issue) -> None:
    row_of("bob").delete()
    close(issue)
    assert issue.state == "sending"
    assert issue.blocked_reason == "the books do not balance: 3 rows, 4 at the freeze"
    assert len(notices("imbalance")) == 1
    assert notices("imbalance")[0].notice["level"] == "error"


def test_an_imbalance_is_told_once(issue: Issue) -> None:
    row_of("bob").delete()
    close(issue)
    close(issue)
    assert len(notices("imbalance")) == 1


def test_a_surplus_row_blocks_it_too(issue: Issue) -> None:
    Issue.objects.filter(pk=issue.pk).update(audience=3)
    close(issue)
    assert "4 rows, 3 at the freeze" in issue.blocked_reason


def test_an_imbalance_that_was_mended_is_closed_by_the_operators_retry(issue: Issue) -> None:
    Issue.objects.filter(pk=issue.pk).update(audience=3)
    close(issue)
    Issue.objects.filter(pk=issue.pk).update(audience=4)
    release.start(issue, actor="ana")
    drain()
    issue.refresh_from_db()
    assert (issue.state, issue.blocked_reason) == ("sent", "")


def test_an_imbalance_that_was_not_mended_blocks_it_again(issue: Issue) -> None:
    Issue.objects.filter(pk=issue.pk).update(audience=3)
    close(issue)
    release.start(issue, actor="ana")
    drain()
    issue.refresh_from_db()
    assert issue.state == "sending" and issue.blocked_reason


def test_the_report_gives_the_figures(issue: Issue) -> None:
    settle("bob", status="unknown")
    settle("carla", status="failed")
    settle("davi", status="skipped")
    close(issue)
    notice = notices("sent")[0].notice
    assert notice["lines"][0] == (
        "Audience 4: 1 sent, 1 failed, 1 unknown, 1 skipped; the books balance."
    )
    assert "minutes" in notice["lines"][1] and issue.web_url in notice["lines"][1]


@pytest.mark.parametrize(
    ("status", "level"), [("sent", "info"), ("unknown", "warning"), ("failed", "warning")]
)
def test_the_reports_level_tells_whether_to_look(issue: Issue, status: str, level: str) -> None:
    settle("bob", status=status)
    close(issue)
    assert notices("sent")[0].notice["level"] == level


def test_all_failed_is_closed_and_told_as_an_error(issue: Issue) -> None:
    settle("bob", "carla", "davi", "eva", status="failed")
    close(issue)
    assert issue.state == "sent"
    assert notices("sent")[0].notice["level"] == "error"
    assert "not delivered to anybody" in notices("sent")[0].notice["title"]


def test_settling_after_the_close_never_changes_the_state(issue: Issue) -> None:
    settle("bob", status="unknown")
    close(issue)
    settle("bob", status="failed")
    close(issue)
    assert issue.state == "sent"
    assert sending.books(issue)["balanced"]


def test_a_cancelled_issue_is_not_closed(issue: Issue) -> None:
    release.cancel(issue, actor="ana")
    close(issue)
    assert issue.state == "cancelled"


def test_books_before_the_freeze_do_not_balance() -> None:
    from tests import cast

    figures = sending.books(cast.issue(cast.newsletter()))
    assert (figures["audience"], figures["balanced"]) == (None, False)
