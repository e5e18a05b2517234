"""The editor's week: write, look, approve, release, and see what became of it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import READERS, Site, keep, sideways, sign_in

pytestmark = pytest.mark.browser

NOTHING = "<!-- nothing yet -->"
BODY = "Good morning, {{ name }}.\n\n## News\n\nRead [the archive](archive/).\n"


def write(admin: Page, site: Site, newsletter: str, title: str, markdown: str) -> None:
    """Fill in the form for a new issue, and stay on its page."""
    admin.goto(f"{site.url}/admin/newsletter/issue/add/")
    admin.get_by_label("Newsletter").select_option(newsletter)
    admin.get_by_label("Title").press_sequentially(title)
    admin.get_by_label("Release date").fill("2026-06-01")
    admin.get_by_label("Markdown").fill(markdown)
    save(admin)


def save(admin: Page) -> None:
    admin.get_by_role("button", name="Save and continue editing").click()
    expect(admin.locator(".messagelist .success")).to_be_visible()


def press(admin: Page, label: str) -> None:
    admin.get_by_role("button", name=label, exact=True).click()


def test_an_issue_goes_from_its_first_word_to_the_balance(admin: Page, site: Site) -> None:
    write(admin, site, "Weekly", "Spring letter", NOTHING)
    expect(admin.get_by_label("Slug")).to_have_value("spring-letter")
    expect(admin.locator("ul.errornote")).to_contain_text("The body is empty")

    admin.get_by_label("Markdown").fill(BODY)
    save(admin)
    expect(admin.locator("ul.errornote")).to_have_count(0)
    expect(admin.locator("ul.warnings")).to_contain_text("archive/ is relative")
    keep(admin, "admin-issue-draft")

    press(admin, "Approve")
    expect(admin.locator("#release-heading")).to_contain_text("Approved")
    press(admin, "Release now")
    site.wait_for_state("spring-letter", "sent")
    admin.reload()
    expect(admin.locator("#release-heading")).to_contain_text("Sent")
    expect(admin.locator(".books caption")).to_have_text("The books balance")
    expect(admin.locator(".books tr", has_text="sent")).to_contain_text(re.compile("[1-9]"))
    expect(admin.locator("table", has_text="Last outcome")).to_contain_text("deliver")
    history = admin.locator("table", has_text="From")
    for state in ("approved", "published", "sending", "sent"):
        expect(history).to_contain_text(state)
    expect(history).to_contain_text("ana")
    keep(admin, "admin-issue-sent")


def test_an_approval_is_refused_while_there_are_problems(admin: Page, site: Site) -> None:
    write(admin, site, "Weekly", "Empty letter", NOTHING)
    press(admin, "Approve")
    expect(admin.locator(".messagelist .error")).to_contain_text("empty")
    expect(admin.get_by_role("button", name="Approve", exact=True)).to_be_visible()
    keep(admin, "admin-issue-refused")


@pytest.mark.parametrize("what", ["HTML", "text", "post"])
def test_the_draft_can_be_seen_as_mail_text_and_post(admin: Page, site: Site, what: str) -> None:
    title = f"Preview letter {what}"
    write(admin, site, "Weekly", title, BODY)
    admin.get_by_role("link", name=what, exact=True).click()
    expect(admin.locator("body")).to_contain_text("News")
    expect(admin.locator("body")).to_contain_text(title)
    keep(admin, f"admin-preview-{what.lower()}")


def test_a_release_that_waits_is_paused_resumed_and_cancelled(admin: Page, site: Site) -> None:
    write(admin, site, "Monthly", "Waiting letter", BODY)
    press(admin, "Approve")
    press(admin, "Release now")
    site.wait_for_state("waiting-letter", "awaiting_podcast")
    admin.reload()
    expect(admin.locator(".release").first).to_contain_text("Podcast:")
    press(admin, "Pause")
    expect(admin.locator("#release-heading")).to_contain_text("paused: by ana")
    expect(admin.get_by_role("button", name="Pause", exact=True)).to_have_count(0)
    keep(admin, "admin-issue-paused")
    press(admin, "Resume")
    expect(admin.locator("#release-heading")).not_to_contain_text("paused")
    press(admin, "Cancel")
    expect(admin.locator("#release-heading")).to_contain_text("Cancelled")
    keep(admin, "admin-issue-cancelled")
    assert site.house.state("waiting-letter") == "cancelled"


def test_a_sent_issue_cannot_be_edited(admin: Page, site: Site) -> None:
    admin.goto(f"{site.url}/admin/newsletter/issue/{site.pk('first-round')}/change/")
    expect(admin.locator(".books tr", has_text="sent")).to_contain_text(str(READERS))
    expect(admin.get_by_label("Title")).to_have_count(0)
    expect(admin.get_by_role("button", name="Save")).to_have_count(0)
    expect(admin.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


@pytest.mark.parametrize(
    "path",
    [
        "newsletter/issue/",
        "newsletter/newsletter/",
        "newsletter/subscriber/",
        "delivery/emaildelivery/",
        "delivery/job/",
    ],
)
def test_the_lists_open_and_can_be_searched(admin: Page, site: Site, path: str) -> None:
    admin.goto(f"{site.url}/admin/{path}")
    expect(admin.locator("#result_list")).to_be_visible()
    keep(admin, "admin-list-" + path.strip("/").replace("/", "-"))


def test_the_issues_page_fits_a_phone(phone: Page, site: Site) -> None:
    sign_in(phone, site)
    phone.goto(f"{site.url}/admin/newsletter/issue/{site.pk('first-round')}/change/")
    assert sideways(phone) <= 0
    keep(phone, "admin-issue-phone")
