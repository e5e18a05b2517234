"""Everything is paused from the operations page; every page says so, until it is resumed."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site, keep, sideways, sign_in

pytestmark = pytest.mark.browser

WHY = "the podcast names the wrong guest"


def pause(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/admin/operations/")
    page.get_by_text("Pause everything …").click()
    page.get_by_label("Why is everything paused?").fill(WHY)
    keep(page, "hold-pausing", whole=False)
    page.get_by_role("button", name="Pause everything", exact=True).click()


def test_everything_is_paused_and_resumed(admin: Page, site: Site) -> None:
    pause(admin, site)
    expect(admin.locator(".messagelist .success")).to_contain_text("Everything is paused")
    expect(admin.locator("#everything")).to_contain_text(WHY)
    keep(admin, "hold-operations", whole=False)
    admin.goto(f"{site.url}/admin/newsletter/issue/")
    expect(admin.locator("#held .warning")).to_contain_text("by ana since 20")
    keep(admin, "hold-issues", whole=False)
    admin.get_by_role("link", name="Operations", exact=True).last.click()
    admin.get_by_role("button", name="Resume everything").click()
    expect(admin.locator("#everything")).to_contain_text("Nothing is held.")
    expect(admin.get_by_text(WHY)).to_have_count(0)


def test_a_doubted_database_says_what_to_do_also_on_a_phone(phone: Page, site: Site) -> None:
    sign_in(phone, site)
    doubt = "its number is 3, the witness has seen 41: it has forgotten what it sent since"
    site.house.change(
        f"UPDATE delivery_house SET doubt = '{doubt}', doubted_at = '2026-11-22 07:00:00+00:00'"
    )
    try:
        phone.goto(f"{site.url}/admin/operations/")
        expect(phone.locator("#held .error")).to_contain_text("confirm_database")
        assert sideways(phone) <= 0
        keep(phone, "hold-doubted-phone", whole=False)
    finally:
        site.house.change("UPDATE delivery_house SET doubt = '', doubted_at = NULL")
