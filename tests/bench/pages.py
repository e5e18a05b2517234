"""pages: every page with a million subscribers and 52 issues, the newest of them on its way to all."""

from __future__ import annotations

import html
import http.client
import json
import re
import statistics
import subprocess
import sys
import time
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urljoin

from tests.bench import filling, machine, servers
from tests.bench.bench import Bench
from tests.bench.draining import Void, look
from tests.bench.wire import work_settings
from tests.house import ROOT, House

TIMES = 15  # of each page; the first is left out
PATIENCE = 10.0  # seconds for one page; three times at least
OLD_ISSUES = 51
PASSWORD = "only-for-measuring"
SHARE_SENT = 0.05  # of the newest issue, before the pages are looked at
SENT = "SELECT 1 FROM delivery_emaildelivery WHERE status = 'sent' ORDER BY id LIMIT 1 OFFSET {}"
SEARCH = "?" + urlencode({"q": "person77@example.org"})


def run(bench: Bench) -> dict[str, Any]:
    """Milliseconds of each page, the median as its reader sees it, while nothing is sent."""
    return visited(bench, bench.million, times=bench.size(TIMES, 2))


def visited(bench: Bench, readers: int, times: int) -> dict[str, Any]:
    web = servers.free_port()
    with (
        servers.a_sink() as port,
        bench.house(
            readers,
            **work_settings(port, 8, 1),
            PUBLIC_URL=f"http://127.0.0.1:{web}",
            DJANGO_SUPERUSER_PASSWORD=PASSWORD,
        ) as house,
    ):
        furnish(house, readers, old_rows=bench.size(20_000, 50))
        serve(house, web)
        house.start_work()  # its bulk lane is paused: it has nothing to do
        visitor = Visitor(web)
        pages = visitor.pages(house)
        found = {name: visitor.look(path, times) for name, path in pages.items()}
        busy = under_load(house, visitor, pages)
        processes = house.processes().items()
        web_mb = max(machine.peak_mb(pid) for pid, words in processes if "gunicorn" in words)
    if broken := sorted(name for name, page in found.items() if page["status"] >= 500):
        raise Void(f"answered with an error: {', '.join(broken)}")
    shown = {name: page for name, page in found.items() if page["status"] == 200}
    return {
        "web_mb": web_mb,
        "pages": shown,
        "left_out": {
            name: page["status"] for name, page in found.items() if page["status"] not in (200, 403)
        },
        "under_load": busy,
    }


def under_load(house: House, visitor: Visitor, pages: dict[str, str]) -> dict[str, float]:
    """The median of three of each page while the issue goes on; without a page for which it lasted too short."""
    house.manage("lanes", "resume", "bulk")
    found = {}
    tokens = house.query("SELECT token FROM newsletter_subscription ORDER BY id DESC LIMIT 20")
    took = [visitor.unsubscribe(token) for (token,) in tokens]
    found["one-click POST"] = statistics.median(took)
    for name, path in pages.items():
        page = visitor.look(path, 4)
        if house.state() != "sending":
            break
        if page["status"] == 200:
            found[name] = page["median"]
    return found


def furnish(house: House, readers: int, old_rows: int) -> None:
    """A part of the newest issue is sent, and `work` stopped; the old ones are copies of it, to fewer."""
    work = house.start_work()
    house.manage("release", "first", "--now")
    enough = SENT.format(int(readers * SHARE_SENT))
    house.wait_until(lambda: look(house) == "sent" or house.query(enough), 600)
    house.manage("lanes", "pause", "bulk", "--reason", "measuring")
    work.terminate(90)
    house.manage("createsuperuser", "--noinput", "--username=ana", "--email=ana@example.org")
    old = filling.SERIES.format(count=OLD_ISSUES)
    rows = str(min(old_rows, readers))
    filling.multiply(
        house,
        "newsletter_issue",
        old,
        slug="'old-' || n",
        title="'The issue ' || n",
        state="'sent'",
        audience=rows,
        closed_at="first.audience_frozen_at",
    )
    filling.multiply(
        house,
        "delivery_emaildelivery",
        "(SELECT id AS issue FROM newsletter_issue WHERE slug <> 'first') old, "
        "(SELECT s.id AS subscription, p.address, p.address_key, p.name FROM newsletter_subscription s "
        "JOIN newsletter_subscriber p ON p.id = s.subscriber_id "
        f"ORDER BY s.id LIMIT {rows}) people",
        "first.status = 'sent'",
        issue_id="old.issue",
        subscription_id="people.subscription",
        address="people.address",
        address_key="people.address_key",
        name="people.name",
    )
    of_old = "(SELECT id AS issue FROM newsletter_issue WHERE slug <> 'first') old"
    figures = dict.fromkeys(("pending", "sending", "failed", "unknown", "skipped"), "0")
    filling.multiply(
        house, "delivery_ledgertally", of_old, issue_id="old.issue", sent=rows, **figures
    )
    filling.multiply(house, "delivery_compiledissue", of_old, key="issue_id", issue_id="old.issue")
    filling.settle(house)


