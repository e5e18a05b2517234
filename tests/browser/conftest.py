from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.site import (
    DESKTOP,
    GET_CHROMIUM,
    PHONE,
    Site,
    Watch,
    a_site,
    chromium,
    launch,
    sign_in,
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not chromium():
        pytest.exit(f"No Chromium was found. Get one: {GET_CHROMIUM}", returncode=2)
    with sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def site(browser: Browser) -> Iterator[Site]:
    with a_site() as opened:
        yield opened


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Holds for every page of every story: nothing from outside, and no complaint of the browser."""
    watching = Watch()
    yield watching
    assert watching.outside == []
    assert watching.complaints == []


@pytest.fixture
def page(browser: Browser, site: Site, watch: Watch) -> Iterator[Page]:
    """A window on a desk."""
    opened = browser.new_page(viewport=DESKTOP)  # type: ignore[arg-type]
    watch.over(opened, site.url)
    yield opened
    opened.close()


@pytest.fixture
def phone(browser: Browser, site: Site, watch: Watch) -> Iterator[Page]:
    """The same on a phone."""
    opened = browser.new_page(viewport=PHONE, device_scale_factor=2, has_touch=True)  # type: ignore[arg-type]
    watch.over(opened, site.url)
    yield opened
    opened.close()


@pytest.fixture
def admin(page: Page, site: Site) -> Page:
    """A window in which ana is signed in."""
    sign_in(page, site)
    return page
