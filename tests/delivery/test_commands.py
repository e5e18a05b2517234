"""The commands: what they do, what they say, and how they exit. Scripts rely on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from delivery import queue, release, sending
from delivery.management.commands import send_test
from delivery.models import EmailDelivery, Job, Lease, TransactionalMail
from newsletter.models import (
    Issue,
    Newsletter,
    Subscription,
    Suppression,
    Transition,
    address_key,
    database_now,
)
from newsletter.models.transition import Subject
from tests import cast
from tests.stand_ins.smtp import SmtpStandIn, say, stall

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = """---
title: The first issue
slug: first-issue
date: 2026-06-01
summary: What happened.
---

Hello **readers**.
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def run(*words: str) -> Result:
    """A command as it is typed; its exit code, and what it said."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command(*words, stdout=out, stderr=err)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    except SystemExit as ended:
        code = int(ended.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


@pytest.fixture
def server(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as stand_in:
        settings.EMAIL_URL = stand_in.url
        yield stand_in


def published(newsletter: Newsletter) -> Issue:
    issue = cast.approved(newsletter)
    Issue.objects.filter(pk=issue.pk).update(
        state="published", web_url="https://news.example.org/", started_at=database_now()
    )
    issue.refresh_from_db()
    return issue


def frozen(newsletter: Newsletter, readers: int = 3) -> Issue:
    """An issue at the beginning of its sending."""
    cast.readers(newsletter, readers)
    issue = published(newsletter)
    assert sending.freeze(issue, sending.compile_issue(issue), actor="release")
    issue.refresh_from_db()
    return issue


def closed(newsletter: Newsletter) -> Issue:
    issue = frozen(newsletter)
    EmailDelivery.objects.update(status="sent")
    Issue.objects.update(state="sent", closed_at=database_now())
    issue.refresh_from_db()
    return issue


# create_newsletter

CREATE = (
    "create_newsletter", "weekly", "--name", "The Weekly", "--from-email", "ana@news.example.org",
    "--postal-address", "1 Main Street, Lisbon",
)  # fmt: skip


def test_it_creates_a_newsletter_with_neither_podcast_nor_blog() -> None:
    result = run(*CREATE)
    assert (result.code, result.out) == (0, "Created weekly.\n")
    found = Newsletter.objects.get()
    assert (found.name, found.publisher, found.podcast_url) == ("The Weekly", "", "")


def test_it_creates_a_newsletter_that_publishes_to_github() -> None:
    result = run(
        *CREATE,
        "--podcast", "https://pod.example.org/feed.xml",
        "--github", "ana/blog", "--branch", "main",
        "--path", "content/{year}/{slug}.md", "--blog-url", "https://blog.example.org/{slug}/",
    )  # fmt: skip
    assert result.code == 0
    found = Newsletter.objects.get()
    assert (found.publisher, found.github_repository, found.github_branch) == (
        "github",
        "ana/blog",
        "main",
    )
    assert (found.post_path, found.blog_url) == (
        "content/{year}/{slug}.md",
        "https://blog.example.org/{slug}/",
    )
    assert found.podcast_url == "https://pod.example.org/feed.xml"


def test_it_creates_a_newsletter_that_publishes_to_a_folder(tmp_path: Path) -> None:
    assert run(*CREATE, "--folder", str(tmp_path)).code == 0
    found = Newsletter.objects.get()
    assert (found.publisher, found.folder) == ("folder", str(tmp_path))


def test_its_week_can_be_given() -> None:
    given = ("--zone", "Europe/Lisbon", "--weekday", "friday", "--time", "18:30")
    assert run(*CREATE, *given, "--safety-net", "20:00", "--too-late", "23:00").code == 0
    found = Newsletter.objects.get()
    assert (found.zone, found.release_weekday, f"{found.release_time}") == (
        "Europe/Lisbon",
        4,
        "18:30:00",
    )


@pytest.mark.parametrize(
    ("over", "named"),
    [
        (("--zone", "Lisbon"), "zone: Lisbon is not a time zone"),
        (("--time", "25:00"), "release_time"),
        (("--from-email", "ana"), "from_email"),
        (("--podcast", "not a url"), "podcast_url"),
        (("--name", "The\nWeekly"), "name: Takes one line"),
        (("--time", "19:00"), "must follow each other"),
    ],
)
def test_a_newsletter_that_cannot_be_is_refused_in_words(over: tuple[str, str], named: str) -> None:
    result = run(*CREATE, *over)
    assert result.code == 2
    assert named in result.err
    assert not Newsletter.objects.exists()


def test_a_taken_slug_is_refused(weekly: Newsletter) -> None:
    result = run(*CREATE)
    assert result.code == 2
    assert "slug: Newsletter with this Slug already exists." in result.err


def test_two_places_to_publish_are_refused() -> None:
    result = run(*CREATE, "--github", "ana/blog", "--folder", "blog")
    assert result.code != 0
    assert "not allowed with argument" in result.err


# import_subscribers


def test_it_imports_a_file_and_names_what_was_wrong(weekly: Newsletter, tmp_path: Path) -> None:
    file = tmp_path / "readers.csv"
    file.write_text("email,name\nbob@example.org,Bob\nnobody,x\n")
    result = run("import_subscribers", str(file), "--newsletter", "weekly")
    assert result.code == 0
    assert "2 rows: 1 added, 0 were subscribed already, 1 with a problem." in result.out
    assert "line 3: is not an address" in result.err
    assert Subscription.objects.get().consent_source == "import of readers.csv"


def test_many_problems_are_shown_in_part_or_all(weekly: Newsletter, tmp_path: Path) -> None:
    file = tmp_path / "readers.csv"
    file.write_text("email\nbob@example.org\n" + "nobody\n" * 150)
    result = run("import_subscribers", str(file), "--newsletter", "weekly")
    assert "... and 50 more (--all-problems)" in result.err
    whole = run("import_subscribers", str(file), "--newsletter", "weekly", "--all-problems")
    assert whole.err.count("is not an address") == 150


def test_an_import_of_nobody_exits_2(weekly: Newsletter, tmp_path: Path) -> None:
    file = tmp_path / "readers.csv"
    file.write_text("email\nnobody\n")
    result = run("import_subscribers", str(file), "--newsletter", "weekly")
    assert (result.code, "Nobody was imported." in result.err) == (2, True)


@pytest.mark.parametrize("text", ["", "address\nbob@example.org\n"])
def test_an_import_that_cannot_be_read_exits_2(
    weekly: Newsletter, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "readers.csv"
    file.write_text(text)
    result = run("import_subscribers", str(file), "--newsletter", "weekly")
    assert (result.code, "`email`" in result.err) == (2, True)


@pytest.mark.parametrize("command", ["import_subscribers", "load_issue"])
def test_a_file_that_is_not_there_exits_2(weekly: Newsletter, command: str) -> None:
    result = run(command, "nowhere.txt", "--newsletter", "weekly")
    assert result.code == 2
    assert "nowhere.txt cannot be read: No such file or directory." in result.err


@pytest.mark.parametrize("command", ["import_subscribers", "load_issue"])
def test_an_unknown_newsletter_exits_2_and_names_those_there_are(
    weekly: Newsletter, command: str
) -> None:
    result = run(command, "nowhere.txt", "--newsletter", "daily")
    assert result.code == 2
    assert "There is no newsletter 'daily' (there is: weekly)." in result.err


# load_issue


def load(tmp_path: Path, text: str | bytes, *words: str) -> Result:
    file = tmp_path / "issue.md"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return run("load_issue", str(file), "--newsletter", "weekly", *words)


def test_it_loads_a_draft(weekly: Newsletter, tmp_path: Path) -> None:
    result = load(tmp_path, FILE)
    issue = Issue.objects.get()
    assert (result.code, result.err) == (0, "")
    assert f"Loaded weekly/first-issue as issue {issue.pk}: a draft." in result.out
    assert (issue.title, issue.release_date, issue.markdown) == (
        "The first issue",
        date(2026, 6, 1),
        "Hello **readers**.",
    )


def test_it_loads_and_approves(weekly: Newsletter, tmp_path: Path) -> None:
    result = load(tmp_path, FILE, "--approve")
    assert (result.code, Issue.objects.get().state) == (0, "approved")
    assert "Approved weekly/first-issue for 2026-06-01." in result.out
    assert Issue.objects.get().approved_by.endswith("(command)")


def test_an_issue_that_cannot_be_approved_stays_a_draft_and_exits_2(tmp_path: Path) -> None:
    cast.newsletter(postal_address="")
    result = load(tmp_path, FILE, "--approve")
    assert (result.code, "postal address" in result.err) == (2, True)
    assert Issue.objects.get().state == "draft"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello.\n", "line 1: The file has no front matter"),
        ("---\ntitle: x\n", "line 1: The front matter is never closed"),
        ("---\ntitle: a: b\ndate: 2026-06-01\n---\n\nx\n", "line 2: The front matter is no YAML"),
        ("---\ndate: 2026-06-01\n---\n\nx\n", "line 1: The issue has no title"),
        ("---\ntitle: x\ndate: soon\n---\n\nx\n", "line 3: 'soon' is no day"),
        ("---\ntitle: x\ndate: 2026-06-01\n---\n\n\n", "line 4: There is nothing after"),
        (b"---\ntitle: x\ndate: 2026-06-01\n---\n\nol\xe1\n", "line 6: The file is not UTF-8"),
        (FILE.replace("first-issue", "2026"), "line 3: The slug '2026'"),
        (FILE.replace("first-issue", "-first-"), "line 3: The slug '-first-'"),
        (FILE.replace("first-issue", "a--b"), "line 3: The slug 'a--b'"),
        (FILE.replace("summary: ", "author: " + "x" * 150), "line 5: The author has"),
    ],
)
def test_a_file_that_is_no_issue_exits_2_with_its_line(
    weekly: Newsletter, tmp_path: Path, text: str | bytes, said: str
) -> None:
    result = load(tmp_path, text)
    assert result.code == 2
    assert f"issue.md, {said}" in result.err
    assert not Issue.objects.exists()


def test_an_unknown_key_is_a_warning_with_its_line(weekly: Newsletter, tmp_path: Path) -> None:
    result = load(tmp_path, FILE.replace("summary:", "sumary:"))
    assert result.code == 0
    assert "warning: line 5: The key 'sumary' is ignored: did you mean summary?" in result.err


def test_what_an_author_should_look_at_is_a_warning(weekly: Newsletter, tmp_path: Path) -> None:
    result = load(tmp_path, FILE + "\n[here](/relative)\n")
    assert result.code == 0
    assert "warning: The link to /relative is relative" in result.err


def test_a_slug_that_is_taken_exits_2_and_says_what_to_do(
    weekly: Newsletter, tmp_path: Path
) -> None:
    load(tmp_path, FILE)
    result = load(tmp_path, FILE)
    assert result.code == 2
    assert "The slug 'first-issue' is taken in weekly" in result.err
    assert Issue.objects.count() == 1


# ISSUE: an id, a slug, or NEWSLETTER/SLUG


def test_an_issue_is_named_by_id_by_slug_or_with_its_newsletter(weekly: Newsletter) -> None:
    issue = frozen(weekly)
    said = {
        run("ledger", name, "--json").out
        for name in (str(issue.pk), "first-issue", "weekly/first-issue")
    }
    assert len(said) == 1
    assert json.loads(said.pop())["issue"] == "weekly/first-issue"


def test_a_slug_that_two_newsletters_have_is_ambiguous(weekly: Newsletter) -> None:
    cast.issue(weekly)
    cast.issue(cast.newsletter(slug="monthly"))
    result = run("ledger", "first-issue")
    assert result.code == 2
    assert "Several issues are named 'first-issue'" in result.err
    assert "weekly/first-issue" in result.err
    assert "monthly/first-issue" in result.err


@pytest.mark.parametrize("command", ["release", "send", "ledger"])
@pytest.mark.parametrize(
    "name", ["nothing", "999999", "9" * 30, "weekly/nothing", "monthly/first-issue", "/", "", "٣"]
)
def test_an_issue_that_is_not_there_exits_2(weekly: Newsletter, command: str, name: str) -> None:
    cast.issue(weekly)
    result = run(command, name)
    assert (result.code, result.err) == (2, f"There is no issue {name!r}.")


# release


def test_release_starts_an_approved_issue_once(weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    first = run("release", "first-issue")
    assert (first.code, first.out) == (0, "The release of weekly/first-issue has started.\n")
    second = run("release", "first-issue")
    assert (second.code, "goes on: awaiting_podcast" in second.out) == (0, True)
    assert Job.objects.filter(issue=issue, name="await_podcast").count() == 1
    rows = Transition.objects.of(Subject.ISSUE, issue.pk)
    assert rows.filter(new="awaiting_podcast").count() == 1


def test_release_before_its_hour_says_when_and_exits_3(weekly: Newsletter) -> None:
    day = date.today() + timedelta(days=9)
    cast.approved(weekly, release_date=day)
    result = run("release", "first-issue")
    assert result.code == 3
    assert f"weekly/first-issue is due at {day} 07:00 UTC. Use --now" in result.err
    assert Issue.objects.get().state == "approved"
    assert not Job.objects.exists()


def test_release_now_does_not_wait_for_its_hour(weekly: Newsletter) -> None:
    cast.approved(weekly, release_date=date.today() + timedelta(days=9))
    assert run("release", "first-issue", "--now").code == 0
    assert Issue.objects.get().state == "awaiting_podcast"


@pytest.mark.parametrize("state", ["draft", "cancelled"])
def test_release_of_what_is_not_approved_exits_2(weekly: Newsletter, state: str) -> None:
    cast.issue(weekly)
    Issue.objects.update(state=state)
    result = run("release", "first-issue")
    assert (result.code, f"is {state}: only an approved issue" in result.err) == (2, True)


def test_release_of_a_sent_issue_says_so_and_exits_0(weekly: Newsletter) -> None:
    closed(weekly)
    result = run("release", "first-issue")
    assert (result.code, result.out) == (0, "weekly/first-issue is sent: nothing to do.\n")


def test_release_of_a_paused_issue_exits_2_until_it_is_resumed(weekly: Newsletter) -> None:
    cast.approved(weekly).pause(reason="a typo", actor="ana")
    result = run("release", "first-issue")
    assert (result.code, "is paused (a typo)" in result.err) == (2, True)
    assert run("release", "first-issue", "--resume").code == 0
    assert Issue.objects.get().state == "awaiting_podcast"


def test_release_lifts_a_block(weekly: Newsletter) -> None:
    issue = cast.approved(weekly)
    release.start(issue, actor="ana")
    Issue.objects.update(state="publishing")
    issue.refresh_from_db()
    issue.block(reason="refused", actor="release")
    assert run("release", "first-issue").code == 0
    assert Issue.objects.get().blocked_reason == ""
    assert Job.objects.filter(name="publish", state="queued").count() == 1


def test_release_goes_without_what_is_missing(weekly: Newsletter) -> None:
    cast.approved(weekly)
    assert run("release", "first-issue", "--without-podcast", "--without-blog").code == 0
    issue = Issue.objects.get()
    assert (issue.without_podcast, issue.without_blog) == (True, True)
    reasons = Transition.objects.of(Subject.ISSUE, issue.pk).values_list("reason", flat=True)
    assert "goes on without the podcast and blog" in reasons


@pytest.mark.django_db(transaction=True)
def test_release_wait_of_a_run_that_is_paused_meanwhile_ends_and_exits_2() -> None:
    issue = cast.approved(cast.newsletter())

    def pause() -> None:
        wait_for(issue, "awaiting_podcast")
        issue.pause(reason="by bruno", actor="bruno")

    with in_a_thread(pause):
        result = run("release", "first-issue", "--wait")
    assert result.code == 2
    assert "paused: by bruno" in result.out
    assert "did not arrive" in result.err


def wait_for(issue: Issue, state: str) -> None:
    end = time.monotonic() + 30
    while not Issue.objects.filter(pk=issue.pk, state=state).exists():
        assert time.monotonic() < end, f"it never was {state}"
        time.sleep(0.01)


@contextmanager
def in_a_thread(body: Callable[[], None]) -> Iterator[None]:
    def work() -> None:
        try:
            body()
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


@contextmanager
def workers() -> Iterator[None]:
    """Somebody who runs what is due."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            for pk in Job.objects.due(database_now()).values_list("pk", flat=True):
                queue.run(pk)

    with in_a_thread(work):
        try:
            yield
        finally:
            stop.set()


