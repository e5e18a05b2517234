"""The unknown page, a reader's timeline, the report and a paused issue, on a desk and on a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site, keep, sideways, sign_in

pytestmark = pytest.mark.browser

# Two issues of a newsletter of their own: one was sent and left rows unknown, one paused itself in its middle.
SCENE = """
from datetime import date, timedelta
import django
django.setup()
from django.db import transaction
from delivery import sending
from delivery.models import EmailDelivery, Job, Lease, ProviderEvent
from newsletter.models import (
    Issue, Newsletter, Subscriber, Subscription, Suppression, Transition, address_key, database_now
)
from newsletter.models.transition import Subject
from tests.drain import tell_the_tally

now = database_now()
letters = Newsletter.objects.create(
    slug="letters", name="Sea Letters", from_email="ana@news.example.org",
    postal_address="1 Main Street, Lisbon", zone="Europe/Lisbon",
)
names = ["amelia", "bruno", "clara", "diogo", "elisa", "filipe", "greta", "heitor"]
names += [f"reader{n}" for n in range(9, 241)]

def add(name, **over):
    person = Subscriber.objects.create(
        address=f"{name}@example.net", address_key=address_key(f"{name}@example.net"),
        name=name.capitalize() if name[-1].isalpha() else "",
    )
    Subscriber.objects.filter(pk=person.pk).update(created_at=now - timedelta(days=40))
    values = {"state": "confirmed", "consent_source": "import of letters.csv",
              "consent_at": now - timedelta(days=40)}
    return Subscription.objects.create(subscriber=person, newsletter=letters, **{**values, **over})

def frozen(slug, title, at):
    issue = Issue.objects.create(
        newsletter=letters, slug=slug, title=title, summary="What the tide brought.",
        release_date=date(2026, 11, 16), markdown="Hello **readers**.",
    )
    issue.approve(actor="ana")
    url = f"https://blog.example.org/{slug}/"
    Issue.objects.filter(pk=issue.pk).update(state="published", web_url=url, started_at=at)
    issue.refresh_from_db()
    assert sending.freeze(issue, sending.compile_issue(issue), actor="release")
    Issue.objects.filter(pk=issue.pk).update(audience_frozen_at=at)
    issue.refresh_from_db()
    Job.objects.filter(issue=issue, name="deliver").delete()
    return issue

def row(issue, name):
    return EmailDelivery.objects.get(issue=issue, address=f"{name}@example.net")

def change(issue, name, told=(), **values):
    found = row(issue, name)
    EmailDelivery.objects.filter(pk=found.pk).update(**values)
    for old, new, reason, actor, at in told:
        Transition.objects.create(subject=Subject.DELIVERY, subject_id=found.pk, old=old, new=new,
                                  reason=reason, actor=actor, at=at)

def whole(at, n=1):
    return {"attempt": n, "fence": 1, "sending_at": at, "settled_at": at + timedelta(seconds=1)}

