"""Circuit breakers: what opens them, what they let through, what closes them, and what waits meanwhile."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

import pytest
from django.db import OperationalError
from pytest_django import DjangoAssertNumQueries, Settings

from delivery import breakers, publishing, queue, release
from delivery.errors import BreakerOpen, EdgeError
from delivery.models import CircuitBreaker, Job, Lease, Notification
from delivery.publishers.github import GitHubPublisher
from newsletter.models import Issue, Podcast, database_now
from tests import cast
from tests.drain import drain, frozen, hurry, moves
from tests.stand_ins import github as acts
from tests.stand_ins.github import TOKEN, Act, GitHubStandIn
from tests.stand_ins.http import HttpStandIn, Reply, drop, json_reply, reply

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def gh(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubStandIn]:
    """The blog's repository; a request to it times out after a second."""
    monkeypatch.setattr(publishing, "GitHubPublisher", partial(GitHubPublisher, timeout=1))
    with GitHubStandIn() as stand_in:
        settings.GITHUB_API_URL, settings.GITHUB_TOKEN = stand_in.url, TOKEN
        yield stand_in


# The states that a breaker can be found in.


def no_row() -> None:
    """Nobody has ever failed."""


def closed(failures: int = 0) -> None:
    CircuitBreaker.objects.create(name="github", failures=failures, changed_at=database_now())


def opened(since: timedelta = SECOND, left: timedelta = HOUR, times: int = 1) -> None:
    now = database_now()
    CircuitBreaker.objects.create(
        name="github",
        state="open",
        failures=5,
        opened=times,
        reason="it is down",
        until=now + left,
        changed_at=now - since,
    )


def due() -> None:
    opened(since=HOUR, left=-SECOND)


def half_open() -> None:
    due()
    assert breakers.enter("github").probing


def half_open_and_its_prober_killed() -> None:
    half_open()
    Lease.objects.update(expires_at=database_now() - SECOND)


# What can become of a use.


def answers() -> None:
    pass


def fails() -> None:
    raise EdgeError("it is down")


def refuses() -> None:
    raise EdgeError("it refuses us", permanent=True)


def fault() -> None:
    raise ZeroDivisionError


def database_away() -> None:
    raise OperationalError


def use(event: Callable[[], None]) -> bool:
    """One guarded use; whether it was let through."""
    passed = False
    try:
        with breakers.guard("github"):
            passed = True
            event()
    except (EdgeError, ZeroDivisionError, OperationalError):
        pass
    return passed


def found() -> tuple[str, int, int]:
    """State, failures in a row, openings in a row."""
    row = CircuitBreaker.objects.filter(name="github").first()
    return (str(row.state), row.failures, row.opened) if row else ("none", 0, 0)


def until() -> datetime:
    at = CircuitBreaker.objects.get().until
    assert at
    return at


def seconds_open() -> float:
    return (until() - CircuitBreaker.objects.get().changed_at).total_seconds()


PASSED, HELD = True, False
NONE, CLOSED = ("none", 0, 0), ("closed", 0, 0)
OPEN, AGAIN = ("open", 5, 1), ("open", 6, 2)
HALF_OPEN = ("half-open", 5, 1)
TABLE: list[tuple[Callable[[], None], Callable[[], None], bool, tuple[str, int, int]]] = [
    (no_row, answers, PASSED, NONE),
    (no_row, refuses, PASSED, NONE),
    (no_row, fails, PASSED, ("closed", 1, 0)),
    (no_row, fault, PASSED, NONE),
    (closed, answers, PASSED, CLOSED),
    (closed, refuses, PASSED, CLOSED),
    (closed, fails, PASSED, ("closed", 1, 0)),
    (closed, fault, PASSED, CLOSED),
    (partial(closed, 3), fails, PASSED, ("closed", 4, 0)),
    (partial(closed, 4), answers, PASSED, CLOSED),
    (partial(closed, 4), refuses, PASSED, CLOSED),
    (partial(closed, 4), fails, PASSED, OPEN),
    (partial(closed, 4), fault, PASSED, ("closed", 4, 0)),
    (partial(closed, 4), database_away, PASSED, ("closed", 4, 0)),
    (opened, answers, HELD, OPEN),
    (opened, fails, HELD, OPEN),
    (due, answers, PASSED, CLOSED),
    (due, refuses, PASSED, CLOSED),
    (due, fails, PASSED, AGAIN),
    (due, fault, PASSED, OPEN),
    (due, database_away, PASSED, OPEN),
    (half_open, answers, HELD, HALF_OPEN),
    (half_open, fails, HELD, HALF_OPEN),
    (half_open_and_its_prober_killed, answers, PASSED, CLOSED),
    (half_open_and_its_prober_killed, refuses, PASSED, CLOSED),
    (half_open_and_its_prober_killed, fails, PASSED, AGAIN),
    (half_open_and_its_prober_killed, fault, PASSED, OPEN),
]


