"""A long list is read page by page, without a mouse."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site, keep, sideways, sign_in

pytestmark = pytest.mark.browser

TABS = 8  # from the search to the pages
ADDED = 120


@pytest.fixture(scope="module")
def crowd(site: Site) -> None:
    """More subscribers than a page shows; no subscription, so nobody is mailed."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ADDED})"
    site.house.change(
        "INSERT INTO newsletter_subscriber (address, address_key, name, created_at)"
        f" {numbers} SELECT 'crowd' || i || '@example.org', 'crowd' || i, '', CURRENT_TIMESTAMP FROM n"
    )


def follow(page: Page, name: str) -> None:
    """Tab from the search box to a link of that name, and press Enter."""
    page.locator("#searchbar").focus()
    for _ in range(TABS):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"no {name} within {TABS} tabs of the search")


def test_pages_are_turned_from_the_keyboard(admin: Page, site: Site, crowd: None) -> None:
    admin.goto(f"{site.url}/admin/newsletter/subscriber/?q=crowd")
    place = admin.locator(".keyset .place").first
    expect(place).to_have_text(re.compile("The newest 50 subscribers"))
    keep(admin, "list-first", whole=False)
    follow(admin, "Older")
    expect(place).to_have_text(re.compile("The oldest 50 subscribers"))  # a search finds 100
    expect(admin.locator("#searchbar")).to_have_value("crowd")
    follow(admin, "Newest")
    expect(place).to_have_text(re.compile("The newest 50 subscribers"))
    admin.goto(f"{site.url}/admin/newsletter/subscriber/")
    follow(admin, "Older")
    expect(place).to_have_text(re.compile("^50 subscribers, ids"))
    keep(admin, "list-middle", whole=False)
    follow(admin, "Oldest")
    expect(place).to_have_text(re.compile("The oldest 50 subscribers"))
    follow(admin, "Newer")
    expect(place).to_have_text(re.compile("^50 subscribers, ids"))


def test_a_long_list_fits_a_phone(phone: Page, site: Site, crowd: None) -> None:
    sign_in(phone, site)
    phone.goto(f"{site.url}/admin/newsletter/subscriber/")
    expect(phone.get_by_role("link", name="Older").first).to_be_visible()
    assert sideways(phone) == 0
    keep(phone, "list-phone", whole=False)
    phone.goto(f"{site.url}/admin/delivery/emaildelivery/?status__exact=sent")
    expect(phone).to_have_url(re.compile("issue__id__exact="))
    keep(phone, "list-ledger-phone", whole=False)
