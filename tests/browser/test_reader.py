"""What a reader meets: the issue's page, the archive, and the way out."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site, keep, sideways

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("path", ["/", "/n/weekly/", "/n/weekly/first-round/"])
def test_no_public_page_scrolls_sideways_on_a_phone(phone: Page, site: Site, path: str) -> None:
    phone.goto(site.url + path)
    assert sideways(phone) <= 0
    keep(phone, f"public-phone{path.rstrip('/').replace('/', '-')}")


def test_the_issue_reads_well_on_a_desk(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/n/weekly/")
    page.get_by_role("link", name=re.compile("round", re.IGNORECASE)).click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    keep(page, "public-desktop-issue")


def test_code_on_the_issues_page_has_colours_of_its_own_in_the_dark(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/n/weekly/first-round/")
    word = page.locator("pre.highlight span").first
    seen = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        seen.add(word.evaluate("e => getComputedStyle(e).color"))
    assert len(seen) == 2


def test_a_reader_leaves_with_the_keyboard_alone(phone: Page, site: Site) -> None:
    text = site.mailbox.get(site.copy_for("reader7")).text
    link = re.search(rf"{site.url}/u/\S+/", text)
    assert link, "the copy has no link to leave by"
    phone.goto(link[0])
    keep(phone, "unsubscribe-question")
    phone.keyboard.press("Tab")
    expect(phone.get_by_role("button")).to_be_focused()
    keep(phone, "unsubscribe-focus")
    phone.keyboard.press("Enter")
    expect(phone.get_by_role("status")).to_be_visible()
    keep(phone, "unsubscribe-done")
    left = site.house.value(
        "SELECT state FROM newsletter_subscription s JOIN newsletter_subscriber p "
        "ON s.subscriber_id = p.id JOIN newsletter_newsletter n ON s.newsletter_id = n.id "
        "WHERE p.address = 'reader7@example.org' AND n.slug = 'weekly'"
    )
    assert left == "unsubscribed"
