"""The operations page: a dead letter that is tried again and done, a lane that is held, on a desk and on a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import Site, keep, sideways, sign_in

pytestmark = pytest.mark.browser

LONG = 20_000  # ms: a refresh comes each five seconds, and the machine may be busy

# A day behind it, something that waits, and a service that is away: what no command can say.
SCENE = """
import math
from datetime import timedelta
import django
django.setup()
from delivery.models import CircuitBreaker, Job, JobTally
from newsletter.models import database_now
now = database_now()
hour = now.replace(minute=0, second=0, microsecond=0)
for n in range(1, 24):
    at = hour - timedelta(hours=n)
    runs = int(120 + 90 * math.sin(n / 3.5))
    JobTally.objects.create(name="notify", ending="done", at=at, runs=runs, to_250_ms=runs)
    JobTally.objects.create(
        name="deliver", ending="done", at=at, runs=9, items=(n % 7 == 3) * 4200, to_30_s=9
    )
    if n % 5 == 1:
        JobTally.objects.create(name="publish", ending="retried", at=at, runs=n % 4 + 1, to_5_s=1)
CircuitBreaker.objects.create(
    name="github", state="open", failures=5, opened=2, until=now + timedelta(minutes=9),
    reason="api.github.com answered 503 five times in a row", changed_at=now,
)
CircuitBreaker.objects.create(name="smtp", changed_at=now)
Job.objects.create(
    key="publish:77", name="publish", args={"id": 77}, due_at=now + timedelta(minutes=9), runs=6,
    troubles={"EdgeError": {"count": 5, "since": now.isoformat()}}, woken_at=now,
    note="github does not answer (503): asked again later",
)
"""
ERROR = """Traceback (most recent call last):
  File "delivery/steps/mail.py", line 52, in report
    figures = books(issue)
