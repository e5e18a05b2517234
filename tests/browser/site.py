"""A site as it really runs: gunicorn, `work`, the sandbox, a podcast that is never ready, and a browser before it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Route

from delivery.management.commands.demo import SAMPLE
from delivery.sandbox.mailbox import Mailbox
from delivery.sandbox.server import SandboxServer
from tests.house import House, a_house, newsletter_command, write_subscribers
from tests.stand_ins.http import HttpStandIn, json_reply

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "var" / "screenshots"
PASSWORD = "only-for-the-browser"
READERS = 12
GET_CHROMIUM = "apt-get install --yes chromium"
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


def chromium() -> str:
    """Where the browser is; "" for nowhere."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), "")


@dataclass
class Site:
    """One house with its door open; `weekly` sends at once, `monthly` waits for its podcast."""

    house: House
    url: str
    mailbox: Mailbox

    def wait_for_state(self, slug: str, state: str, seconds: float = 60) -> None:
        self.house.wait_until(lambda: self.house.state(slug) == state, seconds)

    def pk(self, slug: str) -> int:
        return int(self.house.value(f"SELECT id FROM newsletter_issue WHERE slug = '{slug}'"))

    def copy_for(self, name: str) -> str:
        """The key of a reader's copy of the sample."""
        return self.mailbox.summaries(query=f"{name}@example.org").items[0].key


@contextlib.contextmanager
def a_site() -> Iterator[Site]:
    """Everything that a host runs; the sample issue has been sent to all readers."""
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        podcast = stack.enter_context(HttpStandIn(json_reply({"status": "pending"})))
        house = stack.enter_context(a_house(empty=True, PUBLIC_URL=url))
        box = house.folder / "mail"
        server = SandboxServer(box)
        server.start()
        stack.callback(server.stop)
        house.settings |= {
            "EMAIL_URL": f"smtp://127.0.0.1:{server.port}",
            "SANDBOX_DIR": str(box),
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }
        _furnish(house, podcast.url("/next.json"))
        _open(house, door, url)
        site = Site(house, url, Mailbox(box))
        house.start_work()
        house.manage("release", "first-round", "--now")
        site.wait_for_state("first-round", "sent")
        yield site


@dataclass
class Watch:
    """What a page must not do, as it happened."""

    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def over(self, page: Page, url: str) -> None:
        def guard(route: Route) -> None:
            if route.request.url.startswith(f"{url}/"):
                route.continue_()
            else:
                self.outside.append(route.request.url)
                route.abort()

        def listen(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.complaints.append(f"{page.url}: {message.text}")

        page.route("**/*", guard)
        page.on("console", listen)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)


def sign_in(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/admin/login/?next=/admin/")
    page.get_by_label("Username").fill("ana")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{site.url}/admin/")


def keep(page: Page, name: str, *, whole: bool = True) -> None:
    """A screenshot for people, light and dark."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png", full_page=whole)
    page.emulate_media(color_scheme="light")


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def _furnish(house: House, podcast: str) -> None:
    file = house.folder / "readers.csv"
    write_subscribers(file, READERS)
    house.manage_all(
        ["createsuperuser", "--noinput", "--username=ana", "--email=ana@example.org"],
        newsletter_command("weekly"),
        newsletter_command("monthly", "--podcast", podcast),
        ["import_subscribers", str(file), "--newsletter", "weekly"],
        ["import_subscribers", str(file), "--newsletter", "monthly"],
        ["load_issue", str(SAMPLE), "--newsletter", "weekly", "--approve"],
    )


def _open(house: House, door: socket.socket, url: str) -> None:
    """gunicorn takes the socket that listens already: nobody else can take its port meanwhile."""
    with (house.folder / "web.log").open("ab") as log:
        command = [sys.executable, "-m", "gunicorn", "config.wsgi", "--threads=4"]
        process = subprocess.Popen(
            [*command, f"--bind=fd://{door.fileno()}", "--log-level=warning"],
            cwd=ROOT,
            env=house.environment,
            stdout=log,
            stderr=log,
            pass_fds=[door.fileno()],
        )
    house.started.append(process)
    end = time.monotonic() + 30
    while not _answers(url):
        assert process.poll() is None and time.monotonic() < end, "the web server did not start"
        time.sleep(0.1)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
