"""An issue's states: what moves it, what forbids it, and what the history says."""

from __future__ import annotations

import threading
from datetime import date

import pytest
from django.db import IntegrityError, connection, transaction

from newsletter.models import Issue, Refused, Transition, database_now
from newsletter.models.issue import MOVES, IssueState
from newsletter.models.transition import Subject
from newsletter.signals import issue_edited
from tests import cast

pytestmark = pytest.mark.django_db

LEGAL = sorted((str(old), str(new)) for old, news in MOVES.items() for new in news)
ILLEGAL = sorted(
    (str(old), str(new)) for old in IssueState for new in IssueState if new not in MOVES[old]
)


@pytest.fixture
def draft() -> Issue:
    return cast.issue(cast.newsletter())


def at(issue: Issue, state: str) -> Issue:
    """The issue put into a state, with what the database asks of that state."""
    frozen = state in ("sending", "sent")
    Issue.objects.filter(pk=issue.pk).update(
        state=state,
        snapshot=None if state == "draft" else issue.document().to_json(),
        audience=1 if frozen else None,
        audience_frozen_at=database_now() if frozen else None,
    )
    issue.refresh_from_db()
    return issue


def history(issue: Issue) -> list[tuple[str, str, str, str]]:
    rows = Transition.objects.of(Subject.ISSUE, issue.pk)
    return list(rows.values_list("old", "new", "reason", "actor"))


@pytest.mark.parametrize(("old", "new"), LEGAL)
def test_a_legal_move_is_made_and_written_down(draft: Issue, old: str, new: str) -> None:
    issue = at(draft, old)
    frozen = {"audience": 1, "audience_frozen_at": database_now()} if new == "sending" else {}
    snapshot = {"snapshot": issue.document().to_json()} if new == "approved" else {}
    assert issue.move(new, reason="a test", actor="ana", **frozen, **snapshot)
    assert Issue.objects.get().state == new
    assert history(issue) == [(old, new, "a test", "ana")]


@pytest.mark.parametrize(("old", "new"), ILLEGAL)
def test_an_illegal_move_raises_and_leaves_no_trace(draft: Issue, old: str, new: str) -> None:
    issue = at(draft, old)
    with pytest.raises(Refused, match=f"is {old}; it cannot become {new}"):
        issue.move(new, reason="a test", actor="ana")
    assert Issue.objects.get().state == old
    assert history(issue) == []


def test_a_move_that_somebody_else_made_first_is_lost_without_a_trace(draft: Issue) -> None:
    stale = Issue.objects.get(pk=draft.pk)
    draft.approve(actor="ana")
    assert not stale.move("cancelled", reason="late", actor="bruno")
    assert Issue.objects.get().state == "approved"
    assert [row[3] for row in history(draft)] == ["ana"]


def test_the_database_refuses_a_state_that_nobody_knows(draft: Issue) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Issue.objects.update(state="lost")


def test_the_database_refuses_an_approved_issue_without_snapshot(draft: Issue) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Issue.objects.update(state="approved")


def test_the_database_refuses_to_send_without_an_audience(draft: Issue) -> None:
    draft.approve(actor="ana")
    with pytest.raises(IntegrityError), transaction.atomic():
        Issue.objects.update(state="sending")


def test_approval_stores_who_when_and_what(draft: Issue) -> None:
    draft.approve(actor="ana")
    assert draft.state == "approved"
    assert draft.approved_by == "ana"
    assert draft.approved_at is not None
    assert draft.approved_document() == draft.document()
    assert history(draft) == [("draft", "approved", "approved", "ana")]


def test_a_second_approval_is_refused(draft: Issue) -> None:
    draft.approve(actor="ana")
    with pytest.raises(Refused, match="not a draft"):
        draft.approve(actor="bruno")
    assert Issue.objects.get().approved_by == "ana"


def test_an_issue_without_a_postal_address_is_not_approved() -> None:
    issue = cast.issue(cast.newsletter(postal_address=""))
    with pytest.raises(Refused, match="postal address"):
        issue.approve(actor="ana")
    assert Issue.objects.get().state == "draft"


def test_an_issue_with_an_empty_body_is_not_approved() -> None:
    issue = cast.issue(cast.newsletter(), markdown="<!-- nothing -->\n")
    with pytest.raises(Refused, match="body is empty"):
        issue.approve(actor="ana")


def test_what_was_approved_counts_and_not_what_stands_there_later(draft: Issue) -> None:
    draft.approve(actor="ana")
    Issue.objects.update(title="Somebody else's", markdown="Behind her back.")
    draft.newsletter.postal_address = "Elsewhere"
    draft.newsletter.save()
    fresh = Issue.objects.select_related("newsletter").get()
    assert fresh.approved_document().title == "The first issue"
    assert fresh.approved_document().markdown == cast.MARKDOWN
    assert fresh.approved_document().postal_address == "1 Main Street, Lisbon"


def test_a_draft_has_no_approved_document(draft: Issue) -> None:
    with pytest.raises(Refused, match="not approved"):
        draft.approved_document()