ValueError: the books of an issue that is gone"""


@pytest.fixture(scope="module", autouse=True)
def _scene(site: Site) -> None:
    done = site.house.python(SCENE)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors


@pytest.fixture
def dead_letter(site: Site) -> str:
    """The report of the first issue, as if it had died; its key."""
    which = f"name = 'report' AND issue_id = {site.pk('first-round')}"
    site.house.wait_until(
        lambda: site.house.query(
            f"SELECT 1 FROM delivery_job WHERE {which} AND finished_at IS NOT NULL"
        ),
        30,
    )
    site.house.change(
        "UPDATE delivery_job SET state = 'dead', note = 'an error that nobody declared: ValueError:"
        f" the books of an issue that is gone', error = '{ERROR}' WHERE {which}"
    )
    return str(site.house.value(f"SELECT key FROM delivery_job WHERE {which}"))


def open_page(admin: Page, site: Site) -> None:
    admin.goto(f"{site.url}/admin/")
    admin.locator("#user-tools").get_by_role("link", name="Operations").click()
    expect(admin.get_by_role("heading", level=1)).to_have_text("Operations")


def test_a_dead_letter_is_tried_again_and_done(admin: Page, site: Site, dead_letter: str) -> None:
    open_page(admin, site)
    letters = admin.locator("#dead")
    expect(letters).to_contain_text("ValueError: the books of an issue that is gone")
    keep(admin, "operations-dead")
    letters.get_by_role("button", name=f"Retry {dead_letter}").click()
    expect(admin.locator(".messagelist .success")).to_contain_text("is tried again")
    expect(letters).to_contain_text("None.")
    state = f"SELECT state FROM delivery_job WHERE key = '{dead_letter}'"
    site.house.wait_until(lambda: site.house.value(state) == "done", 60)
    admin.goto(f"{site.url}/admin/delivery/job/?q=&name=report&state__exact=done")
    admin.get_by_role("link", name=dead_letter).first.click()
    history = admin.locator("table", has_text="From")
    expect(history).to_contain_text("tried again by an operator")
    expect(history).to_contain_text("ana")
    keep(admin, "operations-job")


def test_the_ticked_are_discarded_by_keyboard(admin: Page, site: Site, dead_letter: str) -> None:
    open_page(admin, site)
    admin.get_by_label("Tick all").focus()
    admin.keyboard.press("Space")
    expect(admin.get_by_label(f"Tick {dead_letter}")).to_be_checked()
    expect(admin.locator("#dead.held")).to_be_visible(timeout=LONG)
    keep(admin, "operations-held")
    discard = admin.get_by_role("button", name="Discard the ticked")
    discard.focus()
    admin.keyboard.press("Enter")
    expect(admin.locator(".messagelist .success")).to_contain_text("was discarded")
    state = f"SELECT state FROM delivery_job WHERE key = '{dead_letter}'"
    assert site.house.value(state) == "discarded"


def test_it_refreshes_itself_without_a_reload(admin: Page, site: Site, dead_letter: str) -> None:
    site.house.change("UPDATE delivery_job SET state = 'done' WHERE state = 'dead'")
    open_page(admin, site)
    expect(admin.locator("#dead")).to_contain_text("None.")
    admin.evaluate("window.same = true")
    site.house.change(f"UPDATE delivery_job SET state = 'dead' WHERE key = '{dead_letter}'")
    expect(admin.locator("#dead")).to_contain_text(dead_letter, timeout=LONG)
    assert admin.evaluate("window.same")
    admin.get_by_text("Where").click()
    before = admin.locator("#summary .at").text_content() or ""
    expect(admin.locator("#summary .at")).not_to_have_text(before, timeout=LONG)
    expect(admin.locator("#dead pre")).to_be_visible()
    keep(admin, "operations-unfolded")


def test_a_lane_is_paused_and_resumed(admin: Page, site: Site) -> None:
    open_page(admin, site)
    lanes = admin.locator("#lanes")
    expect(lanes.get_by_text("none")).to_have_count(0, timeout=LONG)  # every lane has its workers
    lanes.get_by_text("Pause …").nth(2).click()
    lanes.get_by_label("Why is bulk paused?").fill("the mail server moves")
    keep(admin, "operations-pausing")
    lanes.get_by_role("button", name="Pause bulk", exact=True).click()
    expect(admin.locator(".messagelist .success")).to_contain_text("Bulk is paused")
    expect(lanes).to_contain_text(re.compile("the mail server moves by ana, since"))
    keep(admin, "operations-paused")
    lanes.get_by_role("button", name="Resume bulk").click()
    expect(admin.locator(".messagelist .success")).to_contain_text("Bulk goes on")
    expect(lanes.get_by_role("button", name="Resume bulk")).to_have_count(0)


def test_its_charts_are_there_for_those_who_do_not_see_them(admin: Page, site: Site) -> None:
    open_page(admin, site)
    label = re.compile(r"Mails an hour: [\d,]+ in 24 hours, most 4,200 from \d\d:00 UTC")
    expect(admin.get_by_role("img", name=label)).to_be_visible()
    admin.get_by_text("The same as a table").click()
    expect(admin.get_by_role("table").filter(has_text="Hour (UTC)")).to_contain_text("4200")
    keep(admin, "operations-tables")


def test_it_is_whole_without_a_script(site: Site, admin: Page, dead_letter: str) -> None:
    browser = admin.context.browser
    assert browser
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies(admin.context.cookies())  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{site.url}/admin/operations/")
    expect(page.get_by_role("link", name="Reload")).to_be_visible()
    expect(page.get_by_text("refresh every 5 s")).to_be_hidden()
    page.get_by_role("button", name=f"Retry {dead_letter}").click()
    expect(page.locator(".messagelist .success")).to_contain_text("is tried again")
    context.close()


@pytest.mark.parametrize("who_looks", ["dead letter", "empty"])
def test_it_fits_a_phone(phone: Page, site: Site, dead_letter: str, who_looks: str) -> None:
    if who_looks == "empty":
        site.house.change("UPDATE delivery_job SET state = 'done' WHERE state = 'dead'")
    sign_in(phone, site)
    phone.goto(f"{site.url}/admin/operations/")
    expect(phone.locator("#lanes")).to_be_visible()
    assert sideways(phone) <= 0
    keep(phone, f"operations-phone-{who_looks.replace(' ', '-')}")