def in_words(value: object) -> str:
    if isinstance(value, partial):
        return f"{value.func.__name__}{value.args}"
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("state", "event", "passed", "after"), TABLE, ids=in_words)
def test_the_breaker_table(
    state: Callable[[], None],
    event: Callable[[], None],
    passed: bool,
    after: tuple[str, int, int],
) -> None:
    state()
    assert (use(event), found()) == (passed, after)


def test_five_failures_in_a_row_open_it() -> None:
    assert [(use(fails), found()[0]) for _ in range(7)] == [
        *[(PASSED, "closed")] * 4,
        (PASSED, "open"),
        *[(HELD, "open")] * 2,
    ]


def test_a_success_between_begins_the_count_anew() -> None:
    assert all(use(event) for event in [*[fails] * 4, answers, *[fails] * 4])
    assert found() == ("closed", 4, 0)


def test_each_service_has_a_breaker_of_its_own() -> None:
    opened()
    with breakers.guard("discord"):
        pass
    assert not CircuitBreaker.objects.filter(name="discord").exists()


def test_a_use_that_goes_well_writes_nothing(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(2) as asked:  # one look before, one after
        use(answers)
    assert all(query["sql"].startswith("SELECT") for query in asked.captured_queries)


@pytest.mark.parametrize(
    ("times", "seconds"), [(1, 60), (2, 120), (3, 240), (4, 480), (5, 600), (50, 600)]
)
def test_each_probe_that_fails_doubles_the_wait_up_to_ten_minutes(
    times: int, seconds: float
) -> None:
    opened(since=HOUR, left=-SECOND, times=times)
    use(fails)
    assert seconds_open() == pytest.approx(seconds, abs=0.01)


def test_the_first_wait_is_the_settings(settings: Settings) -> None:
    settings.BREAKER_SECONDS = 7
    closed(4)
    use(fails)
    assert seconds_open() == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize(("named", "seconds"), [(5, 30), (45, 45), (3600, 3600)])
def test_it_stays_open_for_at_least_as_long_as_the_other_side_named(
    named: float, seconds: float
) -> None:
    closed(4)
    breakers.enter("github").failed("busy", retry_after=named)
    assert seconds_open() == pytest.approx(seconds, abs=0.01)


def test_after_it_closed_the_next_opening_is_short_again() -> None:
    opened(since=HOUR, left=-SECOND, times=5)
    use(answers)
    for _ in range(5):
        use(fails)
    assert seconds_open() == pytest.approx(30, abs=0.01)


def test_who_is_held_learns_why_and_until_when() -> None:
    opened()
    with pytest.raises(BreakerOpen) as held, breakers.guard("github"):
        pass
    assert (held.value.name, held.value.until, held.value.reason) == (
        "github",
        until(),
        "it is down",
    )
    assert held.value.message.startswith("github does not answer (it is down): asked again after ")
    assert not held.value.permanent


def test_who_finds_a_probe_on_its_way_looks_again_in_a_few_seconds() -> None:
    half_open()
    with pytest.raises(BreakerOpen) as held:
        breakers.enter("github")
    assert timedelta() < held.value.until - database_now() <= timedelta(seconds=3)


def test_a_probe_that_said_nothing_is_free_at_once() -> None:
    due()
    assert use(fault) and use(answers)
    assert found() == CLOSED


def test_the_time_out_of_a_job_frees_the_probe_too() -> None:
    """django-q2's is a SystemExit."""
    due()
    with pytest.raises(SystemExit), breakers.guard("github"):
        raise SystemExit
    assert (found(), use(answers)) == (OPEN, PASSED)


def test_another_services_open_breaker_is_no_failure_of_this_one() -> None:
    opened()
    for _ in range(9):
        with pytest.raises(BreakerOpen), breakers.guard("discord"):
            breakers.enter("github")
    assert not CircuitBreaker.objects.filter(name="discord").exists()


def test_a_clock_that_was_put_back_does_not_keep_it_open() -> None:
    opened(since=-HOUR, left=HOUR + 30 * SECOND)
    assert use(fault)
    assert use(answers)


def test_a_service_with_a_very_long_name_has_one_too() -> None:
    name = "podcast:" + "cast." * 40
    for _ in range(5):
        with pytest.raises(EdgeError), breakers.guard(name):
            fails()
    CircuitBreaker.objects.update(until=database_now() - SECOND)
    assert breakers.enter(name).probing


# A long use: a sender's turn.


def test_a_long_use_closes_it_at_the_first_success() -> None:
    due()
    breaker = breakers.enter("github")
    assert breaker.probing
    breaker.succeeded()
    assert (found(), breaker.probing) == (CLOSED, False)


def test_success_after_success_costs_nothing(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    breaker = breakers.enter("github")
    breaker.succeeded()
    with django_assert_num_queries(0):
        for _ in range(1000):
            breaker.succeeded()


def test_its_own_failure_is_forgotten_by_its_next_success() -> None:
    breaker = breakers.enter("github")
    breaker.succeeded()
    breaker.failed("once")
    breaker.succeeded()
    assert found() == CLOSED


def test_what_is_said_late_neither_closes_nor_prolongs_it() -> None:
    """Uses that were let through before it opened."""
    late = [breakers.enter("github") for _ in range(2)]
    opened()
    was = until()
    late[0].succeeded()
    late[1].failed("late")
    assert (found(), until()) == (OPEN, was)


def test_leaving_without_a_word_frees_the_probe() -> None:
    due()
    breaker = breakers.enter("github")
    breaker.leave()
    breaker.leave()
    assert breakers.enter("github").probing


def test_leaving_after_a_word_changes_nothing() -> None:
    due()
    breaker = breakers.enter("github")
    breaker.failed("still down")
    breaker.leave()
    assert found() == AGAIN and until() > database_now()


def test_a_probe_that_took_too_long_does_not_end_the_next_one() -> None:
    half_open_and_its_prober_killed()
    Lease.objects.update(expires_at=database_now() - SECOND)
    slow = breakers.enter("github")
    Lease.objects.update(expires_at=database_now() - SECOND)
    assert breakers.enter("github").probing
    slow.failed("too late")
    slow.leave()
    assert found() == HALF_OPEN
    assert not use(answers), "the next one's lease was freed"


def test_a_probe_that_took_too_long_still_proves_that_it_answers() -> None:
    due()
    slow = breakers.enter("github")
    Lease.objects.update(expires_at=database_now() - SECOND)
    assert breakers.enter("github").probing
    slow.succeeded()
    assert found() == CLOSED


# What is told.


@pytest.fixture
def all_channels(settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = settings.SLACK_WEBHOOK_URL = "http://127.0.0.1:1/"
    settings.NOTIFY_EMAIL = ("rita@example.org", "ugo@example.org")


def told(event: str) -> list[str]:
    rows = Notification.objects.filter(key__startswith=f"{event}:").order_by("id")
    return [row.channel for row in rows]


def test_its_opening_and_its_close_are_told_once() -> None:
    for _ in range(7):
        use(fails)
    for _ in range(3):
        CircuitBreaker.objects.update(until=database_now() - SECOND)
        use(fails)
    assert (told("breaker_opened"), told("breaker_closed")) == (["log"], [])
    CircuitBreaker.objects.update(until=database_now() - SECOND)
    use(answers)
    use(answers)
    assert (told("breaker_opened"), told("breaker_closed")) == (["log"], ["log"])


def test_its_next_opening_is_told_again() -> None:
    for _ in range(2):
        for _ in range(5):
            use(fails)
        CircuitBreaker.objects.update(until=database_now() - SECOND)
        use(answers)
    assert len(told("breaker_opened")) == len(told("breaker_closed")) == 2


def test_the_notice_says_what_why_and_until_when() -> None:
    closed(4)
    use(fails)
    notice = Notification.objects.get().notice
    assert (notice["level"], notice["title"]) == ("warning", "github does not answer")
    assert notice["lines"][0] == "it is down"
    assert f"{until():%H:%M:%S} UTC" in notice["lines"][1]


@pytest.mark.usefixtures("all_channels")
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("github", ["log", "discord", "slack", "email:0", "email:1"]),
        ("discord", ["log", "slack", "email:0", "email:1"]),
        ("slack", ["log", "discord", "email:0", "email:1"]),
        ("smtp", ["log", "discord", "slack"]),
    ],
)
def test_a_channel_is_not_told_of_its_own_breaker(name: str, channels: list[str]) -> None:
    for _ in range(5):
        breakers.enter(name).failed("down")
    CircuitBreaker.objects.update(until=database_now() - SECOND)
    breakers.enter(name).succeeded()
    assert told("breaker_opened") == told("breaker_closed") == channels


def test_the_log_names_the_breaker_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="delivery.breakers")
    closed(4)
    breakers.enter("github").failed("421 go away, bob@example.org")
    CircuitBreaker.objects.update(until=database_now() - SECOND)
    use(answers)
    assert "breaker.opened" in caplog.text and "breaker.closed" in caplog.text
    assert "bob" not in caplog.text