@pytest.mark.django_db(transaction=True)
def test_release_wait_follows_until_everybody_has_the_mail(server: SmtpStandIn) -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 3)
    cast.approved(weekly)
    with workers():
        result = run("release", "first-issue", "--wait")
    assert result.code == 0, result.err
    for state in ("awaiting_podcast", "publishing", "published", "sending", "sent"):
        assert state in result.out
    assert "no podcast is configured" in result.out
    assert sorted(server.accepted()) == [
        "bob@example.org",
        "carla@example.org",
        "davi@example.org",
    ]
    assert set(server.accepted().values()) == {1}
    assert run("ledger", "first-issue").code == 0


# send


def test_send_starts_or_resumes_what_is_published(weekly: Newsletter) -> None:
    published(weekly)
    result = run("send", "first-issue")
    assert (result.code, "goes on: published" in result.out) == (0, True)
    assert Job.objects.get().name == "await_live"


def test_send_resumes_the_senders(weekly: Newsletter) -> None:
    frozen(weekly)
    Job.objects.all().delete()
    assert run("send", "first-issue").code == 0
    assert {job.name for job in Job.objects.all()} == {"deliver"}


@pytest.mark.parametrize(
    "state", ["draft", "approved", "awaiting_podcast", "publishing", "cancelled"]
)
def test_send_of_what_is_not_published_exits_2_with_the_reason(
    weekly: Newsletter, state: str
) -> None:
    cast.approved(weekly)
    Issue.objects.update(state=state)
    result = run("send", "first-issue")
    assert result.code == 2
    assert f"weekly/first-issue is {state}: it must be published" in result.err
    assert not Job.objects.exists()


