"""Django's admin: the lists, the issue's page, its form and its buttons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from delivery import sending
from delivery.models import (
    Alert,
    CircuitBreaker,
    EmailDelivery,
    Job,
    Lease,
    Notification,
    Occurrence,
    TransactionalMail,
)
from newsletter.models import (
    Issue,
    Newsletter,
    Podcast,
    Subscriber,
    Suppression,
    Transition,
    address_key,
    database_now,
)
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import frozen

pytestmark = pytest.mark.django_db

OURS = [model for model in site._registry if model._meta.app_label in ("newsletter", "delivery")]
BUTTON = re.compile(r'/act/(\w+)/"')


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


def page_of(issue: Issue) -> str:
    return reverse("admin:newsletter_issue_change", args=[issue.pk])


def act(issue: Issue, action: str) -> str:
    return reverse("admin:newsletter_issue_act", args=[issue.pk, action])


def preview(issue: Issue, what: str) -> str:
    return reverse("admin:newsletter_issue_preview", args=[issue.pk, what])


def buttons(client: Client, issue: Issue) -> set[str]:
    return set(BUTTON.findall(client.get(page_of(issue)).content.decode()))


def form(**over: str) -> dict[str, str]:
    values = {
        "title": "The first issue",
        "slug": "first-issue",
        "summary": "What happened.",
        "author": "",
        "tags": "[]",
        "release_date": "2026-06-01",
        "markdown": cast.MARKDOWN,
    }
    return {**values, **over}


def errors(client: Client, path: str, data: dict[str, str]) -> str:
    """What the form says when it refuses."""
    answer = client.post(path, data)
    assert answer.status_code == 200, "the form took it"
    return answer.content.decode()


def state(issue: Issue) -> str:
    return Issue.objects.get(pk=issue.pk).state


def everything(newsletter: Newsletter) -> Issue:
    """One row or more of each of our models."""
    cast.readers(newsletter, 3)
    issue = cast.approved(newsletter)
    Issue.objects.filter(pk=issue.pk).update(state="published", web_url="https://x.example.org/")
    issue.refresh_from_db()
    assert sending.freeze(issue, sending.compile_issue(issue), actor="release")
    Lease.acquire("sender:1:0")
    now = database_now()
    Occurrence.objects.create(schedule="release", newsletter=newsletter, due_utc=now, issue=issue)
    notice = {"event": "started", "level": "info", "title": "It starts", "lines": []}
    Notification.objects.create(key="started:1", channel="discord", issue=issue, notice=notice)
    Suppression.objects.create(address_key=address_key("x@example.org"), reason="complaint")
    Podcast.objects.create(issue=issue, newsletter=newsletter, waiting_since=now)
    CircuitBreaker.objects.create(name="github", changed_at=now)
    Alert.objects.create(name="failures:publish", raised_at=now, times=1)
    TransactionalMail.objects.create(kind="test", address="bob@example.org", issue=issue, nonce="n")
    issue.refresh_from_db()
    return issue


# The lists


def test_nobody_types_a_schedule_of_django_q2_there() -> None:
    assert {model._meta.app_label for model in site._registry} == {"auth", "delivery", "newsletter"}


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_each_list_loads_with_its_rows(
    editing: Client, weekly: Newsletter, model: type[Issue]
) -> None:
    everything(weekly)
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    answer = editing.get(reverse(name))
    assert answer.status_code == 200
    assert answer.context["cl"].result_count > 0


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_each_row_has_a_page(editing: Client, weekly: Newsletter, model: type[Issue]) -> None:
    everything(weekly)
    row = model._default_manager.all()[0]
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
    assert editing.get(reverse(name, args=[row.pk])).status_code == 200


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_each_list_needs_somebody_signed_in(client: Client, model: type[Issue]) -> None:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    assert client.get(reverse(name)).status_code == 302


def test_the_ledger_is_filtered_by_status_and_issue(editing: Client, weekly: Newsletter) -> None:
    issue = everything(weekly)
    first = EmailDelivery.objects.order_by("id")[0]
    EmailDelivery.objects.filter(pk=first.pk).update(status="failed")
    path = reverse("admin:delivery_emaildelivery_changelist")
    for query, found in ({"status__exact": "failed"}, 1), ({"issue__id__exact": issue.pk}, 3):
        assert editing.get(path, query, follow=True).context["cl"].result_count == found


def test_the_ledger_and_the_readers_are_searched_by_address(
    editing: Client, weekly: Newsletter
) -> None:
    everything(weekly)
    for name in "delivery_emaildelivery", "newsletter_subscriber":
        path = reverse(f"admin:{name}_changelist")
        assert editing.get(path, {"q": "carla@"}).context["cl"].result_count == 1
        assert editing.get(path, {"q": "nobody@"}).context["cl"].result_count == 0


def test_issues_are_searched_and_filtered(editing: Client, weekly: Newsletter) -> None:
    cast.issue(weekly)
    cast.approved(weekly, slug="second-issue", title="Another")
    path = reverse("admin:newsletter_issue_changelist")
    for query in {"q": "Another"}, {"q": "second-issue"}, {"state__exact": "approved"}:
        found = editing.get(path, query).context["cl"].result_list
        assert [issue.title for issue in found] == ["Another"]


def test_the_ledgers_list_takes_no_query_for_each_row(
    editing: Client, weekly: Newsletter, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    everything(weekly)
    monthly = cast.newsletter(slug="monthly")
    for number in range(20):
        issue = cast.issue(monthly, slug=f"issue-{number}")
        key = f"{number:064}"
        EmailDelivery.objects.create(issue=issue, address_key=key, status="pending")
    with django_assert_max_num_queries(8):
        editing.get(reverse("admin:delivery_emaildelivery_changelist"))


@pytest.mark.parametrize("model", [EmailDelivery, Job, Lease, Subscriber, Suppression])
def test_what_the_machine_keeps_is_not_edited_by_hand(
    editing: Client, weekly: Newsletter, model: type[Issue]
) -> None:
    everything(weekly)
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    row = model._default_manager.all()[0]
    assert editing.get(reverse(f"{name}_add")).status_code == 403
    assert editing.post(reverse(f"{name}_change", args=[row.pk]), {}).status_code == 403
    assert editing.post(reverse(f"{name}_delete", args=[row.pk])).status_code == 403


def test_no_page_shows_a_token(editing: Client, weekly: Newsletter) -> None:
    everything(weekly)
    reader = Subscriber.objects.order_by("id")[0]
    page = editing.get(reverse("admin:newsletter_subscriber_change", args=[reader.pk]))
    assert reader.subscription_set.get().token not in page.content.decode()
    lease = Lease.objects.get()
    page = editing.get(reverse("admin:delivery_lease_change", args=[lease.pk]))
    assert lease.token not in page.content.decode()


# The form


def test_an_issue_is_written_in_the_form(editing: Client, weekly: Newsletter) -> None:
    data = form(newsletter=str(weekly.pk), tags='["rust", "weekly"]')
    answer = editing.post(reverse("admin:newsletter_issue_add"), data)
    assert answer.status_code == 302
    issue = Issue.objects.get()
    assert (issue.state, issue.slug, issue.tags) == ("draft", "first-issue", ["rust", "weekly"])


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"title": ""}, "This field is required."),
        ({"markdown": ""}, "This field is required."),
        ({"slug": "2026"}, "not digits alone"),
        ({"slug": "Upper"}, "not digits alone"),
        ({"tags": "rust, weekly"}, "Enter a valid JSON."),
        ({"tags": '{"a": 1}'}, "Tags are a list of words"),
        ({"release_date": "soon"}, "Enter a valid date."),
    ],
)
def test_the_form_says_what_is_wrong(
    editing: Client, weekly: Newsletter, over: dict[str, str], said: str
) -> None:
    data = form(newsletter=str(weekly.pk), **over)
    assert said in errors(editing, reverse("admin:newsletter_issue_add"), data)
    assert not Issue.objects.exists()


@pytest.mark.parametrize("tags", ["", "[]", "null"])
def test_no_tags_are_an_empty_list(editing: Client, weekly: Newsletter, tags: str) -> None:
    data = form(newsletter=str(weekly.pk), tags=tags)
    assert editing.post(reverse("admin:newsletter_issue_add"), data).status_code == 302
    issue = Issue.objects.get()
    assert issue.tags == []
    assert editing.post(page_of(issue), form(tags=tags, title="Other")).status_code == 302
    assert (Issue.objects.get().tags, Issue.objects.get().title) == ([], "Other")


def test_a_taken_slug_is_refused_when_an_issue_is_added(
    editing: Client, weekly: Newsletter
) -> None:
    cast.issue(weekly)
    data = form(newsletter=str(weekly.pk))
    said = errors(editing, reverse("admin:newsletter_issue_add"), data)
    assert "Newsletter and Slug already exists." in said


def test_a_taken_slug_is_refused_when_an_issue_is_changed(
    editing: Client, weekly: Newsletter
) -> None:
    cast.issue(weekly)
    second = cast.issue(weekly, slug="second-issue")
    said = errors(editing, page_of(second), form(slug="first-issue"))
    assert "Another issue of this newsletter has that slug." in said
    assert Issue.objects.get(pk=second.pk).slug == "second-issue"


def test_a_draft_is_changed(editing: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly)
    assert editing.post(page_of(issue), form(title="Better")).status_code == 302
    assert Issue.objects.get().title == "Better"


def test_an_edit_through_the_form_revokes_the_approval(editing: Client, weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    editing.post(page_of(issue), form(title="Better"))
    fresh = Issue.objects.get()
    assert (fresh.state, fresh.title, fresh.snapshot) == ("draft", "Better", None)
    row = Transition.objects.of(Subject.ISSUE, issue.pk).order_by("-id")[0]
    assert (row.new, row.reason, row.actor) == ("draft", "edited: title", "ana")


def test_saving_the_form_unchanged_keeps_the_approval(editing: Client, weekly: Newsletter) -> None:
    """Browsers send CR LF: that alone is no edit."""
    issue = cast.approved(weekly)
    data = form(markdown=cast.MARKDOWN.replace("\n", "\r\n"))
    assert editing.post(page_of(issue), data).status_code == 302
    assert state(issue) == "approved"


def test_what_is_being_mailed_is_not_changed(editing: Client, weekly: Newsletter) -> None:
    issue = everything(weekly)
    editing.post(page_of(issue), form(title="Too late"))
    fresh = Issue.objects.get()
    assert (fresh.state, fresh.title) == ("sending", "The first issue")


def test_an_issue_stays_in_its_newsletter(editing: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly)
    monthly = cast.newsletter(slug="monthly")
    editing.post(page_of(issue), form(newsletter=str(monthly.pk), title="Better"))
    assert Issue.objects.get().newsletter == weekly


def test_only_what_nobody_was_mailed_can_be_deleted(editing: Client, weekly: Newsletter) -> None:
    sending_now = everything(weekly)
    path = reverse("admin:newsletter_issue_delete", args=[sending_now.pk])
    assert editing.post(path, {"post": "yes"}).status_code == 403
    draft = cast.issue(weekly, slug="second-issue")
    path = reverse("admin:newsletter_issue_delete", args=[draft.pk])
    assert editing.post(path, {"post": "yes"}).status_code == 302
    assert list(Issue.objects.all()) == [sending_now]


def test_a_newsletter_is_made_in_the_form_and_its_mistakes_are_told(editing: Client) -> None:
    data = {
        "name": "The Weekly",
        "slug": "weekly",
        "language": "en",
        "from_email": "ana@news.example.org",
        "postal_address": "1 Main Street",
        "zone": "Europe/Lisbon",
        "release_weekday": "0",
        "release_time": "07:00",
        "safety_net_time": "09:00",
        "too_late_time": "18:00",
        "post_path": "content/posts/{date}-{slug}.md",
    }
    path = reverse("admin:newsletter_newsletter_add")
    assert "is not a time zone" in errors(editing, path, {**data, "zone": "Lisbon"})
    assert "needs its repository" in errors(editing, path, {**data, "publisher": "github"})
    assert "must follow each other" in errors(editing, path, {**data, "too_late_time": "06:00"})
    assert editing.post(path, data).status_code == 302
    assert Newsletter.objects.get().zone == "Europe/Lisbon"


def test_the_folder_of_a_blog_is_named_by_who_rules_the_host(
    editing: Client, admin_client: Client, weekly: Newsletter, tmp_path: Path
) -> None:
    path = reverse("admin:newsletter_newsletter_change", args=[weekly.pk])
    data = {
        **{name: getattr(weekly, name) for name in ("name", "slug", "language", "from_email")},
        **{name: getattr(weekly, name) for name in ("zone", "release_weekday", "post_path")},
        "release_time": "07:00",
        "safety_net_time": "09:00",
        "too_late_time": "18:00",
        "publisher": "folder",
        "folder": str(tmp_path),
    }
    assert "needs its repository or folder" in errors(editing, path, data)
    assert admin_client.post(path, data).status_code == 302
    assert Newsletter.objects.get().folder == str(tmp_path)


# The issue's page


def test_it_shows_state_steps_and_history(editing: Client, weekly: Newsletter) -> None:
    issue = everything(weekly)
    page = editing.get(page_of(issue)).content.decode()
    assert ">Sending" in page
    assert "deliver:" in page
    assert "audience frozen: 3" in page
    assert "The books so far" in page
    assert "It starts" in page


def test_a_draft_shows_what_forbids_its_approval(editing: Client) -> None:
    issue = cast.issue(cast.newsletter(postal_address=""))
    assert "The newsletter has no postal address" in editing.get(page_of(issue)).content.decode()


def test_a_draft_shows_what_its_author_should_look_at(editing: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly, markdown="[here](/relative)\n")
    assert "The link to /relative is relative" in editing.get(page_of(issue)).content.decode()


def test_it_shows_a_block_and_a_pause(editing: Client, weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    Issue.objects.update(state="publishing", blocked_reason="no right to write")
    issue.refresh_from_db()
    issue.pause(reason="a typo", actor="ana")
    page = editing.get(page_of(issue)).content.decode()
    assert "Blocked: no right to write" in page
    assert "paused: a typo" in page


@pytest.mark.parametrize("object_id", ["abc", "999999", "9" * 30])
@pytest.mark.parametrize("rest", ["change/", "preview/html/", "act/approve/"])
def test_a_page_of_no_issue_is_not_found(editing: Client, object_id: str, rest: str) -> None:
    path = f"/admin/newsletter/issue/{object_id}/{rest}"
    answer = editing.post(path) if rest.startswith("act") else editing.get(path)
    assert answer.status_code in (302, 404)  # the change page goes to the index and says so


@pytest.mark.parametrize(
    ("what", "content_type", "inside"),
    [
        ("html", "text/html; charset=utf-8", "<strong>readers</strong>"),
        ("text", "text/plain; charset=utf-8", "readers"),
        ("post", "text/plain; charset=utf-8", "title:"),
    ],
)
def test_a_preview_shows_the_draft_under_a_strict_policy(
    editing: Client, weekly: Newsletter, what: str, content_type: str, inside: str
) -> None:
    answer = editing.get(preview(cast.issue(weekly), what))
    assert (answer.status_code, answer["Content-Type"]) == (200, content_type)
    assert inside in answer.content.decode()
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert policy.endswith("sandbox")
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_a_preview_shows_what_was_approved(editing: Client, weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    Issue.objects.update(markdown="Behind her back.")
    assert "readers" in editing.get(preview(issue, "text")).content.decode()


def test_a_preview_leaves_no_placeholder(editing: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly, markdown="Hello {{ name|there }}.\n")
    for what in "html", "text", "post":
        page = editing.get(preview(issue, what)).content.decode()
        assert "CARTEIRO" not in page.upper().replace("NEWS.EXAMPLE.ORG", "")
    assert "Hello there." in editing.get(preview(issue, "text")).content.decode()


def test_there_is_no_other_preview(editing: Client, weekly: Newsletter) -> None:
    assert editing.get(preview(cast.issue(weekly), "pdf")).status_code == 404


def test_a_preview_needs_the_right_to_see_the_issue(client: Client, weekly: Newsletter) -> None:
    client.force_login(cast.editor("bruno", "view_subscriber"))
    assert client.get(preview(cast.issue(weekly), "html")).status_code == 403


# The buttons


def test_each_state_has_its_buttons(editing: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly)
    assert buttons(editing, issue) == {"approve", "cancel"}
    issue.approve(actor="ana")
    assert buttons(editing, issue) == {"release", "pause", "cancel"}
    Issue.objects.update(state="awaiting_podcast")
    assert buttons(editing, issue) == {"without_podcast", "pause", "cancel"}
    Issue.objects.update(state="publishing", blocked_reason="refused")
    assert buttons(editing, issue) == {"without_blog", "retry", "pause", "cancel"}
    Issue.objects.update(blocked_reason="", paused_at=database_now())
    assert buttons(editing, issue) == {"resume", "cancel"}
    Issue.objects.update(state="cancelled", paused_at=None, post_sha="a" * 40)
    assert buttons(editing, issue) == {"remove_post"}


def test_who_may_only_look_sees_no_buttons(client: Client, weekly: Newsletter) -> None:
    client.force_login(cast.editor("bruno", "view_issue"))
    issue = cast.issue(weekly)
    assert client.get(page_of(issue)).status_code == 200
    assert buttons(client, issue) == set()


def test_who_may_only_write_sees_no_buttons(client: Client, weekly: Newsletter) -> None:
    client.force_login(cast.editor("bruno", "view_issue", "change_issue"))
    assert buttons(client, cast.approved(weekly)) == set()


@pytest.mark.parametrize(
    "action",
    ["approve", "release", "retry", "without_podcast", "without_blog", "pause", "cancel"],
)
def test_a_button_without_its_permission_is_forbidden(
    client: Client, weekly: Newsletter, action: str
) -> None:
    client.force_login(cast.editor("bruno", "view_issue", "change_issue"))
    issue = cast.issue(weekly) if action == "approve" else cast.approved(weekly)
    before = state(issue)
    assert client.post(act(issue, action)).status_code == 403
    assert state(issue) == before
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", ["a%00b", "9" * 40])
def test_a_list_asked_for_what_no_database_holds_is_no_fault(client: Client, value: str) -> None:
    """Each by its search, its filters and its columns."""
    client.force_login(User.objects.create_superuser("root"))
    client.raise_request_exception = False
    for model in site._registry:
        meta = model._meta
        path = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
        names = [field.name for field in meta.fields]
        for name in ("q", "p", *names, *(f"{name}__exact" for name in names)):
            address = f"{path}?{name}={value}"
            assert client.get(address).status_code in (200, 302, 400), name
            assert client.post(address, {"action": ""}).status_code in (200, 302, 400, 403), name


def test_who_may_not_look_at_deliveries_is_not_led_to_an_issue(client: Client) -> None:
    client.force_login(cast.editor("bruno", "view_issue"))
    frozen(1)
    path = reverse("admin:delivery_emaildelivery_changelist")
    assert client.get(path, {"status__exact": "sent"}).status_code == 403


def test_approval_and_release_are_two_permissions(client: Client, weekly: Newsletter) -> None:
    client.force_login(cast.editor("bruno", "view_issue", "approve_issue"))
    issue = cast.issue(weekly)
    assert buttons(client, issue) == {"approve"}
    client.post(act(issue, "approve"))
    assert state(issue) == "approved"
    assert client.post(act(issue, "release")).status_code == 403


@pytest.mark.parametrize("action", ["approve", "release", "cancel"])
def test_a_button_is_pressed_and_not_followed(
    editing: Client, weekly: Newsletter, action: str
) -> None:
    issue = cast.issue(weekly)
    assert editing.get(act(issue, action)).status_code == 405
    assert state(issue) == "draft"


def test_a_button_needs_the_csrf_token(ana: User, weekly: Newsletter) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(ana)
    issue = cast.issue(weekly)
    assert careful.post(act(issue, "approve")).status_code == 403
    assert state(issue) == "draft"


def test_a_stranger_presses_nothing(client: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly)
    assert client.post(act(issue, "approve")).status_code == 302
    assert state(issue) == "draft"


def test_there_is_no_other_button(editing: Client, weekly: Newsletter) -> None:
    assert editing.post(act(cast.issue(weekly), "delete")).status_code == 403


def test_approve_and_release_start_the_run_once(editing: Client, weekly: Newsletter) -> None:
    issue = cast.issue(weekly)
    answer = editing.post(act(issue, "approve"), follow=True)
    assert "Approved for 2026-06-01." in answer.content.decode()
    for _ in range(2):
        editing.post(act(issue, "release"))
    assert state(issue) == "awaiting_podcast"
    assert Job.objects.filter(name="await_podcast").count() == 1
    rows = Transition.objects.of(Subject.ISSUE, issue.pk)
    assert rows.filter(new="awaiting_podcast").get().actor == "ana"


def test_pause_and_resume(editing: Client, weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    editing.post(act(issue, "pause"))
    assert Issue.objects.get().paused_reason == "by ana"
    editing.post(act(issue, "resume"))
    assert Issue.objects.get().paused_at is None


def test_cancel_skips_what_is_pending(editing: Client, weekly: Newsletter) -> None:
    issue = everything(weekly)
    answer = editing.post(act(issue, "cancel"), follow=True)
    assert "is cancelled; 3 copies were not sent." in answer.content.decode()
    assert set(EmailDelivery.objects.values_list("status", flat=True)) == {"skipped"}


def test_the_removal_of_a_post_is_a_job(editing: Client, weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    Issue.objects.update(state="cancelled", post_sha="a" * 40, post_path="posts/first-issue.md")
    page = editing.get(page_of(issue)).content.decode()
    assert "The post stands at posts/first-issue.md" in page
    editing.post(act(issue, "remove_post"))
    assert Job.objects.get().name == "remove_post"


@pytest.mark.parametrize("action", ["without_podcast", "without_blog"])
def test_an_operator_goes_on_without(editing: Client, weekly: Newsletter, action: str) -> None:
    issue = cast.approved(weekly)
    Issue.objects.update(state="awaiting_podcast" if "podcast" in action else "publishing")
    editing.post(act(issue, action))
    assert getattr(Issue.objects.get(), action) is True
    assert Job.objects.count() == 1


@pytest.mark.parametrize("action", ["release", "resume", "pause", "remove_post"])
def test_a_button_that_does_not_fit_says_why(
    editing: Client, weekly: Newsletter, action: str
) -> None:
    issue = cast.issue(weekly)
    answer = editing.post(act(issue, action), follow=True)
    said = [f"{message.level_tag}: {message}" for message in answer.context["messages"]]
    assert len(said) == 1
    assert said[0].startswith("error: weekly/first-issue ")
    assert state(issue) == "draft"


def test_a_refused_approval_says_why(editing: Client) -> None:
    issue = cast.issue(cast.newsletter(postal_address=""))
    answer = editing.post(act(issue, "approve"), follow=True)
    assert "no postal address" in answer.content.decode()
    assert state(issue) == "draft"