def test_no_address_is_kept_in_the_reason() -> None:
    closed(4)
    breakers.enter("github").failed("421 go away, bob@example.org")
    assert CircuitBreaker.objects.get().reason == "421 go away, <address>"


# Work that waits.


def publishing_to(gh: GitHubStandIn) -> Issue:
    """An issue whose post is to be written next."""
    weekly = cast.newsletter(
        publisher="github", github_repository=gh.repository, github_branch=gh.branch
    )
    issue = cast.approved(weekly)
    cast.readers(weekly, 1)
    release.start(issue, actor="ana", now=True)
    drain(but="publish")
    return issue


def the_job(name: str) -> Job:
    return Job.objects.filter(name=name).latest("id")


def test_work_waits_with_its_attempts_untouched(gh: GitHubStandIn) -> None:
    publishing_to(gh)
    opened()
    for _ in range(20):
        hurry("publish")
        queue.run(the_job("publish").pk)
    row = the_job("publish")
    assert (row.state, row.failures) == ("queued", 0)
    assert abs(row.due_at - until()) < SECOND
    assert "github does not answer (it is down)" in row.note
    assert gh.requests == []


def test_what_waited_goes_on_once_it_answers(gh: GitHubStandIn) -> None:
    issue = publishing_to(gh)
    opened()
    queue.run(the_job("publish").pk)
    CircuitBreaker.objects.update(until=database_now() - SECOND)
    hurry("publish")
    queue.run(the_job("publish").pk)
    assert (the_job("publish").state, found()) == ("done", CLOSED)
    assert moves(issue)[-1] == "published" and len(gh.commits) == 1


