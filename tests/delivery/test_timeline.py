"""Why did this reader not get it? One recipient across issues, in words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from delivery import release, settling, timeline
from delivery.channel import CHANNEL
from delivery.models import (
    CircuitBreaker,
    EmailDelivery,
    House,
    LanePause,
    Lease,
    ProviderEvent,
)
from delivery.results import Result, record
from delivery.transports.outcomes import Outcome, Phase, Verdict
from newsletter.models import (
    Issue,
    Newsletter,
    Subscriber,
    Subscription,
    Suppression,
    Transition,
    address_key,
    database_now,
)
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, frozen, row_of

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def page_of(name: str) -> timeline.Page:
    return timeline.page(timeline.read(timeline.key_of(f"{name}@example.org")))


def entry(name: str) -> timeline.Entry:
    """What the timeline says of the one issue."""
    return next(each for each in page_of(name).entries if each.issue)


def told(name: str) -> list[str]:
    return [line.text for line in entry(name).lines]


def standing(name: str) -> str:
    ((_, _, text),) = timeline.standing(timeline.read(timeline.key_of(f"{name}@example.org")))
    return text


def on_wire(name: str, attempt: int = 1) -> EmailDelivery:
    """One of the cast's rows as its attempt leaves it on the wire."""
    now = database_now()
    changes: dict[str, Any] = {"status": "sending", "fence": 1, "attempt": attempt}
    EmailDelivery.objects.filter(pk=row_of(name).pk).update(sending_at=now, **changes)
    return row_of(name)


def answer(name: str, verdict: Verdict, reason: str, reply: str, attempt: int = 1) -> None:
    row = on_wire(name, attempt)
    outcome = Outcome(verdict, reason, reply, Phase.RCPT)
    record(row.issue, [Result(row.pk, attempt, outcome)])


def a_late_reader(weekly: Newsletter, name: str, **over: Any) -> Subscription:
    """Somebody who came to the weekly after its audience was frozen."""
    person = Subscriber.objects.create(
        address=f"{name}@example.org", address_key=address_key(f"{name}@example.org")
    )
    values = {"state": "pending", "consent_source": "the form"}
    return Subscription.objects.create(subscriber=person, newsletter=weekly, **{**values, **over})


@pytest.fixture
def issue() -> Issue:
    return frozen(4)


# In the audience


def test_what_was_accepted_is_told_from_the_audience_to_the_last_reply(issue: Issue) -> None:
    answer("bob", Verdict.SENT, "accepted", "250 queued as 4F2")
    assert told("bob") == [
        "In the audience, which was frozen then",
        "Attempt 1 was put on the wire",
        "Accepted",
    ]
    found = entry("bob")
    assert found.said == "250 queued as 4F2"
    assert found.text == "In the audience; the mail server has accepted it."
    assert (found.level, found.next) == ("good", "")


def test_a_deferred_one_says_when_it_is_tried_again(issue: Issue) -> None:
    answer("bob", Verdict.RETRY_RECIPIENT, "recipient_deferred", "450 later")
    assert told("bob")[-1] == "Not accepted, and tried again: the reader's server said: not now"
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(next_attempt_at=database_now() + HOUR)
    found = entry("bob").next
    assert "The next attempt is due at" in found and "1 of 5 attempts are spent" in found
    assert "What still waits at" in found


def test_an_attempt_after_a_retry_stands_after_it(issue: Issue) -> None:
    answer("bob", Verdict.RETRY_RECIPIENT, "recipient_deferred", "450 later")
    answer("bob", Verdict.SENT, "accepted", "250 ok", attempt=2)
    assert told("bob")[1:] == [
        "Not accepted, and tried again: the reader's server said: not now",
        "Attempt 2 was put on the wire",
        "Accepted",
    ]


def test_a_refusal_and_the_suppression_that_follows_are_told(issue: Issue) -> None:
    row = on_wire("bob")
    refused = Outcome(
        Verdict.FAILED, "mailbox_unavailable", "550 5.1.1 no such user", Phase.RCPT, suppress=True
    )
    record(issue, [Result(row.pk, 1, refused)])
    assert "there is no such mailbox" in entry("bob").text
    assert entry("bob").level == "bad"
    titles = [each.title for each in page_of("bob").entries]
    assert titles[0] == "The address was suppressed"
    assert "there is no such mailbox (550 5.1.1 no such user)" in standing("bob")


def test_an_unknown_one_names_who_settles_it(issue: Issue) -> None:
    answer("bob", Verdict.UNKNOWN, "timed_out", "")
    assert entry("bob").text == (
        "In the audience; nobody can tell whether it was accepted: no reply came in time."
    )
    assert entry("bob").next.startswith("It is never sent again by itself")


