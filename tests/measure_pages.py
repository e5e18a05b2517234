"""How quick the pages are while 10,000 copies drain: `python -m tests.measure_pages` (TEST_DATABASE as usual).

Real processes: gunicorn, `work`, and an SMTP server. Prints median and 95th percentile of each page in milliseconds.
"""

from __future__ import annotations

import tests.environment  # noqa: F401  isort: skip  (starts the database server)

import argparse
import multiprocessing
import re
import socket
import statistics
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from tests.house import (
    ON_POSTGRES,
    ROOT,
    House,
    a_house,
    newsletter_command,
    write_issue,
    write_subscribers,
)
from tests.stand_ins.smtp import SmtpStandIn

GOAL_MS = 100
PASSWORD = "only-for-measuring"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=10_000)
    readers = parser.parse_args().readers
    mail = multiprocessing.get_context("spawn")
    ours, theirs = mail.Pipe()
    server = mail.Process(target=serve_mail, args=(theirs,), daemon=True)
    server.start()
    port = free_port()
    settings = {
        "EMAIL_URL": ours.recv(),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }
    with a_house(empty=True, **settings) as house:
        furnish(house, readers)
        serve_pages(house, port)
        missed = measure(house, f"http://127.0.0.1:{port}", readers)
    ours.send("stop")
    server.join(10)
    sys.exit(1 if missed else 0)


def serve_mail(pipe: Connection) -> None:
    """An SMTP server in a process of its own: its work is not the client's."""
    with SmtpStandIn(keep_data=False) as server:
        pipe.send(server.url)
        pipe.recv()


def furnish(house: House, readers: int) -> None:
    write_subscribers(house.folder / "readers.csv", readers)
    issues = sorted((ROOT.parent / "shared" / "data" / "issues").glob("*.md"))
    write_issue(house.folder / "first.md", "first")
    if issues:  # a long issue, as real ones are
        with (house.folder / "first.md").open("a") as file:
            file.write(f"\n{without_header(issues[0])}\n")
    house.manage_all(
        ["createsuperuser", "--noinput", "--username", "ana", "--email", "ana@example.org"],
        newsletter_command("weekly"),
        ["import_subscribers", str(house.folder / "readers.csv"), "--newsletter", "weekly"],
        ["load_issue", str(house.folder / "first.md"), "--newsletter", "weekly", "--approve"],
    )


def without_header(file: Path) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", file.read_text(), flags=re.DOTALL)


def serve_pages(house: House, port: int) -> None:
    """Start gunicorn; the house ends it."""
    with (house.folder / "gunicorn.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}"),
                *("--workers", "2", "--threads", "4", "--worker-class", "gthread"),
            ],
            cwd=ROOT,
            env=house.environment,
            stdout=log,
            stderr=log,
        )
    house.started.append(process)


def measure(house: House, base: str, readers: int) -> list[str]:
    """Fetch all pages in turn while the ledger drains; the pages that missed the goal."""
    with httpx.Client(base_url=base, timeout=30, trust_env=False) as client:
        house.wait_until(lambda: is_up(client), 30)
        sign_in(client)
        house.start_work()
        started = time.monotonic()
        house.manage("release", "first", "--now")
        house.wait_until(lambda: house.state() == "sending", 30)
        pages = paths(house)
        took: dict[str, list[float]] = {}
        before = house.statuses().get("sent", 0)
        tokens = iter(house.query("SELECT token FROM newsletter_subscription ORDER BY id DESC"))
        while house.state() == "sending":
            for name, path in pages.items():
                took.setdefault(name, []).append(fetch(client, path))
            took.setdefault("one-click POST", []).append(unsubscribe(client, next(tokens)[0]))
    drained = house.statuses().get("sent", 0) - before
    seconds = time.monotonic() - started
    print(f"{'postgres' if ON_POSTGRES else 'sqlite'}: {drained} of {readers} were sent while "
          f"the pages were fetched, {readers / seconds:.0f} a second from the start of the release")  # fmt: skip
    for name, times in took.items():
        p95 = sorted(times)[int(0.95 * (len(times) - 1))]
        print(f"{name:<24} median {statistics.median(times):6.1f}  p95 {p95:6.1f}  "
              f"longest {max(times):7.1f}  ({len(times)})")  # fmt: skip
    return [name for name, times in took.items() if statistics.median(times) >= GOAL_MS]


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.TransportError:
        return False


def sign_in(client: httpx.Client) -> None:
    client.get("/admin/login/")
    form = {"username": "ana", "password": PASSWORD}
    form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
    answer = client.post("/admin/login/?next=/admin/", data=form)
    assert answer.status_code == 302, "the sign-in was refused"


def paths(house: House) -> dict[str, str]:
    issue = house.value("SELECT id FROM newsletter_issue")
    token = house.value("SELECT min(token) FROM newsletter_subscription")
    return {
        "admin index": "/admin/",
        "issues": "/admin/newsletter/issue/",
        "an issue": f"/admin/newsletter/issue/{issue}/change/",
        "deliveries": "/admin/delivery/emaildelivery/",
        "deliveries, filtered": f"/admin/delivery/emaildelivery/?status__exact=sent&issue__id__exact={issue}",
        "deliveries, searched": "/admin/delivery/emaildelivery/?q=reader77@example.org",
        "subscribers": "/admin/newsletter/subscriber/",
        "public: home": "/",
        "public: archive": "/n/weekly/",
        "public: issue": "/n/weekly/first/",
        "public: unsubscribe": f"/u/{token}/",
    }


def fetch(client: httpx.Client, path: str) -> float:
    started = time.perf_counter()
    answer = client.get(path)
    took = (time.perf_counter() - started) * 1000
    assert answer.status_code == 200, f"{path}: {answer.status_code}"
    return took


def unsubscribe(client: httpx.Client, token: str) -> float:
    """A writer beside the senders: RFC 8058's POST."""
    started = time.perf_counter()
    answer = client.post(f"/u/{token}/", data={"List-Unsubscribe": "One-Click"})
    took = (time.perf_counter() - started) * 1000
    assert answer.status_code == 200, answer.status_code
    return took


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