def test_an_open_breaker_holds_work_no_longer_than_its_wall_clock_end(
    gh: GitHubStandIn, settings: Settings
) -> None:
    issue = publishing_to(gh)
    opened(left=10 * HOUR)
    queue.run(the_job("publish").pk)
    assert the_job("publish").due_at - database_now() <= 2 * HOUR
    Issue.objects.filter(pk=issue.pk).update(publishing_since=database_now() - 3 * HOUR)
    hurry("publish")
    queue.run(the_job("publish").pk)
    issue.refresh_from_db()
    assert "github does not answer" in issue.blocked_reason


def test_a_turn_that_is_taken_is_no_failure_of_github(gh: GitHubStandIn) -> None:
    issue = publishing_to(gh)
    assert Lease.acquire(f"publisher:github:{gh.repository}")
    with pytest.raises(EdgeError):
        publishing.publish(issue)
    assert found() == NONE


def test_while_it_is_open_the_list_of_our_tries_does_not_grow(gh: GitHubStandIn) -> None:
    issue = publishing_to(gh)
    opened()
    with pytest.raises(BreakerOpen):
        publishing.publish(issue)
    issue.refresh_from_db()
    assert issue.post_tried == []


def test_the_removal_of_a_post_is_held_too(gh: GitHubStandIn) -> None:
    opened()
    with pytest.raises(BreakerOpen):
        publishing.remove(publishing_to(gh))
    assert gh.requests == []


def test_a_folder_has_no_breaker(tmp_path: str) -> None:
    opened()
    weekly = cast.newsletter(publisher="folder", folder=str(tmp_path))
    assert publishing.publish(cast.approved(weekly)).changed


