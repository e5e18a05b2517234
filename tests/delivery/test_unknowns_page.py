"""The unknown page: the evidence beside each row, and an operator's word."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from delivery import release, settling, timeline
from delivery.copies import Copies
from delivery.models import CompiledIssue, EmailDelivery, Job, Lease, ProviderEvent
from delivery.results import Result, record
from delivery.transports.outcomes import Outcome, Phase, Verdict
from delivery.views import unknowns
from newsletter.models import Issue, Subscriber, Subscription, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, frozen, row_of

pytestmark = pytest.mark.django_db


def lose(*names: str) -> None:
    """Their attempt ended without a word from the server."""
    for name in names:
        row = row_of(name)
        EmailDelivery.objects.filter(pk=row.pk).update(
            status="sending", fence=1, attempt=1, sending_at=database_now()
        )
        silence = Outcome(Verdict.UNKNOWN, "timed_out", "354 go ahead", Phase.DOT)
        record(row.issue, [Result(row.pk, 1, silence)])


@pytest.fixture
def issue() -> Issue:
    """Of four bob and carla are unknown."""
    made = frozen(4)
    lose("bob", "carla")
    return made


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def page(client: Client, issue: Issue, **query: int) -> str:
    return words(client.get(reverse("unknown_of", args=[issue.pk]), query).content.decode())


def say(client: Client, issue: Issue, word: str, *names: str, **form: str) -> str:
    """Tick these, press the button; what is told then."""
    data: dict[str, Any] = {"as": word, "row": [row_of(name).pk for name in names]}
    data |= {"reason": "the log says so"} | form
    path = reverse("unknown_settle", args=[issue.pk])
    text = client.post(path, data, follow=True).content.decode()
    found = re.search(r'<ul class="messagelist">.*?</ul>', text, re.DOTALL)
    return words(found[0]) if found else ""


def status(name: str) -> str:
    return row_of(name).status


# What it shows


def test_the_overview_lists_the_issues_that_have_some(editing: Client, issue: Issue) -> None:
    quiet = cast.issue(issue.newsletter, slug="quiet", title="A quiet week")
    text = words(editing.get("/admin/unknown/").content.decode())
    assert "The first issue" in text and "2 unknown" in text
    assert quiet.title not in text


def test_a_house_without_unknown_rows_says_so(editing: Client) -> None:
    frozen(1)
    text = words(editing.get("/admin/unknown/").content.decode())
    assert "None: of every copy it is known what became of it." in text


def test_each_row_has_its_evidence_beside_it(editing: Client, issue: Issue) -> None:
    row = row_of("bob")
    values = {"provider": "ses", "event_key": "1", "kind": "deferred", "raw": "not to be shown"}
    ProviderEvent.objects.create(delivery=row, note="451 later", **values)
    text = page(editing, issue)
    compiled = CompiledIssue.objects.get(pk=issue.pk)
    for said in (
        "bob@example.org",
        "no reply came in time",
        "attempt 1",
        "354 go ahead",
        Copies(compiled).message_id(row.pk).replace("<", "&lt;").replace(">", "&gt;"),
        "ses could not deliver it yet (451 later)",
        "Nobody can tell whether it was accepted",
        "settle_unknowns weekly/first-issue --postfix-log FILE",
    ):
        assert said in text, said
    assert "not to be shown" not in text
    assert "davi@example.org" not in text


def test_a_long_history_of_one_row_hides_nothing_of_another(
    editing: Client, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST", 3)
    bob, carla = row_of("bob"), row_of("carla")
    for number in range(5):
        settling.note_evidence(bob, f"number {number}", source="x")
    settling.note_evidence(carla, "hers", source="x")
    text = page(editing, issue)
    assert "Older lines are left out: the newest 3 follow" in text
    assert "number 1" not in text
    assert all(f"number {number}" in text for number in (2, 3, 4))
    assert "hers" in text


def test_the_sender_that_lost_it_is_named(editing: Client, issue: Issue) -> None:
    lease = Lease.acquire("sender:1:0")
    assert lease
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(sender=lease.pk, fence=lease.fence)
    lease.refresh_from_db()
    assert f"{lease.holder}, as sender:1:0, fence {lease.fence}" in page(editing, issue)


def test_a_lease_that_has_passed_on_does_not_blame_its_new_holder(
    editing: Client, issue: Issue
) -> None:
    lease = Lease.acquire("sender:1:0")
    assert lease
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(sender=lease.pk, fence=lease.fence)
    Lease.objects.update(fence=9, holder="another:1")
    text = page(editing, issue)
    assert "an earlier holder of sender:1:0, fence 1 (it is 9 now)" in text
    assert "another:1" not in text


def test_one_row_can_be_looked_at_alone(editing: Client, issue: Issue) -> None:
    text = page(editing, issue, row=row_of("carla").pk)
    assert "carla@example.org" in text and "bob@example.org" not in text


def test_an_erased_readers_row_is_shown_by_its_number(editing: Client, issue: Issue) -> None:
    row = row_of("bob")
    EmailDelivery.objects.filter(pk=row.pk).update(address="", name="", subscription=None)
    assert f"erased address, delivery {row.pk}" in page(editing, issue)


def test_a_compiled_issue_of_another_version_is_no_error(editing: Client, issue: Issue) -> None:
    CompiledIssue.objects.update(content={"version": 99})
    assert "bob@example.org" in page(editing, issue)


def test_it_comes_in_pages_by_the_rows_ids(
    editing: Client, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknowns, "ROWS", 1)
    text = editing.get(reverse("unknown_of", args=[issue.pk])).content.decode()
    assert "bob@example.org" in text and "carla@example.org" not in text
    assert f'href="?after={row_of("bob").pk}"' in text
    rest = editing.get(reverse("unknown_of", args=[issue.pk]), {"after": row_of("bob").pk})
    assert "carla@example.org" in rest.content.decode()
    assert "The next rows" not in rest.content.decode()


def test_its_queries_do_not_grow_with_its_rows(editing: Client, issue: Issue) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(editing, issue)
        return len(captured)

    few = queries()
    lose("davi", "eva")
    assert queries() == few


@pytest.mark.parametrize("query", ["after=x", f"row={'9' * 30}", "after=-1"])
def test_odd_numbers_in_the_address_are_no_error(editing: Client, issue: Issue, query: str) -> None:
    path = reverse("unknown_of", args=[issue.pk])
    assert editing.get(f"{path}?{query}").status_code == 200


def test_an_issue_without_a_ledger_has_no_such_page(editing: Client) -> None:
    draft = cast.issue(cast.newsletter())
    assert editing.get(reverse("unknown_of", args=[draft.pk])).status_code == 404


# What an operator says


def test_marked_sent_with_the_reason_and_the_operator_in_the_history(
    editing: Client, issue: Issue
) -> None:
    assert say(editing, issue, "sent", "bob") == "1 row is marked as sent."
    assert (status("bob"), status("carla")) == ("sent", "unknown")
    last = Transition.objects.of(Subject.DELIVERY, row_of("bob").pk).last()
    assert last and last.actor == "ana" and "the log says so" in last.reason


def test_marked_failed(editing: Client, issue: Issue) -> None:
    assert say(editing, issue, "failed", "bob", "carla") == "2 rows are marked as failed."
    assert (status("bob"), status("carla")) == ("failed", "failed")


def test_sent_again_once_that_a_second_copy_is_accepted(editing: Client, issue: Issue) -> None:
    refused = say(editing, issue, "resend", "bob")
    assert "tick that a second copy may arrive" in refused
    assert status("bob") == "unknown"
    assert say(editing, issue, "resend", "bob", twice="1") == "1 row is to be sent again."
    row = row_of("bob")
    assert (row.status, row.resend_no) == ("pending", 1)
    assert Job.objects.unfinished().filter(name="deliver").exists()


def test_all_of_the_page_at_once_without_a_script(editing: Client, issue: Issue) -> None:
    shown = [row_of("bob").pk, row_of("carla").pk]
    data = {"as": "sent", "all": "1", "shown": shown, "reason": "the log"}
    editing.post(reverse("unknown_settle", args=[issue.pk]), data)
    assert (status("bob"), status("carla")) == ("sent", "sent")


def test_nothing_happens_without_a_reason(editing: Client, issue: Issue) -> None:
    assert "say why" in say(editing, issue, "sent", "bob", reason="  ")
    assert status("bob") == "unknown"


def test_nothing_happens_without_a_tick(editing: Client, issue: Issue) -> None:
    assert "tick the rows first" in say(editing, issue, "sent")


def test_what_is_not_unknown_any_more_is_left_alone(editing: Client, issue: Issue) -> None:
    say(editing, issue, "failed", "bob")
    told = say(editing, issue, "sent", "bob", "davi")
    assert told == "2 rows are not unknown any more, and left alone."
    assert (status("bob"), status("davi")) == ("failed", "pending")


def test_another_issues_rows_are_not_settled_from_here(editing: Client, issue: Issue) -> None:
    other = cast.issue(
        issue.newsletter, slug="other", state="sent", snapshot={}, audience=1,
        audience_frozen_at=database_now(),
    )  # fmt: skip
    say(editing, other, "sent", "bob")
    assert status("bob") == "unknown"


def test_a_cancelled_issue_sends_nothing_again(editing: Client, issue: Issue) -> None:
    release.cancel(issue, actor="ana")
    assert "is cancelled" in say(editing, issue, "resend", "bob", twice="1")
    assert status("bob") == "unknown"
    assert "Send again" not in page(editing, issue).replace("“Send again”", "")
    assert say(editing, issue, "sent", "bob") == "1 row is marked as sent."


def test_a_closed_issue_stays_closed(editing: Client, issue: Issue) -> None:
    EmailDelivery.objects.filter(status="pending").update(status="sent", settled_at=database_now())
    Job.objects.filter(name="deliver").delete()
    Issue.objects.filter(pk=issue.pk).update(state="sent", closed_at=database_now())
    say(editing, issue, "resend", "bob", twice="1")
    assert Issue.objects.get(pk=issue.pk).state == "sent"
    assert status("bob") == "pending"


def test_a_row_that_is_ticked_twice_counts_once(editing: Client, issue: Issue) -> None:
    assert say(editing, issue, "sent", "bob", "bob") == "1 row is marked as sent."


def test_only_who_may_release_settles(client: Client, issue: Issue) -> None:
    client.force_login(cast.editor("bruno", "view_issue", "view_emaildelivery"))
    assert "bob@example.org" in page(client, issue)
    assert "Mark sent" not in page(client, issue)
    data = {"as": "sent", "row": row_of("bob").pk, "reason": "x"}
    assert client.post(reverse("unknown_settle", args=[issue.pk]), data).status_code == 403
    assert status("bob") == "unknown"


def test_it_needs_somebody_signed_in_who_may_see_the_ledger(client: Client, issue: Issue) -> None:
    path = reverse("unknown_of", args=[issue.pk])
    assert client.get(path)["Location"].startswith("/admin/login/")
    client.force_login(cast.editor("bruno", "view_issue"))
    assert client.get(path).status_code == 403
    assert client.get("/admin/unknown/").status_code == 403
    assert "/admin/unknown/" not in client.get("/admin/").content.decode()


def test_it_is_settled_by_post_with_a_token_only(issue: Issue) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(cast.editor())
    path = reverse("unknown_settle", args=[issue.pk])
    data = {"as": "sent", "row": row_of("bob").pk, "reason": "x"}
    assert careful.post(path, data).status_code == 403
    assert careful.get(path).status_code == 405
    assert status("bob") == "unknown"


def test_an_unknown_word_is_not_found(editing: Client, issue: Issue) -> None:
    path = reverse("unknown_settle", args=[issue.pk])
    assert editing.post(path, {"as": "delete", "row": "1", "reason": "x"}).status_code == 404


def test_the_other_pages_lead_here(editing: Client, issue: Issue) -> None:
    assert 'href="/admin/unknown/"' in editing.get("/admin/").content.decode()
    bob = row_of("bob")
    delivery = editing.get(f"/admin/delivery/emaildelivery/{bob.pk}/change/").content.decode()
    assert f"/admin/unknown/{issue.pk}/?row={bob.pk}" in delivery
    person = Subscriber.objects.get(name="Bob").pk
    assert f"/admin/readers/{person}/" in delivery
    subscriber = editing.get(f"/admin/newsletter/subscriber/{person}/change/").content.decode()
    assert f"/admin/readers/{person}/" in subscriber


def test_a_row_whose_subscription_is_gone_leads_to_the_search(
    editing: Client, issue: Issue
) -> None:
    Subscription.objects.filter(subscriber__name="Davi").delete()
    davi = row_of("davi")
    delivery = editing.get(f"/admin/delivery/emaildelivery/{davi.pk}/change/").content.decode()
    assert "/admin/readers/?q=davi%40example.org" in delivery


def test_what_was_sent_again_leaves_the_page(editing: Client, issue: Issue) -> None:
    say(editing, issue, "resend", "bob", "carla", twice="1")
    drain(but="deliver")
    assert "None here" in page(editing, issue)