def serve(house: House, port: int) -> None:
    """gunicorn as docs/operations.md starts it; the house ends it."""
    words = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "4"]
    with (house.folder / "gunicorn.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "config.wsgi", *words],
            cwd=ROOT,
            env=house.environment,
            stdout=log,
            stderr=log,
        )
    house.started.append(process)
    servers.wait_for(port)


class Visitor:
    """A person with a browser that does little: what is measured is the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: SimpleCookie = SimpleCookie()
        self.fetch("/admin/login/")
        form = {"username": "ana", "password": PASSWORD}
        form["csrfmiddlewaretoken"] = self._cookies["csrftoken"].value
        status, _, _ = self.fetch("/admin/login/?next=/admin/", urlencode(form))
        assert status == 302, "the sign-in was refused"

    def fetch(self, path: str, form: str = "") -> tuple[int, str, str]:
        """Status, text, and where it sends us; on a connection of its own, as behind a proxy."""
        headers = {"Cookie": "; ".join(f"{k}={v.value}" for k, v in self._cookies.items())}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request("POST" if form else "GET", path, form or None, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            for cookie in answer.headers.get_all("Set-Cookie", []):
                self._cookies.load(cookie)
            return answer.status, text, answer.headers.get("Location", "")
        finally:
            connection.close()

    def look(self, path: str, times: int) -> dict[str, Any]:
        """Fetch a page again and again, and where it leads; milliseconds, the median without the first."""
        took: list[float] = []
        end = time.monotonic() + PATIENCE
        status = self._followed(path)
        while status == 200 and len(took) < times - 1 and (len(took) < 2 or time.monotonic() < end):
            began = time.perf_counter()
            status = self._followed(path)
            took.append(1000 * (time.perf_counter() - began))
        median = statistics.median(took) if took else 0.0
        return {"path": path, "status": status, "times": len(took), "median": median}

    def unsubscribe(self, token: str) -> float:
        """RFC 8058's POST; milliseconds."""
        began = time.perf_counter()
        status, _, _ = self.fetch(f"/u/{token}/", "List-Unsubscribe=One-Click")
        assert status == 200, f"the unsubscribe was answered with {status}"
        return 1000 * (time.perf_counter() - began)

    def pages(self, house: House) -> dict[str, str]:
        """All pages, and each kind of link that a list has: its filters, its order, the next page, a search."""
        program = house.program("-m", "tests.bench.site_pages")
        out, errors = program.communicate(timeout=60)
        assert program.returncode == 0, errors
        found: dict[str, str] = json.loads(out)
        lists = {name: path for name, path in found.items() if name.endswith("_changelist")}
        for name, path in lists.items():
            _, text, _ = self.fetch(path)
            for kind, link in kinds_of_links(text).items():
                found[f"{name}, {kind}"] = path + link
        return found

    def _followed(self, path: str) -> int:
        status, _, location = self.fetch(path)
        if status == 302 and location and "/login/" not in location:
            status, _, _ = self.fetch(urljoin(path, location))
        return status


def kinds_of_links(text: str) -> dict[str, str]:
    """The last link for each set of names in its query."""
    kinds = {}
    for link in re.findall(r'href="(\?[^"#]+)"', text):
        query = html.unescape(link)
        names = sorted(set(re.findall(r"[?&]([\w.]+)=", query)))
        kinds[" and ".join(names)] = query
    if 'id="searchbar"' in text:
        kinds["searched"] = SEARCH
    return kinds