def test_send_of_a_closed_issue_says_so_and_exits_0(weekly: Newsletter) -> None:
    closed(weekly)
    result = run("send", "first-issue")
    assert (result.code, "is sent: nothing to do" in result.out) == (0, True)
    assert not Job.objects.filter(created_at__gt=Issue.objects.get().closed_at).exists()


# ledger


def test_the_ledger_before_the_freeze_has_no_audience_and_exits_1(weekly: Newsletter) -> None:
    cast.approved(weekly)
    result = run("ledger", "first-issue", "--json")
    assert result.code == 1
    assert json.loads(result.out) == {
        "issue": "weekly/first-issue",
        "state": "approved",
        "paused": False,
        "audience": None,
        "pending": 0,
        "sending": 0,
        "sent": 0,
        "failed": 0,
        "unknown": 0,
        "skipped": 0,
        "balanced": False,
    }


def test_the_ledger_with_open_rows_exits_1(weekly: Newsletter) -> None:
    frozen(weekly)
    result = run("ledger", "first-issue", "--json")
    figures = json.loads(result.out)
    assert (result.code, figures["audience"], figures["pending"]) == (1, 3, 3)
    assert figures["balanced"] is True


def test_the_ledger_of_a_paused_issue_says_so(weekly: Newsletter) -> None:
    frozen(weekly).pause(reason="a typo", actor="ana")
    assert json.loads(run("ledger", "first-issue", "--json").out)["paused"] is True