@pytest.mark.parametrize("state", ["approved", "awaiting_podcast", "publishing", "published"])
def test_an_edit_before_the_freeze_revokes_the_approval_and_stops_the_run(
    draft: Issue, state: str
) -> None:
    draft.approve(actor="ana")
    Issue.objects.update(state=state, started_at=database_now(), web_url="https://old.example.org/")
    Issue.objects.update(paused_at=database_now(), paused_reason="wait", blocked_reason="refused")
    draft.edit(actor="bruno", title="A better title")
    assert (draft.state, draft.title, draft.snapshot) == ("draft", "A better title", None)
    assert (draft.approved_by, draft.approved_at, draft.started_at) == ("", None, None)
    assert (draft.web_url, draft.paused_at, draft.blocked_reason) == ("", None, "")
    assert history(draft)[-1] == (state, "draft", "edited: title", "bruno")


@pytest.mark.parametrize("state", ["sending", "sent", "cancelled"])
def test_an_edit_after_the_end_is_refused(draft: Issue, state: str) -> None:
    at(draft, state)
    with pytest.raises(Refused, match=f"is {state}"):
        draft.edit(actor="ana", title="Too late")
    assert Issue.objects.get().title == "The first issue"


def test_an_edit_of_a_draft_leaves_no_history(draft: Issue) -> None:
    draft.edit(actor="ana", title="A better title", release_date=date(2026, 6, 8))
    assert (draft.title, draft.release_date) == ("A better title", date(2026, 6, 8))
    assert history(draft) == []


def test_an_edit_that_changes_nothing_keeps_the_approval(draft: Issue) -> None:
    draft.approve(actor="ana")
    draft.edit(actor="ana", title=draft.title, markdown=draft.markdown)
    assert draft.state == "approved"


def test_an_edit_tells_that_the_approval_is_gone(draft: Issue) -> None:
    told: list[int] = []

    def listen(issue_id: int, **_: object) -> None:
        told.append(issue_id)

    issue_edited.connect(listen)
    try:
        draft.edit(actor="ana", title="Still a draft")
        assert told == []
        draft.approve(actor="ana")
        draft.edit(actor="ana", title="Not approved any more")
    finally:
        issue_edited.disconnect(listen)
    assert told == [draft.pk]


def test_the_slug_of_a_post_that_stands_stays_as_it_is(draft: Issue) -> None:
    draft.approve(actor="ana")
    Issue.objects.update(post_sha="a" * 40, post_path="content/posts/first-issue.md")
    with pytest.raises(Refused, match="its slug stays"):
        draft.edit(actor="ana", slug="another-slug")


def test_an_edited_issue_can_be_approved_again(draft: Issue) -> None:
    draft.approve(actor="ana")
    draft.edit(actor="ana", title="A better title")
    draft.approve(actor="bruno")
    assert draft.approved_document().title == "A better title"


def test_a_pause_and_its_end_are_facts_beside_the_state(draft: Issue) -> None:
    draft.approve(actor="ana")
    assert draft.pause(reason="a typo", actor="ana")
    assert (draft.state, draft.paused_reason) == ("approved", "a typo")
    assert not draft.pause(reason="again", actor="ana")
    assert draft.resume(actor="bruno")
    assert draft.paused_at is None
    assert not draft.resume(actor="bruno")
    reasons = [row[2] for row in history(draft)]
    assert reasons == ["approved", "paused: a typo", "resumed"]


def test_a_draft_cannot_be_paused(draft: Issue) -> None:
    assert not draft.pause(reason="why", actor="ana")


def test_a_block_is_told_once_and_lifted_once(draft: Issue) -> None:
    draft.approve(actor="ana")
    Issue.objects.update(state="publishing")
    assert draft.block(reason="no right to write", actor="release")
    assert not draft.block(reason="again", actor="release")
    assert draft.blocked_reason == "no right to write"
    assert draft.unblock(actor="ana", reason="token renewed")
    assert not draft.unblock(actor="ana", reason="again")


@pytest.mark.parametrize("state", ["draft", "approved", "publishing", "sending"])
def test_an_issue_is_cancelled_once(draft: Issue, state: str) -> None:
    at(draft, state)
    assert draft.cancel(actor="ana", reason="wrong week")
    assert not draft.cancel(actor="ana", reason="again")
    assert Issue.objects.get().state == "cancelled"
    assert history(draft) == [(state, "cancelled", "wrong week", "ana")]


def test_a_sent_issue_is_not_cancelled(draft: Issue) -> None:
    with pytest.raises(Refused, match="is sent"):
        at(draft, "sent").cancel(actor="ana")


def test_a_slug_is_taken_once_in_a_newsletter(draft: Issue) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        cast.issue(draft.newsletter)
    assert cast.issue(cast.newsletter(slug="monthly")).slug == draft.slug


@pytest.mark.parametrize("slug", ["2026", "Upper", "two--hyphens", "-first", "a b", "a_b", ""])
def test_a_slug_that_is_no_slug_is_refused(draft: Issue, slug: str) -> None:
    draft.slug = slug
    with pytest.raises(Exception, match="slug"):
        draft.full_clean()


@pytest.mark.django_db(transaction=True)
def test_two_approvals_at_once_make_one() -> None:
    issue = cast.issue(cast.newsletter())
    start = threading.Barrier(2)
    results: list[str] = []

    def approve(actor: str) -> None:
        try:
            mine = Issue.objects.get(pk=issue.pk)
            start.wait(10)
            mine.approve(actor=actor)
            results.append("approved")
        except Refused:
            results.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=approve, args=(name,)) for name in ("ana", "bruno")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["approved", "refused"]
    assert len(history(issue)) == 1
