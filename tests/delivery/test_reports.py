"""The report of an issue: its numbers, the section of its page, and the notice at the close."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from delivery import release, reports, sending, settling
from delivery.models import EmailDelivery, IssueReport, Job, Notification, ProviderEvent
from delivery.results import Result, record
from delivery.transports.outcomes import Outcome, Phase, Verdict
from delivery.views import report as drawn
from newsletter.models import Issue, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, frozen, row_of, tell_the_tally

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


@pytest.fixture
def issue() -> Issue:
    """Eight readers; nothing was sent yet."""
    return frozen(8)


def answer(name: str, verdict: Verdict, reason: str = "", attempt: int = 1) -> None:
    row = row_of(name)
    EmailDelivery.objects.filter(pk=row.pk).update(
        status="sending", fence=1, attempt=attempt, sending_at=database_now()
    )
    record(row.issue, [Result(row.pk, attempt, Outcome(verdict, reason, "", Phase.DOT))])


def a_whole_week(issue: Issue) -> Issue:
    """Four sent (one at the second attempt), one failed, two unknown of which one was settled, one skipped."""
    answer("bob", Verdict.RETRY_RECIPIENT, "recipient_deferred")
    answer("bob", Verdict.SENT, attempt=2)
    for name in ("carla", "davi", "eva"):
        answer(name, Verdict.SENT)
    answer("fabio", Verdict.FAILED, "mailbox_full")
    answer("gina", Verdict.UNKNOWN, "timed_out")
    answer("hugo", Verdict.UNKNOWN, "timed_out")
    settling.mark_failed([row_of("hugo").pk], actor="ana", reason="hugo has nothing")
    EmailDelivery.objects.filter(pk=row_of("ines").pk).update(
        status="skipped", reason="unsubscribed or suppressed", settled_at=database_now()
    )
    event = {"provider": "ses", "raw": "", "delivery": row_of("carla")}
    for key, kind in ("1", "bounced"), ("2", "bounced"), ("3", "complained"):
        ProviderEvent.objects.create(event_key=key, kind=kind, **event)
    issue.refresh_from_db()
    return issue


def closed(issue: Issue) -> Issue:
    """The same, closed; it took a minute."""
    Job.objects.filter(name="deliver").delete()
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=database_now() - MINUTE)
    issue.refresh_from_db()
    outcome = sending.close(issue)
    outcome.advance()  # type: ignore[union-attr]
    drain(but="deliver")
    issue.refresh_from_db()
    assert issue.state == "sent"
    return issue


def page_of(client: Client, issue: Issue) -> str:
    answered = client.get(f"/admin/newsletter/issue/{issue.pk}/change/")
    return " ".join(answered.content.decode().split())


# The numbers


def test_the_shares_are_those_of_the_audience(issue: Issue) -> None:
    found = reports.counted(a_whole_week(issue))
    assert [(share.status, share.number) for share in found.shares] == [
        ("sent", 4), ("failed", 2), ("unknown", 1), ("skipped", 1), ("sending", 0), ("pending", 0),
    ]  # fmt: skip
    assert [share.percent for share in found.shares][:3] == [50.0, 25.0, 12.5]
    assert found.balanced


def test_a_row_that_is_gone_is_no_balance(issue: Issue) -> None:
    row_of("bob").delete()
    assert not reports.counted(issue).balanced


def test_every_number_is_in_it(issue: Issue) -> None:
    found = reports.report(closed(a_whole_week(issue)))
    assert (found.attempts, found.retried, found.resends) == (8, 1, 0)
    assert [(why.number, why.status, why.reason) for why in found.reasons] == [
        (1, "failed", "mailbox_full"),
        (1, "failed", "operator"),
        (1, "skipped", "unsubscribed or suppressed"),
        (1, "unknown", "timed_out"),
    ]
    assert found.became_unknown == 2
    assert [tuple(each) for each in found.settled] == [("failed", "ana", 1)]
    assert found.events == {"bounced": 1, "complained": 1}  # deliveries, not events
    assert found.first and found.last and found.first <= found.last
    assert 55 < found.seconds < 120 and 55 < (found.closed_after or 0) < 120
    assert 2 < found.per_minute < 5


def test_another_issues_history_and_events_are_not_in_it(issue: Issue) -> None:
    a_whole_week(issue)
    other = cast.issue(issue.newsletter, slug="other")
    low, high = (EmailDelivery.objects.order_by(way)[0] for way in ("id", "-id"))
    between = EmailDelivery.objects.filter(pk__gt=low.pk, pk__lt=high.pk).order_by("id")[0]
    Transition.objects.record(Subject.DELIVERY, [between.pk], "sending", "unknown", "", "x")
    before = reports.report(issue)
    EmailDelivery.objects.filter(pk=between.pk).update(issue=other)
    after = reports.report(issue)
    assert before.became_unknown == after.became_unknown + 1


def test_a_late_result_settles_under_one_name(issue: Issue) -> None:
    for name in ("bob", "carla"):
        answer(name, Verdict.UNKNOWN, "timed_out")
        row = row_of(name)
        late = Outcome(Verdict.SENT, "accepted", "250", Phase.DOT)
        record(issue, [Result(row.pk, 1, late)])
    found = reports.report(issue)
    assert [tuple(each) for each in found.settled] == [("sent", "a late result", 2)]


def test_what_is_settled_after_the_close_is_in_no_pace(issue: Issue) -> None:
    closed(a_whole_week(issue))
    settling.mark_sent([row_of("gina").pk], actor="ana", reason="gina has it")
    EmailDelivery.objects.filter(pk=row_of("gina").pk).update(
        settled_at=database_now() + timedelta(days=7)
    )
    found = reports.report(issue)
    assert (found.books.number("sent"), found.in_time) == (5, 4)
    assert found.seconds < 120 and "a minute" in found.pace


def test_late_evidence_that_changes_nothing_is_not_counted(issue: Issue) -> None:
    answer("bob", Verdict.UNKNOWN, "timed_out")
    settling.note_evidence(row_of("bob"), "deferred", source="ses")
    found = reports.report(issue)
    assert (found.became_unknown, found.settled) == (1, ())


def test_resends_are_counted(issue: Issue) -> None:
    answer("bob", Verdict.UNKNOWN, "timed_out")
    settling.resend([row_of("bob").pk], actor="ana", reason="bob asked")
    assert reports.report(issue).resends == 1


def test_an_issue_of_which_nothing_was_sent_has_no_pace(issue: Issue) -> None:
    release.cancel(issue, actor="ana")
    found = reports.report(issue)
    assert (found.per_minute, found.first, found.closed_after) == (0.0, None, None)


# The notice


def notice(issue: Issue) -> dict[str, Any]:
    row = Notification.objects.get(channel="log", key__startswith="sent:")
    return dict(row.notice)


def test_the_notice_has_every_number(issue: Issue) -> None:
    closed(a_whole_week(issue))
    lines = notice(issue)["lines"]
    assert lines[0] == "Audience 8: 4 sent, 2 failed, 1 unknown, 1 skipped; the books balance."
    assert lines[1].startswith("It took 1.0 minutes.")
    assert lines[2].startswith("50.0 % were accepted, ") and "UTC" in lines[2]
    assert "Failed: 1 × the reader's mailbox is full; 1 × an operator said so." in lines
    assert "Unknown: 1 × no reply came in time." in lines
    assert "Skipped: 1 × unsubscribed or suppressed." in lines
    assert "8 attempts: 1 took more than one attempt." in lines
    assert "2 became unknown: 1 settled as failed by ana, 1 left." in lines
    assert lines[-2] == f"Settle them: http://news.example.org/admin/unknown/{issue.pk}/"
    assert lines[-1] == "The provider told: 1 bounced, 1 complained."


def test_a_quiet_week_has_a_short_notice(issue: Issue) -> None:
    for name in cast.NAMES:
        answer(name, Verdict.SENT)
    closed(issue)
    assert len(notice(issue)["lines"]) == 3


def test_no_address_is_in_the_notice(issue: Issue) -> None:
    closed(a_whole_week(issue))
    assert "example.org" not in " ".join(notice(issue)["lines"]).replace("news.example.org", "")


# The issue's page


def test_the_page_shows_the_report(editing: Client, issue: Issue) -> None:
    text = page_of(editing, closed(a_whole_week(issue)))
    for said in (
        "The books balance",
        "50.0 %",
        "Of 8: 4 sent, 2 failed, 1 unknown, 1 skipped",
        "the reader&#x27;s mailbox is full",
        "What became of the unknown ones",
        "1 unknown row: look at the evidence",
        "The provider says: bounced",
    ):
        assert said in text


def test_while_it_is_sending_the_page_counts_nothing(editing: Client, issue: Issue) -> None:
    a_whole_week(issue)
    with CaptureQueriesContext(connection) as captured:
        text = page_of(editing, issue)
    assert "The books so far" in text and "Took more than one attempt" not in text
    assert any("delivery_ledgertally" in q["sql"] for q in captured)
    assert not [q["sql"] for q in captured if 'FROM "delivery_emaildelivery"' in q["sql"]]


def test_a_long_ledger_has_its_report_on_a_page_of_its_own(
    editing: Client, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed(a_whole_week(issue))
    monkeypatch.setattr(drawn, "AT_ONCE", 7)
    assert "All figures" in page_of(editing, issue)
    assert "Took more than one attempt" not in page_of(editing, issue)
    whole = editing.get(f"/admin/report/{issue.pk}/").content.decode()
    assert "Took more than one attempt" in whole and "All figures" not in whole


def test_the_close_stores_the_report_and_its_page_reads_no_row(
    editing: Client, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed(a_whole_week(issue))
    tell_the_tally(issue)
    monkeypatch.setattr(drawn, "AT_ONCE", 7)
    with CaptureQueriesContext(connection) as captured:
        whole = editing.get(f"/admin/report/{issue.pk}/").content.decode()
    assert "Took more than one attempt" in whole and "<dt>Counted</dt>" in whole
    assert not [q["sql"] for q in captured if 'FROM "delivery_emaildelivery"' in q["sql"]]
    assert reports.latest(issue)[0] == reports.report(issue)


def test_what_is_settled_later_is_counted_anew(issue: Issue) -> None:
    closed(a_whole_week(issue))
    tell_the_tally(issue)
    settling.mark_sent([row_of("gina").pk], actor="ana", reason="gina has it")
    found, at = reports.latest(issue)
    assert [share.number for share in found.books.shares[:3]] == [5, 2, 0]
    assert reports.latest(issue) == (found, at)


@pytest.mark.parametrize(("age", "days", "stands"), [(0.5, 1, True), (2, 1, False), (24, 9, True)])
def test_a_count_stands_for_an_hour_and_for_good_a_week_after_the_close(
    issue: Issue, age: float, days: int, stands: bool
) -> None:
    closed(a_whole_week(issue))
    tell_the_tally(issue)
    now = database_now()
    Issue.objects.filter(pk=issue.pk).update(closed_at=now - timedelta(days=days))
    counted_at = now - timedelta(hours=age)
    IssueReport.objects.update(counted_at=counted_at)
    issue.refresh_from_db()
    assert (reports.latest(issue)[1] == counted_at) is stands


@pytest.mark.parametrize(
    "change", [{"books": {}}, {"reasons": [["x", 1, 2, 3]]}, {"first": "soon"}, {"unheard": 1}]
)
def test_a_report_of_another_version_is_counted_anew(issue: Issue, change: dict[str, Any]) -> None:
    closed(a_whole_week(issue))
    tell_the_tally(issue)
    row = IssueReport.objects.get()
    IssueReport.objects.update(figures={**row.figures, **change})
    assert reports.latest(issue)[0] == reports.report(issue)


def test_before_the_freeze_there_is_no_report(editing: Client) -> None:
    draft = cast.issue(cast.newsletter())
    assert "The books" not in page_of(editing, draft)
    assert editing.get(f"/admin/report/{draft.pk}/").status_code == 404


def test_the_reports_page_needs_its_permission(client: Client, issue: Issue) -> None:
    client.force_login(cast.editor("bruno", "view_issue"))
    assert client.get(f"/admin/report/{issue.pk}/").status_code == 403


def test_the_bar_shows_what_is_there_but_few(issue: Issue) -> None:
    shares = (reports.Share("sent", 999_999, 99.9999), reports.Share("unknown", 1, 0.0001))
    drawing = drawn.bar(reports.Books(1_000_000, (*shares, reports.Share("failed", 0, 0.0))))
    assert [piece.status for piece in drawing.pieces] == ["sent", "unknown"]
    assert drawing.pieces[1].width >= 3.9
    assert sum(piece.width for piece in drawing.pieces) == pytest.approx(1000, abs=0.2)
    assert drawing.label == "Of 1,000,000: 999,999 sent, 1 unknown"


# A paused issue


def test_a_paused_issue_says_since_when_by_whom_and_why(editing: Client, issue: Issue) -> None:
    row = row_of("bob")
    EmailDelivery.objects.filter(pk=row.pk).update(
        status="sending", fence=1, attempt=1, sending_at=database_now()
    )
    tell_the_tally(issue)
    editing.post(f"/admin/newsletter/issue/{issue.pk}/act/pause/", {"reason": "a wrong link"})
    text = page_of(editing, issue)
    assert "by ana.</strong> a wrong link" in text
    assert "1 copy is on the wire and comes to its end; 7 wait." in text
    assert "What still waits at" in text or "what still waits at" in text
    for action in ("resume", "cancel"):
        assert text.count(f"/act/{action}/") == 1


def test_a_pause_of_the_senders_own_says_so(editing: Client, issue: Issue) -> None:
    issue.pause(reason="11 of the first 40 were refused for good", actor="sender")
    text = page_of(editing, issue)
    assert "by the sender itself.</strong> 11 of the first 40" in text


def test_the_last_pause_is_the_one_that_is_told(editing: Client, issue: Issue) -> None:
    issue.pause(reason="first", actor="bruno")
    release.resume(issue, actor="bruno")
    issue.pause(reason="second", actor="ana")
    assert "by ana.</strong> second" in page_of(editing, issue)


def test_a_pause_before_the_freeze_says_that_nothing_was_mailed(editing: Client) -> None:
    waiting = cast.approved(cast.newsletter())
    waiting.pause(reason="not yet", actor="ana")
    assert "Nothing of it was mailed" in page_of(editing, waiting)


def test_a_cancel_keeps_its_reason(editing: Client, issue: Issue, settings: Settings) -> None:
    editing.post(f"/admin/newsletter/issue/{issue.pk}/act/cancel/", {"reason": "wrong week"})
    last = Transition.objects.of(Subject.ISSUE, issue.pk).filter(new="cancelled").get()
    assert (last.reason, last.actor) == ("wrong week", "ana")