def test_the_ledger_exits_0_when_nothing_is_open_and_it_balances(weekly: Newsletter) -> None:
    frozen(weekly)
    for row, status in zip(EmailDelivery.objects.all(), ("sent", "unknown", "failed"), strict=True):
        EmailDelivery.objects.filter(pk=row.pk).update(status=status)
    result = run("ledger", "first-issue", "--json")
    figures = json.loads(result.out)
    assert result.code == 0
    assert [figures[name] for name in ("sent", "unknown", "failed", "skipped")] == [1, 1, 1, 0]


def test_the_ledger_that_lost_a_row_does_not_balance(weekly: Newsletter) -> None:
    closed(weekly)
    EmailDelivery.objects.first().delete()  # type: ignore[union-attr]
    result = run("ledger", "first-issue", "--json")
    assert (result.code, json.loads(result.out)["balanced"]) == (1, False)


def test_the_ledger_reads_well_for_people(weekly: Newsletter) -> None:
    cast.approved(weekly)
    said = words(run("ledger", "first-issue").out)
    assert "state approved" in said
    assert "audience not frozen yet" in said
    assert "balanced no" in said


# send_test


def test_a_test_mail_goes_to_one_address_before_approval(
    weekly: Newsletter, server: SmtpStandIn
) -> None:
    cast.issue(weekly)
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert (result.code, result.out) == (0, "weekly/first-issue was mailed to ana@example.org.\n")
    assert server.accepted() == {"ana@example.org": 1}
    data = server.copies[0].data.decode()
    assert "Subject: [Test] The first issue" in data
    assert "http://news.example.org/u/test/" in data
    assert not EmailDelivery.objects.exists()
    assert Issue.objects.get().state == "draft"


