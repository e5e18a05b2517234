"""Two terminals, two hosts' clocks and the safety net want the same release at the same moment (P7)."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.house import House, a_house, newsletter_command, write_issue, write_subscribers
from tests.stand_ins.smtp import SmtpStandIn

READERS = 30
NEWSLETTERS = ("morning", "noon", "evening")
LOCAL_HOUR = 11  # after the release and the safety net, before it is too late

# Each waits for a newsletter's name on its standard input, acts, and answers with a line.
TERMINAL = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
connection.ensure_connection()
print("ready", flush=True)
while name := input():
    call_command("release", f"{name}/{name}-issue", "--now")
"""
CLOCK = """
import django
django.setup()
from datetime import datetime, UTC
from delivery.jobs import tick
from newsletter.models import Newsletter
long_ago = datetime(2020, 1, 1, tzinfo=UTC)
list(Newsletter.objects.all())
print("ready", flush=True)
while name := input():
    Newsletter.objects.filter(slug=name).update(created_at=long_ago)  # its hour has come
    tick()
    print("ticked", flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[SmtpStandIn]:
    with SmtpStandIn(keep_data=False) as made:
        yield made


@pytest.fixture(scope="module")
def house(server: SmtpStandIn) -> Iterator[House]:
    """Three releases were wanted, each by all at once; all are over."""
    with a_house(empty=True, EMAIL_URL=server.url) as made:
        furnish(made)
        made.start_work()
        wanting = [made.python(code) for code in (TERMINAL, TERMINAL, CLOCK, CLOCK)]
        for process in wanting:
            assert hear(process) == "ready"
        for name in NEWSLETTERS:
            for process in wanting:
                say(process, name)
            made.wait_until(partial(is_sent, made, name), 30)
        for process in wanting:
            say(process, "")
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 0, errors
        yield made


def furnish(house: House) -> None:
    """Newsletters whose weekday is today and whose hour was some hours ago, in a zone where it is late morning."""
    now = datetime.now(UTC)
    offset = LOCAL_HOUR - now.hour
    today = (now + timedelta(hours=offset)).date()
    zone = f"Etc/GMT{-offset:+d}" if offset else "Etc/GMT"
    write_subscribers(house.folder / "readers.csv", READERS)
    for name in NEWSLETTERS:
        (house.folder / name).mkdir()
        write_issue(house.folder / f"{name}.md", f"{name}-issue", str(today))
        when = ["--zone", zone, "--weekday", today.strftime("%A").lower()]
        house.manage_all(
            newsletter_command(name, *when, "--folder", str(house.folder / name)),
            ["import_subscribers", str(house.folder / "readers.csv"), "--newsletter", name],
            ["load_issue", str(house.folder / f"{name}.md"), "--newsletter", name, "--approve"],
        )


def is_sent(house: House, name: str) -> bool:
    return house.state(f"{name}-issue") == "sent"


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("name", NEWSLETTERS)
def test_it_is_one_run(house: House, name: str) -> None:
    states = [new for new, reason in house.history(f"{name}-issue")]
    moves = [new for new, before in zip(states, ["", *states], strict=False) if new != before]
    assert moves == [
        "approved",
        "awaiting_podcast",
        "publishing",
        "published",
        "sending",
        "sent",
    ]


def test_the_hour_came_once_for_each_newsletter(house: House) -> None:
    rows = house.query("SELECT newsletter_id, count(*) FROM delivery_occurrence "
                       "WHERE schedule = 'release' GROUP BY newsletter_id")  # fmt: skip
    assert [n for _, n in rows] == [1] * len(NEWSLETTERS)


@pytest.mark.parametrize("name", NEWSLETTERS)
def test_there_is_one_post(house: House, name: str) -> None:
    posts = [path for path in Path(house.folder / name).rglob("*") if path.is_file()]
    published = [r for _, r in house.history(f"{name}-issue") if r.startswith("published: ")]
    assert (len(posts), len(published)) == (1, 1)


@pytest.mark.parametrize("name", NEWSLETTERS)
def test_the_audience_is_frozen_once(house: House, name: str) -> None:
    frozen = [r for new, r in house.history(f"{name}-issue") if r.startswith("audience frozen")]
    assert frozen == [f"audience frozen: {READERS}"]


def test_everybody_has_one_copy_of_each(house: House, server: SmtpStandIn) -> None:
    readers = {f"reader{n}@example.org": len(NEWSLETTERS) for n in range(READERS)}
    assert server.accepted() == Counter(readers)