def test_an_operators_word_is_told_with_its_reason_and_author(issue: Issue) -> None:
    answer("bob", Verdict.UNKNOWN, "timed_out", "")
    settling.mark_sent([row_of("bob").pk], actor="ana", reason="bob has it")
    last = entry("bob").lines[-1]
    assert last.text.startswith("Settled: it was accepted") and "bob has it" in last.text
    assert last.by == "ana"


def test_a_resend_is_told(issue: Issue) -> None:
    answer("bob", Verdict.UNKNOWN, "timed_out", "")
    settling.resend([row_of("bob").pk], actor="ana", reason="bob asked for it")
    assert told("bob")[-1].startswith("To be sent again") and "bob asked" in told("bob")[-1]
    assert "It is due" in entry("bob").next


def test_what_a_provider_told_stands_among_it_without_its_raw_text(issue: Issue) -> None:
    answer("bob", Verdict.SENT, "accepted", "250 ok")
    values = {"provider": "ses", "event_key": "1", "kind": "bounced", "raw": "secret"}
    ProviderEvent.objects.create(delivery=row_of("bob"), note="5.2.2 full", **values)
    assert told("bob")[-1] == "ses got it back: it bounced (5.2.2 full)"
    assert entry("bob").lines[-1].level == "bad"


def test_who_is_on_the_wire_is_named_with_the_sender(issue: Issue) -> None:
    lease = Lease.acquire("sender:1:0")
    assert lease
    on_wire("bob")
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(sender=lease.pk, fence=lease.fence)
    lease.refresh_from_db()
    assert f"on the wire by {lease.holder}" in entry("bob").next


# What a waiting row waits for


def test_it_waits_for_its_turn(issue: Issue) -> None:
    assert entry("bob").next.startswith("It is due: the next sender that is free takes it.")


def test_it_waits_for_the_pause_of_the_issue(issue: Issue) -> None:
    issue.pause(reason="a typo", actor="ana")
    assert "the issue is paused since" in entry("bob").next
    assert "(a typo)" in entry("bob").next


def test_it_waits_for_the_house(issue: Issue) -> None:
    House.objects.update_or_create(
        pk=1, defaults={"paused_at": database_now(), "paused_reason": "we move"}
    )
    assert "nothing leaves this house (we move)" in entry("bob").next


def test_it_waits_for_the_lane(issue: Issue) -> None:
    LanePause.objects.create(lane="bulk", actor="ana", reason="repairs", since=database_now())
    assert "the lane bulk is paused by ana (repairs)" in entry("bob").next


def test_it_waits_for_the_breaker(issue: Issue) -> None:
    now = database_now()
    CircuitBreaker.objects.create(
        name=CHANNEL, state="open", reason="no route", until=now + HOUR, changed_at=now
    )
    assert "the mail server does not answer, and is asked again at" in entry("bob").next


def test_it_waits_blocked(issue: Issue) -> None:
    issue.block(reason="the books do not balance", actor="close")
    assert "the issue is blocked (the books do not balance)" in entry("bob").next


def test_who_said_no_since_is_told_to_be_skipped(issue: Issue) -> None:
    Subscription.objects.get(subscriber__name="Bob").unsubscribe(actor="reader", reason="by link")
    Suppression.objects.add(address_key("carla@example.org"), "complaint")
    assert entry("bob").next == "It will be skipped: there is no consent any more."
    assert entry("carla").next == "It will be skipped: the address is suppressed."
    drain(but="deliver")
    assert page_of("bob").entries[0].title == "Unsubscribed from The Weekly"


def test_a_cancelled_issue_says_so(issue: Issue) -> None:
    release.cancel(issue, actor="ana")
    assert entry("bob").text == "In the audience; it was not sent: the issue was cancelled."
    assert entry("bob").level == "warn"


# Not in the audience


def test_who_confirmed_after_the_freeze_gets_the_next_one(issue: Issue) -> None:
    row = a_late_reader(issue.newsletter, "nina")
    Subscriber.objects.update(created_at=issue.audience_frozen_at - HOUR)  # type: ignore[operator]
    row.confirm(actor="reader")
    assert entry("nina").text.startswith("Not in the audience: confirmed at ")
    assert "after the audience was frozen at" in entry("nina").text
    assert entry("nina").row is None
    assert "the next issue goes to them" in standing("nina")


def test_who_is_still_pending_is_told_so(issue: Issue) -> None:
    a_late_reader(issue.newsletter, "nina")
    assert "had not confirmed by then, and was still pending" in entry("nina").text
    assert "the address was added later" in entry("nina").text
    assert standing("nina") == "Gets nothing until they confirm: they have not yet."