def test_a_test_mail_that_is_refused_says_so_and_exits_1(
    weekly: Newsletter, server: SmtpStandIn
) -> None:
    cast.issue(weekly)
    server.on("rcpt", say("550 5.1.1 no such user"))
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert result.code == 1
    assert "The mail server did not take it (rcpt)" in result.err
    assert "5.1.1" in result.err
    assert "not tried again" in result.err
    assert TransactionalMail.objects.get().state == "failed"


def test_a_mail_server_that_is_not_there_is_told_and_work_tries_again(weekly: Newsletter) -> None:
    cast.issue(weekly)
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert result.code == 1
    assert "The mail server did not take it (connect)" in result.err
    until = TransactionalMail.objects.get().created_at + timedelta(hours=1)
    assert f"`work` tries again until {until:%Y-%m-%d %H:%M} UTC." in result.err
    assert Job.objects.get(name="mail").state == "queued"


def test_a_test_mail_to_a_suppressed_address_is_not_sent(
    weekly: Newsletter, server: SmtpStandIn
) -> None:
    cast.issue(weekly)
    Suppression.objects.create(address_key=address_key("ana@example.org"), reason="complaint")
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert (result.code, "suppressed" in result.err) == (1, True)
    assert server.copies == []


def test_a_test_mail_while_the_lane_is_paused_is_told_and_waits(
    weekly: Newsletter, server: SmtpStandIn
) -> None:
    cast.issue(weekly)
    queue.pause_lane("critical", actor="ana", reason="moving house")
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert (result.code, "no worker has answered yet" in result.err.lower()) == (1, True)
    assert server.copies == []


