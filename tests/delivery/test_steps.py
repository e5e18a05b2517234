"""A whole release in this process, step by step, with real edges: feed, blog, mail and notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from email import message_from_bytes, policy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from delivery import publishing, release, steps
from delivery.models import EmailDelivery, Job, Notification
from delivery.outcome import Done
from delivery.publishers import blob_sha
from delivery.publishers.github import GitHubPublisher
from newsletter.models import Issue, Newsletter, Podcast, Refused, Transition, database_now
from tests import cast
from tests.drain import drain, drain_through_waits, history, hurry, moves
from tests.stand_ins import github as acts
from tests.stand_ins.github import TOKEN, Act, GitHubStandIn
from tests.stand_ins.http import HttpStandIn, Reply, drop, json_reply, reply
from tests.stand_ins.smtp import SmtpStandIn

pytestmark = pytest.mark.django_db

AUDIO = "https://cast.example.org/1.mp3"
EPISODE = {"url": AUDIO, "title": "Episode one", "duration": 1800}
READY = json_reply({"status": "ready", **EPISODE})
PENDING = json_reply({"status": "pending"})
FAILED = json_reply({"status": "failed"})
PATH = "content/posts/2026-06-01-first-issue.md"
PAGE = "http://news.example.org/n/weekly/first-issue/"
ALL_MOVES = ["approved", "awaiting_podcast", "publishing", "published", "sending", "sent"]


@pytest.fixture(autouse=True)
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settings.SMTP_TIMEOUT_SECONDS = 2
        yield server


@pytest.fixture(autouse=True)
def discord(settings: Settings) -> Iterator[HttpStandIn]:
    with HttpStandIn(reply(204)) as server:
        settings.DISCORD_WEBHOOK_URL = server.url("/webhook")
        yield server


@pytest.fixture
def blog(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def gh(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubStandIn]:
    """A blog's repository; a request to it times out after a second."""
    monkeypatch.setattr(publishing, "GitHubPublisher", partial(GitHubPublisher, timeout=1))
    with GitHubStandIn() as stand_in:
        settings.GITHUB_API_URL, settings.GITHUB_TOKEN = stand_in.url, TOKEN
        yield stand_in


def approved(**newsletter: Any) -> Issue:
    weekly = cast.newsletter(**newsletter)
    cast.readers(weekly, 3)
    return cast.approved(weekly)


def started(**newsletter: Any) -> Issue:
    issue = approved(**newsletter)
    release.start(issue, actor="ana", now=True)
    return issue


def in_folder(blog: Path) -> dict[str, str]:
    return {"publisher": "folder", "folder": str(blog)}


def in_repository(gh: GitHubStandIn) -> dict[str, str]:
    return {
        "publisher": "github",
        "github_repository": gh.repository,
        "github_branch": gh.branch,
    }


def reload(issue: Issue) -> Issue:
    return Issue.objects.select_related("newsletter").get(pk=issue.pk)


def state_of(issue: Issue) -> str:
    return reload(issue).state


def events() -> Counter[str]:
    return Counter(row.notice["event"] for row in Notification.objects.filter(channel="log"))


def mail(smtp: SmtpStandIn, number: int = 0) -> str:
    message = message_from_bytes(smtp.copies[number].data, policy=policy.default)
    part = message.get_body(("plain",))
    assert part
    return str(part.get_content())


def everybody(smtp: SmtpStandIn) -> bool:
    names = ("bob", "carla", "davi")
    return smtp.accepted() == Counter(f"{name}@example.org" for name in names)


# --- the whole week


def test_the_whole_week(smtp: SmtpStandIn, discord: HttpStandIn, blog: Path) -> None:
    with HttpStandIn(PENDING, READY) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"), **in_folder(blog))
        assert drain_through_waits() == [
            "await_podcast",
            "notify",
            "await_podcast",
            "publish",
            "await_live",
            "await_live",
            "deliver",
            "deliver",
            "close",
            "report",
            "notify",
        ]
    assert moves(issue) == ALL_MOVES
    assert everybody(smtp)
    assert AUDIO in (blog / PATH).read_text()
    assert AUDIO in mail(smtp) and PAGE in mail(smtp)
    assert [told.json()["embeds"][0]["footer"]["text"] for told in discord.requests] == [
        "started",
        "sent",
    ]


