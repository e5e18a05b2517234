"""The sandbox: the mail as its reader would see it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import READERS, Site, keep, sideways

pytestmark = pytest.mark.browser


def test_it_lists_every_copy(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/sandbox/")
    on_a_page = min(site.mailbox.count(), 50)  # other pages' tests have mailed before
    expect(page.get_by_role("row")).to_have_count(on_a_page + 1)
    assert site.mailbox.count() >= READERS
    keep(page, "sandbox-list")


def test_it_finds_one_readers_copy(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/sandbox/")
    page.get_by_label("Recipient or subject").fill("reader3@")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("found for “reader3@”")
    page.locator("td.what a").last.click()
    expect(page.locator(".envelope")).to_contain_text("reader3@example.org")


@pytest.mark.parametrize(("label", "least", "most"), [("Phone", 390, 390), ("Desktop", 900, 1280)])
def test_it_shows_the_html_at_the_width_of_a_device(
    page: Page, site: Site, label: str, least: int, most: int
) -> None:
    page.goto(f"{site.url}/sandbox/{site.copy_for('reader3')}/")
    page.get_by_role("link", name=label, exact=True).click()
    box = page.locator("iframe").bounding_box()
    assert box and least <= box["width"] <= most
    inside = page.frame_locator("iframe")
    expect(inside.get_by_role("heading", level=1)).to_be_visible()
    expect(inside.get_by_role("link", name="Unsubscribe")).to_be_attached()
    keep(page, f"sandbox-html-{label.lower()}")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_mail_itself_fits_its_window(page: Page, site: Site, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site.url}/sandbox/{site.copy_for('reader3')}/body")
    assert page.locator("body").evaluate("e => e.scrollWidth") <= width
    keep(page, f"mail-{width}")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Text", "Unsubscribe"),
        ("Headers", "List-Unsubscribe-Post"),
        ("Source", "multipart/alternative"),
    ],
)
def test_it_shows_the_other_sides_of_a_message(
    page: Page, site: Site, label: str, words: str
) -> None:
    page.goto(f"{site.url}/sandbox/{site.copy_for('reader3')}/")
    page.get_by_role("link", name=label, exact=True).click()
    expect(page.get_by_role("main")).to_contain_text(words)
    keep(page, f"sandbox-{label.lower()}", whole=False)


@pytest.mark.parametrize("show", ["html", "text", "headers", "source"])
def test_it_does_not_scroll_sideways_on_a_phone(phone: Page, site: Site, show: str) -> None:
    phone.goto(f"{site.url}/sandbox/{site.copy_for('reader3')}/?show={show}")
    assert sideways(phone) <= 0
    keep(phone, f"sandbox-phone-{show}", whole=False)


def test_its_list_fits_a_phone(phone: Page, site: Site) -> None:
    phone.goto(f"{site.url}/sandbox/")
    assert sideways(phone) <= 0
    keep(phone, "sandbox-phone-list", whole=False)