@pytest.mark.django_db(transaction=True)
def test_a_test_mail_that_a_worker_has_already_is_followed(
    weekly: Newsletter, server: SmtpStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's claim comes first: the command sends nothing itself, and reports what the worker did."""
    cast.issue(weekly)
    server.on("dot", stall(0.5))
    workers: list[threading.Thread] = []

    def work(job_id: int) -> None:
        queue.run(job_id)
        connection.close()

    def worker_is_quicker(job_id: int) -> None:
        workers.append(threading.Thread(target=work, args=(job_id,)))
        workers[0].start()
        server.wait_for(1)
        queue.run(job_id)

    monkeypatch.setattr(send_test, "queue", SimpleNamespace(run=worker_is_quicker))
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    workers[0].join(10)
    assert (result.code, result.out) == (0, "weekly/first-issue was mailed to ana@example.org.\n")
    assert server.accepted() == {"ana@example.org": 1}


def test_a_refusal_for_now_is_told_in_the_servers_words(
    weekly: Newsletter, server: SmtpStandIn
) -> None:
    cast.issue(weekly)
    server.on("rcpt", say("450 4.2.0 greylisted"))
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert (result.code, "450 4.2.0 greylisted" in result.err) == (1, True)


def test_a_test_mail_to_no_address_exits_2(weekly: Newsletter) -> None:
    cast.issue(weekly)
    result = run("send_test", "first-issue", "--to", "ana")
    assert (result.code, "--to is not an address" in result.err) == (2, True)


def test_a_test_mail_of_an_issue_with_a_problem_exits_2() -> None:
    cast.issue(cast.newsletter(postal_address=""))
    result = run("send_test", "first-issue", "--to", "ana@example.org")
    assert (result.code, "postal address" in result.err) == (2, True)
    assert not TransactionalMail.objects.exists()


# safety_net and recover_deliveries


def test_the_safety_net_with_nothing_to_do_says_so(weekly: Newsletter) -> None:
    cast.issue(weekly)
    result = run("safety_net")
    assert (result.code, result.out) == (0, "Nothing to do.\n")
    assert not Job.objects.exists()


def test_the_safety_net_resumes_a_run_that_lies_there_once(weekly: Newsletter) -> None:
    published(weekly)
    assert run("safety_net").out == "resumed weekly/first-issue at published\n"
    assert run("safety_net").out == "Nothing to do.\n"


@pytest.mark.parametrize("held", ["paused", "blocked"])
def test_the_safety_net_leaves_alone_what_is_held(weekly: Newsletter, held: str) -> None:
    issue = published(weekly)
    if held == "paused":
        issue.pause(reason="a typo", actor="ana")
    else:
        issue.block(reason="refused", actor="release")
    assert run("safety_net").out == "Nothing to do.\n"
    assert not Job.objects.exists()


def test_recovery_with_nothing_to_do_says_so() -> None:
    result = run("recover_deliveries")
    assert result.code == 0
    assert result.out.startswith("0 deliveries became unknown, 0 expired")


def test_recovery_settles_what_a_dead_sender_left(weekly: Newsletter) -> None:
    frozen(weekly)
    lease = Lease.acquire("sender:1:0")
    assert lease
    lease.release()
    wire = EmailDelivery.objects.order_by("id")[0]
    EmailDelivery.objects.filter(pk=wire.pk).update(
        status="sending", sender=lease.pk, fence=lease.fence, attempt=1, sending_at=database_now()
    )
    result = run("recover_deliveries")
    assert result.out.startswith("1 deliveries became unknown, 0 expired")
    wire.refresh_from_db()
    assert (wire.status, wire.reason) == ("unknown", "sender_lost")
    assert run("recover_deliveries").out.startswith("0 deliveries became unknown, 0 expired")


# sandbox and work


def test_the_sandbox_without_its_folder_exits_2(settings: Settings) -> None:
    settings.SANDBOX_DIR = ""
    result = run("sandbox")
    assert (result.code, "SANDBOX_DIR is not set" in result.err) == (2, True)


def test_the_sandbox_listens_on_loopback_only(settings: Settings, tmp_path: Path) -> None:
    settings.SANDBOX_DIR = str(tmp_path)
    result = run("sandbox", "--host", "0.0.0.0", "--port", "0")
    assert (result.code, "The sandbox cannot start" in result.err) == (2, True)


# As typed in a shell: the exit codes are those of the process


def manage(folder: Path, *words: str) -> Result:
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/house.sqlite3"}
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_exit_codes_are_those_of_the_process(tmp_path: Path) -> None:
    assert manage(tmp_path, "migrate", "--verbosity", "0").code == 0
    file = tmp_path / "issue.md"
    file.write_text(FILE.replace("2026-06-01", "2199-06-03"))
    assert manage(tmp_path, *CREATE).code == 0
    assert (
        manage(tmp_path, "load_issue", str(file), "--newsletter", "weekly", "--approve").code == 0
    )
    early = manage(tmp_path, "release", "first-issue")
    assert (early.code, "Traceback" in early.err) == (3, False)
    refused = manage(tmp_path, "send", "first-issue")
    assert (refused.code, "Traceback" in refused.err) == (2, False)
    assert manage(tmp_path, "ledger", "first-issue").code == 1
    assert manage(tmp_path, "ledger").code == 2


def test_a_refused_release_leaves_nothing_behind() -> None:
    issue = cast.issue(cast.newsletter())
    assert run("release", str(issue.pk), "--without-podcast", "--without-blog").code == 2
    issue.refresh_from_db()
    assert not issue.without_podcast and not issue.without_blog


@pytest.mark.parametrize(
    "words",
    [
        ("--github", "foo"),
        ("--path", "../{slug}.md", "--folder", "."),
        ("--path", "x.md", "--folder", "."),
        ("--folder", "manage.py"),
        ("--folder", "no/such/folder"),
    ],
)
def test_a_newsletter_whose_post_could_not_be_published_is_refused(words: tuple[str, ...]) -> None:
    who = ("--name", "Weekly", "--from-email", "ana@example.org", "--postal-address", "1 Main St")
    assert run("create_newsletter", "weekly", *who, *words).code == 2
    assert not Newsletter.objects.exists()


def test_a_file_with_a_header_alone_imports_nobody(tmp_path: Path) -> None:
    cast.newsletter()
    (tmp_path / "readers.csv").write_text("email,name\n")
    done = run("import_subscribers", str(tmp_path / "readers.csv"), "--newsletter", "weekly")
    assert done.code == 2


def test_an_id_is_of_plain_digits() -> None:
    issue = cast.issue(cast.newsletter())
    assert run("ledger", chr(0x0660 + issue.pk)).code == 2


@pytest.mark.parametrize("command", ["work", "safety_net", "recover_deliveries"])
def test_a_database_that_is_not_migrated_is_said_in_one_line(tmp_path: Path, command: str) -> None:
    done = manage(tmp_path, command)
    assert done.code == 1
    assert "up to date (migrate)?" in done.err and "Traceback" not in done.err


def test_a_folder_for_the_posts_is_made_and_stored_as_an_absolute_path(tmp_path: Path) -> None:
    who = ("--name", "Weekly", "--from-email", "ana@example.org", "--postal-address", "1 Main St")
    done = run("create_newsletter", "weekly", *who, "--folder", f"{tmp_path}/x/../blog")
    assert done.code == 0 and Newsletter.objects.get().folder == str(tmp_path / "blog")
    assert (tmp_path / "blog").is_dir()