def test_who_had_unsubscribed_is_told_when() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 2)
    Subscription.objects.get(subscriber__name="Bob").unsubscribe(actor="reader", reason="by link")
    _freeze(weekly)
    assert entry("bob").text.startswith("Not in the audience: had unsubscribed at ")
    assert [each.title for each in page_of("bob").entries[1:]][:1] == [
        "Unsubscribed from The Weekly"
    ]


def test_who_was_suppressed_is_told_since_when_and_why() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 2)
    Suppression.objects.add(address_key("bob@example.org"), "complaint", "through ses")
    _freeze(weekly)
    assert "suppressed since" in entry("bob").text
    assert "because the reader called a mail spam (through ses)" in entry("bob").text


def test_who_was_erased_is_found_by_the_address_that_is_gone() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 2)
    Subscriber.objects.filter(name="Bob").update(address="", name="")
    _freeze(weekly)
    assert entry("bob").text == "Not in the audience: the address was erased."
    assert standing("bob") == "Gets nothing: the address was erased."


def test_whose_person_is_gone_is_found_in_the_ledger_by_the_key(issue: Issue) -> None:
    answer("bob", Verdict.SENT, "accepted", "250 ok")
    Subscriber.objects.filter(name="Bob").delete()
    assert timeline.read(timeline.key_of("bob@example.org")).subscriber is None
    assert told("bob")[-1] == "Accepted"


def test_an_issue_that_is_not_frozen_says_so() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 1)
    waiting = cast.approved(weekly)
    assert entry("bob").text == "Its audience is not frozen yet: who is confirmed then gets it."
    release.cancel(waiting, actor="ana")
    assert "cancelled before it had an audience" in entry("bob").text


def test_other_newsletters_issues_are_not_theirs(issue: Issue) -> None:
    monthly = cast.newsletter(slug="monthly", name="The Monthly")
    cast.approved(monthly, slug="other")
    assert len([each for each in page_of("bob").entries if each.issue]) == 1


def _freeze(weekly: Newsletter) -> Issue:
    made = cast.approved(weekly)
    release.start(made, actor="ana", now=True)
    drain(but="deliver")
    made.refresh_from_db()
    assert made.audience
    return made


# Pages


def test_addresses_are_found_however_they_are_written(issue: Issue) -> None:
    assert timeline.key_of(" BOB@Example.ORG ") == timeline.key_of("bob@example.org")
    with pytest.raises(ValueError, match="@-sign"):
        timeline.key_of("bob")


def _many(weekly: Newsletter, number: int) -> None:
    """Frozen issues, one an hour, each with bob's row."""
    start: datetime = database_now() - HOUR * number
    bob = Subscription.objects.get(subscriber__name="Bob")
    for n in range(number):
        at = start + HOUR * n
        made = cast.issue(
            weekly,
            slug=f"issue-{n}",
            title=f"Issue {n}",
            state="sent",
            snapshot={},
            audience=1,
            audience_frozen_at=at,
        )
        EmailDelivery.objects.create(
            issue=made, subscription=bob, address_key=address_key("bob@example.org"), status="sent"
        )


def test_it_comes_in_pages_newest_first_and_events_stand_in_their_time() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 1)
    _many(weekly, 45)
    Subscriber.objects.update(created_at=database_now() - 100 * HOUR)
    Subscription.objects.update(consent_at=database_now() - 99 * HOUR)
    reader = timeline.read(timeline.key_of("bob@example.org"))
    pages = [timeline.page(reader, number) for number in (1, 2, 3, 4)]
    titles = [[each.title for each in found.entries] for found in pages]
    assert titles[0] == [f"Issue {n}" for n in range(44, 24, -1)]
    assert titles[1] == [f"Issue {n}" for n in range(24, 4, -1)]
    own = ["Confirmed The Weekly", "The address was added"]
    assert titles[2] == [*(f"Issue {n}" for n in range(4, -1, -1)), *own]
    assert titles[3] == []
    assert [found.is_last for found in pages] == [False, False, True, True]


def test_a_page_takes_the_same_number_of_queries_however_much_it_shows(issue: Issue) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page_of("bob")
        return len(captured)

    few = queries()
    _many(issue.newsletter, 30)
    assert queries() == few <= 16


def test_each_query_of_a_page_has_its_index(issue: Issue) -> None:
    _many(issue.newsletter, 30)
    with CaptureQueriesContext(connection) as captured:
        page_of("bob")
    ledger = [q["sql"] for q in captured if "delivery_emaildelivery" in q["sql"]]
    assert ledger
    for sql in ledger:
        assert not _reads_all_of_the_ledger(sql), sql