OURS = [acts.UNAUTHORIZED, acts.FORBIDDEN, acts.NO_REPOSITORY, acts.REFUSED, acts.PROTECTED]
THEIRS = [
    *(acts.RATE_LIMITED, acts.EXHAUSTED, acts.TOO_MANY, acts.BROKEN, acts.UNAVAILABLE),
    *(acts.DROP, acts.HANG),
]


@pytest.mark.parametrize(
    ("act", "failures"), [*((act, 0) for act in OURS), *((act, 1) for act in THEIRS)], ids=str
)
def test_what_github_refuses_is_ours_and_what_it_fails_is_its_own(
    gh: GitHubStandIn, act: Act, failures: int
) -> None:
    issue = publishing_to(gh)
    gh.script(act, act)
    with pytest.raises(EdgeError) as error:
        publishing.publish(issue)
    assert (found()[1], error.value.permanent) == (failures, not failures)


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        *((reply(status), 0) for status in (200, 204, 401, 403, 404, 410, 422)),
        *((reply(status), 1) for status in (429, 500, 502, 503)),
        (drop(), 1),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
def test_a_blog_that_is_busy_or_broken_has_failed(answer: Reply, failures: int) -> None:
    with HttpStandIn(answer) as blog:
        try:
            publishing.is_live(blog.url("/first-issue/"))
        except EdgeError:
            assert failures
    rows = CircuitBreaker.objects.values_list("name", "failures")
    assert list(rows) == ([("blog:127.0.0.1", 1)] if failures else [])


def asking(podcast: HttpStandIn) -> Issue:
    """An issue that waits for its podcast, which was asked once."""
    issue = cast.approved(cast.newsletter(podcast_url=podcast.url("/episode.json")))
    release.start(issue, actor="ana", now=True)
    drain()
    return issue


def shut(name: str = "podcast:127.0.0.1") -> None:
    opened()
    CircuitBreaker.objects.update(name=name)


@pytest.fixture
def podcast() -> Iterator[HttpStandIn]:
    with HttpStandIn(json_reply({"status": "pending"})) as server:
        yield server


def test_an_open_breaker_is_no_question_for_the_podcast(podcast: HttpStandIn) -> None:
    issue = asking(podcast)
    shut()
    for _ in range(20):
        hurry("await_podcast")
        drain()
    assert Podcast.objects.get(issue=issue).attempts == 1
    assert len(podcast.requests) == 1
    row = the_job("await_podcast")
    assert (row.state, row.failures) == ("queued", 0)
    assert "does not answer" in row.note
    assert abs(row.due_at - until()) < SECOND


def test_the_wait_for_the_podcast_ends_by_its_clock_all_the_same(podcast: HttpStandIn) -> None:
    issue = asking(podcast)
    shut()
    CircuitBreaker.objects.update(until=database_now() + 10 * HOUR)
    Podcast.objects.update(waiting_since=database_now() - 4 * HOUR + 20 * SECOND)
    hurry("await_podcast")
    drain()
    assert the_job("await_podcast").due_at - database_now() <= 20 * SECOND
    Podcast.objects.update(waiting_since=database_now() - 4 * HOUR)
    hurry("await_podcast")
    drain(but="late_podcast")
    assert Podcast.objects.get(issue=issue).state == "missed"
    assert "publishing" in moves(issue)
    assert Counter(told("podcast_missed")) == {"log": 1}
    assert len(podcast.requests) == 1


def test_a_file_that_is_not_there_yet_is_an_answer(podcast: HttpStandIn) -> None:
    with HttpStandIn(reply(404)) as empty:
        asking(empty)
    assert not CircuitBreaker.objects.exists()


def test_a_podcast_whose_host_is_down_opens_its_breaker(settings: Settings) -> None:
    settings.PODCAST_ATTEMPTS = 50
    with HttpStandIn(reply(503)) as down:
        asking(down)
        for _ in range(9):
            hurry("await_podcast")
            drain()
    assert CircuitBreaker.objects.get().state == "open"
    assert len(down.requests) == Podcast.objects.get().attempts == 5


def test_a_late_podcast_is_not_asked_for_either() -> None:
    with HttpStandIn(json_reply({"status": "failed"})) as podcast:
        frozen(1, podcast_url=podcast.url("/episode.json"))
        shut()
        hurry("late_podcast")
        drain(but="deliver")
    assert len(podcast.requests) == 1
    row = the_job("late_podcast")
    assert (row.state, row.failures) == ("queued", 0) and "does not answer" in row.note
