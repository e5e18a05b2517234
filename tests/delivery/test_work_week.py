"""The whole week with real processes: podcast, post, live page, mail, report; and what a second release does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from tests.house import House, a_house, newsletter_command, write_issue, write_subscribers
from tests.stand_ins.http import HttpStandIn, Reply, json_reply, reply
from tests.stand_ins.smtp import SmtpStandIn

READERS = 40
PENDING = json_reply({"status": "pending", "issue": "first"})
READY = json_reply(
    {
        "status": "ready",
        "issue": "first",
        "title": "Episode nine",
        "url": "https://cast.example.org/9.mp3",
        "duration": 1830,
    }
)


@dataclass
class Week:
    """One release that went to its end, and all that saw it."""

    house: House
    server: SmtpStandIn
    web: HttpStandIn

    def asked(self, path: str) -> int:
        return sum(request.path == path for request in self.web.requests)

    def notices(self) -> list[str]:
        said = [r.json()["embeds"][0] for r in self.web.requests if r.path == "/discord"]
        return [embed["footer"]["text"] for embed in said]

    def posts(self) -> list[Path]:
        return [path for path in (self.house.folder / "blog").rglob("*") if path.is_file()]

    def mail(self) -> EmailMessage:
        return message_from_bytes(self.server.copies[0].data, policy=default)


def a_week(*podcast: Reply) -> Iterator[Week]:
    routes = {"/podcast": list(podcast), "/blog/first/": [reply(404), reply(200)]}
    routes["/discord"] = [reply(204)]
    with SmtpStandIn() as server, HttpStandIn(routes=routes) as web:
        settings = {
            "EMAIL_URL": server.url,
            "DISCORD_WEBHOOK_URL": web.url("/discord"),
            "PODCAST_POLL_SECONDS": "0.5",
            "PODCAST_ATTEMPTS": "3",
            "LIVE_POLL_SECONDS": "0.5",
        }
        with a_house(empty=True, **settings) as house:
            furnish(house, web)
            house.start_work()
            house.manage("release", "first", "--now")
            week = Week(house, server, web)
            house.wait_until(lambda: "sent" in week.notices(), 40)
            yield week


def furnish(house: House, web: HttpStandIn) -> None:
    (house.folder / "blog").mkdir()
    write_subscribers(house.folder / "readers.csv", READERS)
    write_issue(house.folder / "first.md", "first")
    house.manage_all(
        newsletter_command(
            "weekly",
            *("--podcast", web.url("/podcast"), "--folder", str(house.folder / "blog")),
            *("--blog-url", web.url("/blog/{slug}/")),
        ),
        ["import_subscribers", str(house.folder / "readers.csv"), "--newsletter", "weekly"],
        ["load_issue", str(house.folder / "first.md"), "--newsletter", "weekly", "--approve"],
    )


@pytest.fixture(scope="module")
def week() -> Iterator[Week]:
    """The podcast is ready when it is asked for the third time."""
    yield from a_week(PENDING, PENDING, READY)


@pytest.fixture(scope="module")
def silent_week() -> Iterator[Week]:
    """The podcast never comes."""
    yield from a_week(PENDING)


def test_everybody_has_one_copy(week: Week) -> None:
    assert week.server.accepted() == Counter(f"reader{n}@example.org" for n in range(READERS))


def test_the_release_waits_for_the_podcast(week: Week) -> None:
    assert week.asked("/podcast") == 3
    assert ("publishing", "the podcast is there: Episode nine") in week.house.history()


def test_the_podcast_stands_in_post_and_mail(week: Week) -> None:
    text = week.mail().get_body(("plain",))
    assert text is not None
    assert "https://cast.example.org/9.mp3" in text.get_content()
    assert "https://cast.example.org/9.mp3" in week.posts()[0].read_text()


def test_the_mail_links_to_the_post_once_it_is_live(week: Week) -> None:
    text = week.mail().get_body(("plain",))
    assert text is not None
    assert week.web.url("/blog/first/") in text.get_content()
    assert week.asked("/blog/first/") == 2


def test_the_ledger_says_that_the_books_balance(week: Week) -> None:
    figures = json.loads(week.house.manage("ledger", "first", "--json").stdout)
    assert figures == {
        "issue": "weekly/first",
        "state": "sent",
        "paused": False,
        "audience": READERS,
        "pending": 0,
        "sending": 0,
        "sent": READERS,
        "failed": 0,
        "unknown": 0,
        "skipped": 0,
        "balanced": True,
    }


def test_start_and_end_are_told_once(week: Week) -> None:
    assert week.notices() == ["started", "sent"]


def test_a_second_release_sends_and_publishes_nothing(week: Week) -> None:
    before = [(path, path.stat().st_mtime_ns) for path in week.posts()]
    for command in ("release", "send"):
        assert "nothing to do" in week.house.manage(command, "first").stdout
    week.house.manage("safety_net")
    week.house.manage("recover_deliveries")
    open_jobs = "SELECT count(*) FROM delivery_job WHERE state IN ('queued', 'running')"
    assert week.house.value(open_jobs) == 0
    assert len(week.server.copies) == READERS
    assert [(path, path.stat().st_mtime_ns) for path in week.posts()] == before


def test_an_issue_goes_out_without_a_podcast_that_never_comes(silent_week: Week) -> None:
    assert silent_week.asked("/podcast") >= 3
    assert len(silent_week.server.accepted()) == READERS


def test_the_missing_podcast_is_told(silent_week: Week) -> None:
    assert silent_week.notices() == ["started", "podcast_missed", "sent"]


def test_the_missing_podcast_stands_in_the_history(silent_week: Week) -> None:
    reasons = [reason for _, reason in silent_week.house.history()]
    assert "goes on without the podcast: the podcast did not come, asked 3 times" in reasons


def test_the_missing_podcast_leaves_no_hole_in_the_mail(silent_week: Week) -> None:
    text = silent_week.mail().get_body(("plain",))
    assert text is not None
    assert "podcast" not in text.get_content().lower()