def _reads_all_of_the_ledger(sql: str) -> bool:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            plan = [row[3] for row in cursor.fetchall()]
            return any(step.startswith("SCAN") and "emaildelivery" in step for step in plan)
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql}")
        plan = [row[0] for row in cursor.fetchall()]
        return any("Seq Scan on delivery_emaildelivery" in step for step in plan)


# The pages in the admin


def test_a_consent_that_changed_all_too_often_is_cut_and_says_so(
    issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST", 2)
    zoe = a_late_reader(issue.newsletter, "zoe")
    for number in range(4):
        told = (Subject.SUBSCRIPTION, [zoe.pk], "x", "confirmed", f"number {number}", "zoe")
        Transition.objects.record(*told)
    entries = page_of("zoe").entries
    assert [each.text for each in entries[:3]] == [
        "number 3, by zoe",
        "number 2, by zoe",
        "the newest 2 lines follow",
    ]
    assert "their history of that time is left out here" in entry("zoe").text


def test_what_was_noted_in_one_millisecond_stands_in_the_order_of_its_making(issue: Issue) -> None:
    """SQLite's clock is cut to the millisecond: it notes what follows on a row of Python's as if it came before."""
    zoe = a_late_reader(issue.newsletter, "zoe")
    told = (Subject.SUBSCRIPTION, [zoe.pk], "pending", "confirmed", "the link", "zoe")
    Transition.objects.record(*told)
    at = (database_now() + HOUR).replace(microsecond=202000)
    Transition.objects.of(Subject.SUBSCRIPTION, zoe.pk).update(at=at)
    later = at.replace(microsecond=202142)
    Subscriber.objects.filter(pk=zoe.subscriber_id).update(created_at=later)
    assert [each.title for each in page_of("zoe").entries[:2]] == [
        "Confirmed The Weekly",
        "The address was added",
    ]


def test_typing_an_address_leads_to_its_timeline(editing: Client, issue: Issue) -> None:
    bob = Subscriber.objects.get(name="Bob")
    found = editing.get("/admin/readers/", {"q": "Bob@example.org"})
    assert found["Location"] == f"/admin/readers/{bob.pk}/"
    text = editing.get(found["Location"]).content.decode()
    assert "The first issue" in text and "In the audience" in text


def test_typing_the_beginning_lists_who_begins_so(editing: Client, issue: Issue) -> None:
    text = editing.get("/admin/readers/", {"q": "b"}).content.decode()
    assert "bob@example.org" in text and "carla@example.org" not in text


def test_more_matches_than_fit_say_so(editing: Client) -> None:
    cast.readers(cast.newsletter(), 40)
    text = editing.get("/admin/readers/", {"q": "reader"}).content.decode()
    assert "The first 20 addresses that begin so: type more" in text


def test_typing_an_address_that_nobody_has_says_so(editing: Client, issue: Issue) -> None:
    text = editing.get("/admin/readers/", {"q": "nobody@example.org"}).content.decode()
    assert "Nobody here has this address" in text


def test_typing_a_suppressed_strangers_address_says_why(editing: Client) -> None:
    Suppression.objects.add(address_key("zoe@example.org"), "operator", "asked by letter")
    text = editing.get("/admin/readers/", {"q": "zoe@example.org"}).content.decode()
    assert "The address was suppressed" in text and "asked by letter" in text


@pytest.mark.parametrize("typed", ["\0", "%", "_", "a" * 500, "'", "“ @"])
def test_odd_things_typed_are_no_error(editing: Client, issue: Issue, typed: str) -> None:
    assert editing.get("/admin/readers/", {"q": typed}).status_code == 200


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999", "²"])
def test_a_page_that_is_no_number_is_not_found(editing: Client, issue: Issue, number: str) -> None:
    bob = Subscriber.objects.get(name="Bob")
    assert editing.get(f"/admin/readers/{bob.pk}/", {"page": number}).status_code == 404


def test_a_page_beyond_the_last_is_empty(editing: Client, issue: Issue) -> None:
    bob = Subscriber.objects.get(name="Bob")
    text = editing.get(f"/admin/readers/{bob.pk}/", {"page": "9"}).content.decode()
    assert "Nothing more." in text


def test_times_are_the_newsletters_own(editing: Client) -> None:
    issue = frozen(1, zone="Asia/Tokyo")
    issue.pause(reason="a typo", actor="ana")
    bob = Subscriber.objects.get(name="Bob")
    assert "JST" in editing.get(f"/admin/readers/{bob.pk}/").content.decode()
    assert "JST" in entry("bob").next


def test_it_needs_its_permission(client: Client, settings: Settings) -> None:
    assert client.get("/admin/readers/")["Location"].startswith("/admin/login/")
    client.force_login(cast.editor("bruno", "view_issue"))
    assert client.get("/admin/readers/").status_code == 403
    assert client.get("/admin/readers/1/").status_code == 403