def test_every_body_may_run_twice(smtp: SmtpStandIn, discord: HttpStandIn, blog: Path) -> None:
    with HttpStandIn(READY) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"), **in_folder(blog))
        drain(twice=True)
    assert moves(issue) == ALL_MOVES
    assert everybody(smtp)
    assert [path.name for path in (blog / PATH).parent.iterdir()] == [Path(PATH).name]
    assert len(discord.requests) == len(events()) == 2


def test_a_release_that_is_sent_is_not_sent_again(smtp: SmtpStandIn, blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain()
    assert "nothing to do" in release.start(issue, actor="ana", now=True)
    assert drain() == []
    assert everybody(smtp)


def test_what_is_not_configured_is_passed_through_and_said(smtp: SmtpStandIn) -> None:
    issue = started()
    drain()
    assert moves(issue) == ALL_MOVES
    assert "no podcast is configured" in history(issue)
    assert "no blog is configured" in history(issue)
    assert everybody(smtp)


def test_a_release_that_is_started_twice_is_one_run(smtp: SmtpStandIn) -> None:
    issue = approved()
    release.start(issue, actor="ana", now=True)
    release.start(issue, actor="rita", now=True)
    drain()
    assert history(issue).count("the release starts") == 1
    assert everybody(smtp)


def test_it_is_refused_before_its_hour() -> None:
    weekly = cast.newsletter()
    tomorrow = weekly.today(database_now()) + timedelta(days=1)
    issue = cast.approved(weekly, release_date=tomorrow)
    with pytest.raises(release.TooEarly):
        release.start(issue, actor="ana")
    assert state_of(issue) == "approved"


@pytest.mark.parametrize("state", ["draft", "cancelled"])
def test_what_is_not_approved_is_not_released(state: str) -> None:
    issue = cast.issue(cast.newsletter())
    if state == "cancelled":
        release.cancel(issue, actor="ana")
    with pytest.raises(Refused):
        release.start(issue, actor="ana", now=True)


def test_a_step_of_an_issue_that_is_gone_leaves_quietly() -> None:
    issue = started()
    Job.objects.update(issue=None)
    Notification.objects.all().delete()
    Issue.objects.filter(pk=issue.pk).delete()
    drain()
    assert set(Job.objects.values_list("state", flat=True)) == {"discarded"}


# --- the podcast


@pytest.mark.parametrize("answer", [PENDING, reply(404), reply(500), reply(body="<html>"), drop()])
def test_a_podcast_that_is_not_there_is_waited_for(answer: Reply) -> None:
    with HttpStandIn(answer) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain()
    assert state_of(issue) == "awaiting_podcast"
    assert (Podcast.objects.get().attempts, Podcast.objects.get().state) == (1, "waiting")
    waiting = Job.objects.get(name="await_podcast")
    assert timedelta(minutes=14) < waiting.due_at - database_now() <= timedelta(minutes=15)


def test_a_podcast_that_never_comes_is_gone_without_by_the_count(
    smtp: SmtpStandIn, blog: Path, settings: Settings
) -> None:
    settings.PODCAST_ATTEMPTS, settings.PODCAST_LATE_SECONDS = 3, 0.001
    with HttpStandIn(PENDING) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"), **in_folder(blog))
        drain_through_waits()
        assert len(podcast.requests) == 3
    assert everybody(smtp) and state_of(issue) == "sent"
    assert events()["podcast_missed"] == 1
    without = "goes on without the podcast: the podcast did not come, asked 3 times"
    assert without in history(issue)
    assert "cast.example.org" not in (blog / PATH).read_text() + mail(smtp)


def test_a_podcast_that_never_comes_is_gone_without_by_the_clock() -> None:
    with HttpStandIn(PENDING) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain()
        Podcast.objects.update(waiting_since=database_now() - timedelta(hours=4))
        hurry("await_podcast")
        drain()
    assert state_of(issue) == "sent"
    assert events()["podcast_missed"] == 1


def test_a_pause_does_not_stop_the_clock(smtp: SmtpStandIn) -> None:
    with HttpStandIn(PENDING) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain()
        issue.pause(reason="lunch", actor="ana")
        hurry()
        drain()
        Podcast.objects.update(waiting_since=database_now() - timedelta(hours=5))
        release.resume(issue, actor="ana")
        drain()
    assert state_of(issue) == "sent"


def test_a_podcast_that_failed_is_gone_without_at_once() -> None:
    with HttpStandIn(FAILED) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain()
        assert len(podcast.requests) == 1
    assert state_of(issue) == "sent"
    assert any("the podcast failed" in reason for reason in history(issue))


def test_a_late_podcast_reaches_the_post_and_no_mail(smtp: SmtpStandIn, blog: Path) -> None:
    with HttpStandIn(FAILED, PENDING, READY) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"), **in_folder(blog))
        ran = drain_through_waits()
    assert ran.count("late_podcast") == 2 and ran.count("update_post") == 1
    assert AUDIO in (blog / PATH).read_text()
    assert everybody(smtp) and "cast.example.org" not in mail(smtp)
    assert reload(issue).post_sha == blob_sha((blog / PATH).read_bytes())
    assert history(issue)[-2:] == [
        "the podcast came late: Episode one",
        "the post was updated with the podcast",
    ]


def test_a_late_podcast_leaves_a_post_that_a_person_edited(blog: Path) -> None:
    with HttpStandIn(FAILED, READY) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"), **in_folder(blog))
        drain()
        (blog / PATH).write_text("by hand")
        drain_through_waits()
    assert (blog / PATH).read_text() == "by hand"
    assert "somebody else put it there" in history(issue)[-1]
    assert state_of(issue) == "sent"


def test_an_episode_that_was_used_is_not_used_again() -> None:
    with HttpStandIn(READY) as podcast:
        first = started(podcast_url=podcast.url("/next.json"))
        drain()
        second = cast.approved(first.newsletter, slug="second")
        release.start(second, actor="ana", now=True)
        drain()
    assert (state_of(first), state_of(second)) == ("sent", "awaiting_podcast")
    assert "used already" in Podcast.objects.get(issue=second).last_answer


def test_the_slot_is_filled_once(smtp: SmtpStandIn) -> None:
    other = json_reply({"status": "ready", **EPISODE, "url": "https://cast.example.org/2.mp3"})
    with HttpStandIn(READY, other) as podcast:
        started(podcast_url=podcast.url("/next.json"))
        drain(twice=True)
    assert Podcast.objects.get().url in mail(smtp)
    assert len({mail(smtp, number).count(Podcast.objects.get().url) for number in range(3)}) == 1


def test_an_operator_goes_on_without_the_podcast(smtp: SmtpStandIn) -> None:
    with HttpStandIn(PENDING) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain()
        release.go_without(issue, podcast=True, actor="ana")
        release.start(issue, actor="ana")
        drain()
    assert everybody(smtp)
    assert "goes on without the podcast" in history(issue)


# --- the blog


def test_the_post_stands_in_the_folder(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain()
    issue = reload(issue)
    assert issue.post_path == PATH
    assert issue.post_sha == blob_sha((blog / PATH).read_bytes())
    assert f"published: {PATH}" in history(issue)


HEALING = [
    acts.WELL,
    acts.CONFLICT,
    acts.RACED,
    acts.SHA_MISSING,
    acts.RATE_LIMITED,
    acts.BROKEN,
    acts.UNAVAILABLE,
    acts.DROP,
    acts.HANG,
    acts.DROP_AFTER_COMMIT,
    acts.HANG_AFTER_COMMIT,
    acts.BAD_GATEWAY_AFTER_COMMIT,
    acts.GARBAGE_AFTER_COMMIT,
]


@pytest.mark.parametrize("act", HEALING, ids=str)
def test_whatever_github_answers_there_is_one_commit(
    gh: GitHubStandIn, smtp: SmtpStandIn, act: Act
) -> None:
    gh.script(act)
    issue = started(**in_repository(gh))
    drain_through_waits()
    assert [commit.path for commit in gh.commits] == [PATH]
    assert reload(issue).post_sha == blob_sha(gh.files[PATH])
    assert everybody(smtp)


def test_github_is_not_asked_again_before_the_time_that_it_named(gh: GitHubStandIn) -> None:
    gh.script(acts.RATE_LIMITED)  # Retry-After: 7
    started(**in_repository(gh))
    drain()
    waits = Job.objects.get(name="publish", state="queued").due_at - database_now()
    assert waits > timedelta(seconds=6)


@pytest.mark.parametrize(
    "act", [acts.UNAUTHORIZED, acts.FORBIDDEN, acts.NO_REPOSITORY, acts.NO_BRANCH], ids=str
)
def test_a_refusal_blocks_it_and_a_retry_goes_on(
    gh: GitHubStandIn, smtp: SmtpStandIn, act: Act
) -> None:
    gh.script(act)
    issue = started(**in_repository(gh))
    drain()
    assert state_of(issue) == "publishing" and reload(issue).blocked_reason
    assert (events()["blocked"], smtp.copies) == (1, [])
    release.start(issue, actor="ana")
    drain()
    assert everybody(smtp)
    assert (len(gh.commits), reload(issue).blocked_reason) == (1, "")


def test_a_422_that_stays_blocks_it(gh: GitHubStandIn) -> None:
    gh.script(*[acts.REFUSED] * 9)
    issue = started(**in_repository(gh))
    drain()
    assert "rule violations" in reload(issue).blocked_reason


def test_a_blocked_issue_is_told_once_and_left_alone(gh: GitHubStandIn) -> None:
    gh.script(acts.UNAUTHORIZED)
    issue = started(**in_repository(gh))
    drain()
    assert release.sweep(reload(issue).newsletter, database_now()) == []
    assert drain() == []
    assert events()["blocked"] == 1


def test_a_blog_that_is_down_for_two_hours_blocks_it(gh: GitHubStandIn) -> None:
    gh.script(acts.BROKEN, acts.BROKEN)
    issue = started(**in_repository(gh))
    drain()
    assert not reload(issue).blocked_reason
    Issue.objects.update(publishing_since=database_now() - timedelta(hours=2))
    hurry("publish")
    drain()
    assert "given up after 2 tries" in reload(issue).blocked_reason


def test_a_retry_after_a_block_has_the_whole_time_again(gh: GitHubStandIn) -> None:
    gh.script(acts.UNAUTHORIZED, acts.BROKEN)
    issue = started(**in_repository(gh))
    drain()
    Issue.objects.update(publishing_since=database_now() - timedelta(hours=9))
    release.start(issue, actor="ana")
    drain()
    assert not reload(issue).blocked_reason


def test_an_operator_goes_on_without_the_blog(gh: GitHubStandIn, smtp: SmtpStandIn) -> None:
    gh.script(acts.UNAUTHORIZED)
    issue = started(**in_repository(gh))
    drain()
    release.go_without(issue, blog=True, actor="ana")
    release.start(issue, actor="ana")
    drain()
    assert everybody(smtp) and gh.commits == []
    assert "an operator goes on without the blog" in history(issue)


def test_a_path_that_a_person_wrote_blocks_it(gh: GitHubStandIn) -> None:
    gh.edit(PATH, b"by hand")
    issue = started(**in_repository(gh))
    drain()
    assert blob_sha(b"by hand") in reload(issue).blocked_reason
    assert (gh.files[PATH], gh.commits) == (b"by hand", [])


def test_another_path_puts_a_blocked_post_right(gh: GitHubStandIn) -> None:
    gh.edit(PATH, b"by hand")
    issue = started(**in_repository(gh))
    drain()
    Newsletter.objects.update(post_path="blog/{slug}.md")
    release.start(reload(issue), actor="ana")
    drain()
    assert state_of(issue) == "sent" and reload(issue).post_path == "blog/first-issue.md"
    assert gh.files[PATH] == b"by hand" and len(gh.commits) == 1


@pytest.mark.parametrize("kind", ["folder", "github"])
def test_a_post_that_a_person_edited_blocks_it_with_both_shas(
    gh: GitHubStandIn, blog: Path, kind: str
) -> None:
    issue = started(**(in_folder(blog) if kind == "folder" else in_repository(gh)))
    drain(but="await_live")
    ours = reload(issue).post_sha
    gh.edit(PATH, b"by hand")
    (blog / PATH).parent.mkdir(parents=True, exist_ok=True)
    (blog / PATH).write_bytes(b"by hand")
    again(issue)
    reason = reload(issue).blocked_reason
    assert ours in reason and blob_sha(b"by hand") in reason
    assert (gh.files[PATH], (blog / PATH).read_bytes()) == (b"by hand", b"by hand")


def again(issue: Issue, title: str = "Better") -> None:
    """Ana edits it, approves it, and releases it anew."""
    issue.refresh_from_db()
    issue.edit(actor="ana", title=title)
    issue.approve(actor="ana")
    release.start(issue, actor="ana", now=True)
    drain()


def test_our_own_post_is_overwritten_after_an_edit(gh: GitHubStandIn, smtp: SmtpStandIn) -> None:
    issue = started(**in_repository(gh))
    drain(but="await_live")
    again(issue)
    assert len(gh.commits) == 2 and b"Better" in gh.files[PATH]
    assert everybody(smtp)


def test_a_write_of_ours_that_was_never_answered_is_ours(
    gh: GitHubStandIn, smtp: SmtpStandIn
) -> None:
    gh.script(acts.DROP_AFTER_COMMIT)
    issue = started(**in_repository(gh))
    drain()
    again(issue)
    drain_through_waits()
    assert b"Better" in gh.files[PATH] and everybody(smtp)


def test_a_folder_that_is_not_there_blocks_it(tmp_path: Path) -> None:
    issue = started(**in_folder(tmp_path / "nowhere"))
    drain()
    assert "does not exist" in reload(issue).blocked_reason


def test_a_pattern_that_cannot_be_filled_blocks_it(blog: Path) -> None:
    issue = started(post_path="{nonsense}.md", **in_folder(blog))
    drain()
    assert "nonsense" in reload(issue).blocked_reason


# --- live


def test_the_mail_waits_until_the_post_is_live_and_links_to_it(
    smtp: SmtpStandIn, blog: Path
) -> None:
    with HttpStandIn(reply(404), drop(), reply(200)) as site:
        url = site.url("/first-issue/")
        issue = started(blog_url=site.url("/{slug}/"), **in_folder(blog))
        drain()
        assert (state_of(issue), smtp.copies) == ("published", [])
        drain_through_waits()
    assert url in mail(smtp) and PAGE not in mail(smtp)
    assert "the post is live" in history(issue)


def test_a_post_that_is_not_live_in_time_is_not_waited_for(smtp: SmtpStandIn, blog: Path) -> None:
    with HttpStandIn(reply(404)) as site:
        issue = started(blog_url=site.url("/{slug}/"), **in_folder(blog))
        drain()
        Issue.objects.update(published_at=database_now() - timedelta(minutes=30))
        hurry()
        drain()
    assert everybody(smtp) and PAGE in mail(smtp)
    assert any("not live in time" in reason for reason in history(issue))


def test_without_the_blog_the_mail_links_to_our_own_page(smtp: SmtpStandIn) -> None:
    started(blog_url="https://blog.example.org/{slug}/")
    drain()
    assert PAGE in mail(smtp) and "blog.example.org" not in mail(smtp)


# --- the audience


def test_an_empty_audience_blocks_it(smtp: SmtpStandIn) -> None:
    issue = cast.approved(cast.newsletter())
    release.start(issue, actor="ana", now=True)
    drain()
    issue = reload(issue)
    assert (issue.state, issue.audience) == ("published", None)
    assert "audience is empty" in issue.blocked_reason


def test_once_somebody_reads_it_a_retry_goes_on(smtp: SmtpStandIn) -> None:
    issue = cast.approved(cast.newsletter())
    release.start(issue, actor="ana", now=True)
    drain()
    cast.readers(issue.newsletter, 3)
    release.start(issue, actor="ana")
    drain()
    assert everybody(smtp) and state_of(issue) == "sent"


# --- edits in mid-run

# Each with the job before which the run stands there.
STANDS = [
    ("awaiting_podcast", "await_podcast"),
    ("publishing", "publish"),
    ("published", "await_live"),
    ("sending", "deliver"),
]


@pytest.mark.parametrize(("state", "job"), STANDS[:3])
def test_an_edit_in_mid_run_stops_it_and_the_new_words_go_out(
    smtp: SmtpStandIn, blog: Path, state: str, job: str
) -> None:
    issue = started(**in_folder(blog))
    drain(but=job)
    assert state_of(issue) == state
    issue.refresh_from_db()
    issue.edit(actor="ana", title="Better")
    assert "publish" not in drain() and state_of(issue) == "draft"
    again(issue, title="Best")
    assert everybody(smtp)
    assert message_from_bytes(smtp.copies[0].data)["Subject"] == "Best"


def test_after_the_freeze_an_edit_is_refused(smtp: SmtpStandIn) -> None:
    issue = started()
    drain(but="deliver")
    with pytest.raises(Refused):
        issue.edit(actor="ana", title="Better")
    drain()
    assert message_from_bytes(smtp.copies[0].data)["Subject"] == "The first issue"


def test_an_edit_while_the_post_is_written_leaves_the_post_known_as_ours(
    smtp: SmtpStandIn, blog: Path
) -> None:
    issue = started(**in_folder(blog))
    drain(but="publish")
    outcome = steps.publish(issue.pk)
    issue.refresh_from_db()
    issue.edit(actor="ana", title="Better")
    assert isinstance(outcome, Done)
    outcome.advance()
    assert state_of(issue) == "draft" and reload(issue).post_sha
    again(issue, title="Best")
    assert everybody(smtp) and "Best" in (blog / PATH).read_text()


def test_a_write_that_was_never_answered_is_still_known_as_ours(
    smtp: SmtpStandIn, blog: Path
) -> None:
    issue = started(**in_folder(blog))
    drain(but="publish")
    steps.publish(issue.pk)  # written; the worker dies before it can say so
    again(issue, title="Better")
    assert everybody(smtp) and "Better" in (blog / PATH).read_text()


def test_an_edit_takes_back_what_an_operator_went_without() -> None:
    issue = approved()
    release.go_without(issue, podcast=True, blog=True, actor="ana")
    issue.edit(actor="ana", title="Better")
    assert not issue.without_podcast and not issue.without_blog


def test_an_edit_begins_the_wait_for_the_podcast_anew() -> None:
    with HttpStandIn(PENDING) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain()
        a_week_ago = database_now() - timedelta(days=7)
        Podcast.objects.update(waiting_since=a_week_ago, attempts=15)
        again(issue)
    assert state_of(issue) == "awaiting_podcast"
    assert Podcast.objects.get().attempts == 1


def test_an_edit_keeps_the_podcast_that_was_found(smtp: SmtpStandIn) -> None:
    with HttpStandIn(READY, PENDING) as podcast:
        issue = started(podcast_url=podcast.url("/next.json"))
        drain(but="publish")
        again(issue)
        assert len(podcast.requests) == 1
    assert everybody(smtp) and AUDIO in mail(smtp)


# --- cancel


@pytest.mark.parametrize(("state", "job"), [("approved", ""), *STANDS])
def test_it_can_be_cancelled_wherever_it_stands(
    smtp: SmtpStandIn, blog: Path, state: str, job: str
) -> None:
    issue = started(**in_folder(blog)) if job else approved(**in_folder(blog))
    drain(but=job)
    assert state_of(issue) == state
    release.cancel(reload(issue), actor="ana")
    drain()
    assert (state_of(issue), smtp.copies) == ("cancelled", [])
    assert set(EmailDelivery.objects.values_list("status", flat=True)) <= {"skipped"}
    assert events()["cancelled"] == 1
    with pytest.raises(Refused):
        release.start(issue, actor="ana", now=True)


def test_a_sent_issue_cannot_be_cancelled(smtp: SmtpStandIn) -> None:
    issue = started()
    drain()
    with pytest.raises(Refused):
        release.cancel(issue, actor="ana")
    assert state_of(issue) == "sent"


def test_a_cancelled_issue_is_cancelled_once() -> None:
    issue = approved()
    release.cancel(issue, actor="ana")
    assert "before" in release.cancel(issue, actor="rita")
    assert moves(issue).count("cancelled") == 1


def test_a_post_stands_after_a_cancel_and_is_named(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain(but="deliver")
    said = release.cancel(reload(issue), actor="ana")
    drain()
    assert (blog / PATH).exists()
    assert PATH in said and "can be removed" in said


def test_a_cancelled_issues_post_can_be_removed(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain(but="deliver")
    release.cancel(reload(issue), actor="ana")
    release.remove_post(reload(issue), actor="ana")
    drain()
    assert not (blog / PATH).exists()
    assert reload(issue).post_sha == ""
    assert "the post was removed" in history(issue)


def test_a_removal_may_run_twice(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain(but="deliver")
    release.cancel(reload(issue), actor="ana")
    release.remove_post(reload(issue), actor="ana")
    drain(twice=True)
    assert not (blog / PATH).exists()
    assert "the post was gone already" in history(issue)


def test_a_post_in_a_repository_is_removed_with_one_commit(gh: GitHubStandIn) -> None:
    issue = started(**in_repository(gh))
    drain(but="deliver")
    release.cancel(reload(issue), actor="ana")
    gh.script(acts.BROKEN, verb="DELETE")
    release.remove_post(reload(issue), actor="ana")
    drain_through_waits()
    assert (gh.files, len(gh.commits)) == ({}, 2)


def test_a_post_that_a_person_edited_is_not_removed(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain(but="deliver")
    release.cancel(reload(issue), actor="ana")
    (blog / PATH).write_text("by hand")
    release.remove_post(reload(issue), actor="ana")
    drain()
    assert (blog / PATH).read_text() == "by hand"
    assert "somebody else put it there" in history(issue)[-1]


def test_only_a_cancelled_issues_post_is_removed(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain()
    with pytest.raises(Refused):
        release.remove_post(reload(issue), actor="ana")


def test_a_post_that_was_being_written_at_the_cancel_is_known_as_ours(blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain(but="publish")
    outcome = steps.publish(issue.pk)
    release.cancel(reload(issue), actor="ana")
    assert isinstance(outcome, Done)
    outcome.advance()
    assert state_of(issue) == "cancelled"
    release.remove_post(reload(issue), actor="ana")
    drain()
    assert not (blog / PATH).exists()


# --- pause


@pytest.mark.parametrize(("state", "job"), STANDS)
def test_a_pause_holds_it_wherever_it_stands_and_a_resume_goes_on(
    smtp: SmtpStandIn, blog: Path, state: str, job: str
) -> None:
    issue = started(**in_folder(blog))
    drain(but=job)
    assert issue.pause(reason="lunch", actor="ana")
    drain()
    assert (state_of(issue), smtp.copies) == (state, [])
    assert release.sweep(reload(issue).newsletter, database_now()) == []
    release.resume(reload(issue), actor="ana")
    drain()
    assert everybody(smtp) and moves(issue) == ALL_MOVES


def test_an_approved_issue_that_is_paused_is_not_released_until_it_is_resumed() -> None:
    issue = approved()
    issue.pause(reason="not yet", actor="ana")
    with pytest.raises(Refused, match="not yet"):
        release.start(issue, actor="ana", now=True)
    release.resume(issue, actor="ana")
    release.start(issue, actor="ana", now=True)
    drain()
    assert state_of(issue) == "sent"


def test_a_pause_and_a_resume_stand_in_the_history() -> None:
    issue = started()
    issue.pause(reason="lunch", actor="ana")
    assert not issue.pause(reason="again", actor="ana")
    release.resume(issue, actor="rita")
    assert not release.resume(issue, actor="rita")
    assert history(issue)[-2:] == ["paused: lunch", "resumed"]
    assert Transition.objects.latest("id").actor == "rita"


def test_a_pause_while_a_step_runs_holds_the_next(smtp: SmtpStandIn, blog: Path) -> None:
    issue = started(**in_folder(blog))
    drain(but="publish")
    outcome = steps.publish(issue.pk)
    issue.refresh_from_db()
    issue.pause(reason="lunch", actor="ana")
    assert isinstance(outcome, Done)
    outcome.advance()
    drain()
    assert (state_of(issue), smtp.copies) == ("published", [])


# --- a step that gives up


def test_a_step_that_dies_blocks_the_issue_and_is_told(smtp: SmtpStandIn) -> None:
    issue = started()
    job = Job.objects.get(name="await_podcast")
    steps.step_gave_up(job, "its worker died 3 times")
    assert reload(issue).blocked_reason == "its worker died 3 times"
    drain()
    assert (events()["blocked"], state_of(issue)) == (1, "awaiting_podcast")
    release.start(issue, actor="ana")
    drain()
    assert everybody(smtp)


def test_the_send_alone_needs_what_is_published() -> None:
    issue = approved()
    with pytest.raises(Refused, match="published"):
        release.start_send(issue, actor="ana")


def test_the_send_alone_goes_on_from_published(smtp: SmtpStandIn) -> None:
    issue = started()
    drain(but="await_live")
    Job.objects.all().delete()
    release.start_send(issue, actor="ana")
    drain()
    assert everybody(smtp) and state_of(issue) == "sent"


def test_the_date_of_the_issue_is_in_its_path(blog: Path) -> None:
    weekly = cast.newsletter(post_path="{year}/{month}/{slug}.md", **in_folder(blog))
    cast.readers(weekly, 1)
    issue = cast.approved(weekly, release_date=date(2025, 12, 29))
    release.start(issue, actor="ana", now=True)
    drain()
    assert (blog / "2025/12/first-issue.md").exists()