with transaction.atomic():
    for name in names:
        add(name)
    lost = Lease.objects.create(name="sender:7:0", fence=1, holder="post-2:4711", expires_at=now)
    at = now - timedelta(days=7)
    autumn = frozen("autumn", "The autumn letter", at)
    rows = EmailDelivery.objects.filter(issue=autumn)
    for n, each in enumerate(rows.order_by("id")):
        moment = at + timedelta(seconds=2 + n // 8)
        rows.filter(pk=each.pk).update(status="sent", reply="250 2.0.0 queued", **whole(moment))
    wire = at + timedelta(seconds=21)
    note = "its sender died or was lost while the row was on the wire"
    for name in ("amelia", "clara", "heitor"):
        told = [("sending", "unknown", note, "recovery", wire + timedelta(seconds=31))]
        change(autumn, name, told, status="unknown", reason="sender_lost", reply="",
               sender=lost, **whole(wire))
    change(autumn, "diogo", [
        ("sending", "pending", "recipient_deferred", "attempt 1", at + timedelta(seconds=9)),
        ("sending", "unknown", "timed_out", "attempt 2", at + timedelta(minutes=7)),
    ], status="unknown", reason="timed_out", reply="354 go ahead",
       **whole(at + timedelta(minutes=6), 2))
    change(autumn, "elisa", [
        ("sending", "unknown", note, "recovery", wire + timedelta(seconds=31)),
        ("unknown", "sent", "postfix log: status=sent", "postfix log", at + timedelta(hours=2)),
    ], status="sent", reply="250 2.0.0 queued", **whole(wire))
    refused = [("sending", "failed", "mailbox_unavailable", "attempt 1", wire)]
    change(autumn, "bruno", refused, status="failed", reason="mailbox_unavailable",
           reply="550 5.1.1 no such user", **whole(wire))
    for n in (20, 21, 22):
        change(autumn, f"reader{n}", [("sending", "failed", "mailbox_full", "attempt 1", wire)],
               status="failed", reason="mailbox_full", reply="552 5.2.2 full", **whole(wire))
    for n in range(31, 36):
        change(autumn, f"reader{n}", status="skipped", reason="unsubscribed or suppressed",
               settled_at=wire)
    for n in range(60, 80):
        change(autumn, f"reader{n}",
               [("sending", "pending", "recipient_deferred", "attempt 1", wire)],
               **whole(at + timedelta(minutes=6), 2))
    Suppression.objects.create(address_key=address_key("bruno@example.net"), reason="bad_address",
                               detail="550 5.1.1 no such user")
    Suppression.objects.update(created_at=wire)
    event = {"provider": "ses", "raw": "{}", "applied_at": now}
    ProviderEvent.objects.create(event_key="a", kind="deferred", delivery=row(autumn, "amelia"),
                                 note="451 4.4.1 try later", occurred_at=wire, **event)
    ProviderEvent.objects.create(event_key="b", kind="delivered", delivery=row(autumn, "greta"),
                                 occurred_at=wire + timedelta(seconds=5), **event)
    ProviderEvent.objects.create(event_key="c", kind="complained", delivery=row(autumn, "reader50"),
                                 occurred_at=wire + timedelta(hours=5), **event)
    Issue.objects.filter(pk=autumn.pk).update(state="sent", closed_at=at + timedelta(minutes=8))

    winter = frozen("winter", "The winter letter", now - timedelta(minutes=20))
    begun = now - timedelta(minutes=19)
    for n, each in enumerate(EmailDelivery.objects.filter(issue=winter).order_by("id")):
        given = {"status": "sent", "reply": "250 2.0.0 queued", **whole(begun)}
        if n % 4 == 1 and n < 60:
            given = {"status": "failed", "reason": "recipient_policy_refusal",
                     "reply": "550 5.7.1 not wanted here", **whole(begun)}
            Transition.objects.create(subject=Subject.DELIVERY, subject_id=each.pk, old="sending",
                                      new="failed", reason="recipient_policy_refusal",
                                      actor="attempt 1", at=begun)
        if 60 <= n < 63:
            given = {"status": "sending", "attempt": 1, "fence": 1, "sending_at": now}
        if n < 63:
            EmailDelivery.objects.filter(pk=each.pk).update(**given)
    for issue in (autumn, winter):
        tell_the_tally(issue)
    winter.pause(reason="15 of the last 50 were refused by policy", actor="sender")
    late = add("late", state="pending", consent_source="the form", consent_at=None)
    late.confirm(actor="reader")
"""


@pytest.fixture(scope="module", autouse=True)
def _scene(site: Site) -> None:
    done = site.house.python(SCENE)
    _, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors


def status_of(site: Site, name: str) -> str:
    return str(
        site.house.value(
            "SELECT d.status FROM delivery_emaildelivery d JOIN newsletter_issue i ON i.id = d.issue_id"
            f" WHERE i.slug = 'autumn' AND d.address = '{name}@example.net'"
        )
    )


def open_unknown(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/admin/")
    page.get_by_role("link", name="Unknown rows").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Unknown rows")
    keep(page, "unknowns-overview")
    page.get_by_role("link", name="The autumn letter").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("The autumn letter")


def look_for(page: Page, site: Site, typed: str) -> None:
    page.goto(f"{site.url}/admin/")
    page.get_by_role("link", name="Why did this reader not get it?").click()
    page.get_by_label("Address, or its beginning").fill(typed)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_the_evidence_of_unknown_rows_is_beside_them(admin: Page, site: Site) -> None:
    open_unknown(admin, site)
    amelia = admin.locator(".case", has_text="amelia@example.net")
    expect(amelia).to_contain_text("post-2:4711, as sender:7:0, fence 1")
    expect(amelia.locator("code")).to_have_text(
        re.compile(r"^<\d+\.[0-9a-f]{24}@news\.example\.org>$")
    )
    amelia.get_by_text("History and the provider’s events").click()
    expect(amelia).to_contain_text("ses could not deliver it yet (451 4.4.1 try later)")
    admin.get_by_text("How to find out").click()
    assert sideways(admin) <= 0
    keep(admin, "unknowns-open")


def test_rows_are_marked_sent_by_keyboard(admin: Page, site: Site) -> None:
    open_unknown(admin, site)
    admin.get_by_label("heitor@example.net").focus()
    admin.keyboard.press("Space")
    admin.evaluate("scrollTo(0, 0)")
    keep(admin, "unknowns")
    admin.get_by_label("Why? It stands in their history.").focus()
    admin.keyboard.type("the relay has it as sent")
    admin.get_by_role("button", name="Mark sent").focus()
    admin.keyboard.press("Enter")
    expect(admin.locator(".messagelist .success")).to_contain_text("1 row is marked as sent")
    expect(admin.get_by_label("heitor@example.net")).to_have_count(0)
    assert status_of(site, "heitor") == "sent"


def test_a_second_copy_needs_a_word_and_then_leaves(admin: Page, site: Site) -> None:
    open_unknown(admin, site)
    admin.get_by_label("clara@example.net").check()
    admin.get_by_label("Why? It stands in their history.").fill("clara has nothing")
    admin.get_by_role("button", name="Send again").click()
    expect(admin.locator(".messagelist .error")).to_contain_text("a second copy may arrive")
    admin.get_by_label("clara@example.net").check()
    admin.get_by_label("Why? It stands in their history.").fill("clara has nothing")
    admin.get_by_label("a second copy may arrive").check()
    admin.get_by_role("button", name="Send again").click()
    expect(admin.locator(".messagelist .success")).to_contain_text("1 row is to be sent again")
    site.house.wait_until(lambda: status_of(site, "clara") == "sent", 60)
    look_for(admin, site, "clara@example.net")
    story = admin.locator(".timeline .issue", has_text="The autumn letter")
    expect(story).to_contain_text("To be sent again")
    expect(story).to_contain_text("clara has nothing")
    keep(admin, "timeline-resent")


def test_one_box_ticks_all_and_follows_the_others(admin: Page, site: Site) -> None:
    open_unknown(admin, site)
    every = admin.get_by_label(re.compile(r"all \d+ on this page"))
    every.check()
    expect(admin.get_by_label("amelia@example.net")).to_be_checked()
    admin.get_by_label("amelia@example.net").uncheck()
    expect(every).not_to_be_checked()


def test_the_unknown_page_is_whole_without_a_script(admin: Page, site: Site) -> None:
    browser = admin.context.browser
    assert browser
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies(admin.context.cookies())  # type: ignore[arg-type]
    page = context.new_page()
    open_unknown(page, site)
    page.get_by_label("diogo@example.net").check()
    page.get_by_label("Why? It stands in their history.").fill("diogo has it")
    page.get_by_role("button", name="Mark sent").click()
    expect(page.locator(".messagelist .success")).to_contain_text("1 row is marked as sent")
    context.close()


def test_why_somebody_got_nothing_is_told_in_words(admin: Page, site: Site) -> None:
    look_for(admin, site, "late@example.net")
    story = admin.locator(".timeline .issue", has_text="The winter letter")
    expect(story).to_contain_text("Not in the audience: confirmed at")
    expect(admin.locator(".standing")).to_contain_text("the next issue goes to them")
    keep(admin, "timeline-late")
    look_for(admin, site, "Bruno@Example.net")
    expect(admin.locator(".timeline")).to_contain_text("there is no such mailbox")
    expect(admin.locator(".standing")).to_contain_text("Gets nothing: suppressed since")
    assert sideways(admin) <= 0
    keep(admin, "timeline")


def test_an_address_is_found_by_its_beginning(admin: Page, site: Site) -> None:
    look_for(admin, site, "reader1")
    expect(admin.get_by_text("The first 20 addresses that begin so: type more")).to_be_visible()
    keep(admin, "readers")
    admin.get_by_role("link", name="reader100@example.net").click()
    expect(admin.get_by_role("heading", level=1)).to_have_text("reader100@example.net")


def test_the_issues_page_draws_the_report(admin: Page, site: Site) -> None:
    admin.goto(f"{site.url}/admin/newsletter/issue/{site.pk('autumn')}/change/")
    report = admin.locator(".report").first
    expect(
        report.get_by_role("img", name=re.compile("^Of 240: 2[23][0-9] sent, 4 failed"))
    ).to_be_visible()
    expect(report).to_contain_text("Took more than one attempt")
    expect(report).to_contain_text("What became of the unknown ones")
    assert sideways(admin) <= 0
    keep(admin, "report")


def test_a_paused_issue_says_why_and_is_resumed(admin: Page, site: Site) -> None:
    admin.goto(f"{site.url}/admin/newsletter/issue/{site.pk('winter')}/change/")
    paused = admin.locator(".paused")
    expect(paused).to_contain_text("by the sender itself")
    expect(paused).to_contain_text("15 of the last 50 were refused by policy")
    expect(paused).to_contain_text("3 copies are on the wire")
    expect(paused.get_by_role("button", name="Cancel")).to_be_visible()
    keep(admin, "paused", whole=False)
    look_for(admin, site, "reader200@example.net")
    expect(admin.locator(".timeline .next")).to_contain_text("the issue is paused since")
    keep(admin, "timeline-paused")


def test_they_fit_a_phone(phone: Page, site: Site) -> None:
    sign_in(phone, site)
    open_unknown(phone, site)
    assert sideways(phone) <= 0
    keep(phone, "unknowns-phone")
    look_for(phone, site, "bruno@example.net")
    assert sideways(phone) <= 0
    keep(phone, "timeline-phone")
    for slug in "autumn", "winter":
        phone.goto(f"{site.url}/admin/newsletter/issue/{site.pk(slug)}/change/")
        assert sideways(phone) <= 0
        keep(phone, f"report-{slug}-phone")


def test_resume_lets_a_paused_issue_go(admin: Page, site: Site) -> None:
    """The last of them: the winter letter is gone then."""
    admin.goto(f"{site.url}/admin/newsletter/issue/{site.pk('winter')}/change/")
    admin.locator(".paused").get_by_role("button", name="Resume").click()
    expect(admin.locator(".messagelist .success")).to_contain_text("Resumed")
    assert admin.locator(".paused").count() == 0
