"""The clock: what is due in which zone, once on any number of hosts, and what each occurrence does."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection
from pytest_django import Settings

from delivery import release, schedules
from delivery.models import Job, Notification, Occurrence
from newsletter.models import Issue, Newsletter, database_now
from tests import cast
from tests.drain import drain, frozen, history

NEVER = datetime(2026, 1, 1, tzinfo=UTC)


def newsletter(**over: Any) -> Newsletter:
    """One that is not stored, for the pure questions."""
    return Newsletter(**{"slug": "weekly", "created_at": NEVER, **over})


def due(weekly: Newsletter, *now: int, name: str = "release") -> list[datetime]:
    at = datetime(*now, tzinfo=UTC)  # type: ignore[misc,arg-type]
    return [due for found in schedules.of(weekly) if found.name == name for due in found.came(at)]


# --- what is due (2026-06-01 is a Monday)


def test_the_release_is_due_on_monday_at_seven() -> None:
    assert due(newsletter(), 2026, 6, 1, 7, 0) == [datetime(2026, 6, 1, 7, tzinfo=UTC)]


def test_nothing_is_due_before_its_hour() -> None:
    assert due(newsletter(created_at=datetime(2026, 5, 31, tzinfo=UTC)), 2026, 6, 1, 6, 59) == []


@pytest.mark.parametrize(
    ("zone", "hour"), [("Europe/Lisbon", 6), ("America/Sao_Paulo", 10), ("UTC", 7)]
)
def test_the_hour_is_the_newsletters_own(zone: str, hour: int) -> None:
    found = due(newsletter(zone=zone), 2026, 6, 1, 12)
    assert found == [datetime(2026, 6, 1, hour, tzinfo=UTC)]


def test_the_day_is_the_newsletters_own() -> None:
    """Monday 07:00 in Auckland is Sunday evening in UTC."""
    found = due(newsletter(zone="Pacific/Auckland"), 2026, 5, 31, 19, 30)
    assert found == [datetime(2026, 5, 31, 19, tzinfo=UTC)]


def test_the_hour_follows_daylight_saving() -> None:
    winter = due(newsletter(zone="Europe/Lisbon"), 2026, 3, 23, 12)
    summer = due(newsletter(zone="Europe/Lisbon"), 2026, 3, 30, 12)
    assert [at.hour for at in (*winter, *summer)] == [7, 6]


def test_an_hour_that_does_not_exist_is_the_next_valid_minute() -> None:
    weekly = newsletter(zone="Europe/Lisbon", release_weekday=6, release_time=time(1, 30))
    assert due(weekly, 2026, 3, 29, 12) == [datetime(2026, 3, 29, 1, 0, tzinfo=UTC)]


def test_an_hour_that_comes_twice_is_the_first() -> None:
    weekly = newsletter(zone="Europe/Lisbon", release_weekday=6, release_time=time(1, 30))
    assert due(weekly, 2026, 10, 25, 12) == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


# Each due time of a day on which the clocks are set, or the year ends; what a wall clock there shows, and the instant.
SAO_PAULO, NEW_YORK, LISBON = "America/Sao_Paulo", "America/New_York", "Europe/Lisbon"
DAYLIGHT = [
    # Brazil had its gap at midnight, until 2019.
    (SAO_PAULO, date(2018, 11, 4), time(0, 0), "2018-11-04 03:00"),
    (SAO_PAULO, date(2018, 11, 4), time(0, 30), "2018-11-04 03:00"),
    (SAO_PAULO, date(2018, 11, 4), time(1, 0), "2018-11-04 03:00"),
    (SAO_PAULO, date(2018, 11, 3), time(23, 59), "2018-11-04 02:59"),
    (SAO_PAULO, date(2018, 2, 17), time(23, 30), "2018-02-18 01:30"),  # twice: the first
    (SAO_PAULO, date(2018, 2, 18), time(0, 0), "2018-02-18 03:00"),
    (SAO_PAULO, date(2026, 11, 1), time(0, 0), "2026-11-01 03:00"),
    (SAO_PAULO, date(2026, 2, 15), time(23, 30), "2026-02-16 02:30"),
    (SAO_PAULO, date(2026, 12, 31), time(23, 59), "2027-01-01 02:59"),
    (SAO_PAULO, date(2027, 1, 1), time(0, 0), "2027-01-01 03:00"),
    (NEW_YORK, date(2026, 3, 8), time(1, 59), "2026-03-08 06:59"),
    (NEW_YORK, date(2026, 3, 8), time(2, 0), "2026-03-08 07:00"),
    (NEW_YORK, date(2026, 3, 8), time(2, 30), "2026-03-08 07:00"),
    (NEW_YORK, date(2026, 3, 8), time(3, 0), "2026-03-08 07:00"),
    (NEW_YORK, date(2026, 11, 1), time(0, 0), "2026-11-01 04:00"),
    (NEW_YORK, date(2026, 11, 1), time(1, 30), "2026-11-01 05:30"),  # twice: the first
    (NEW_YORK, date(2026, 11, 1), time(2, 0), "2026-11-01 07:00"),
    (NEW_YORK, date(2026, 12, 31), time(23, 59), "2027-01-01 04:59"),
    (NEW_YORK, date(2027, 1, 1), time(0, 0), "2027-01-01 05:00"),
    (LISBON, date(2026, 3, 29), time(0, 0), "2026-03-29 00:00"),
    (LISBON, date(2026, 3, 29), time(1, 0), "2026-03-29 01:00"),
    (LISBON, date(2026, 3, 29), time(1, 30), "2026-03-29 01:00"),
    (LISBON, date(2026, 3, 29), time(2, 30), "2026-03-29 01:30"),
    (LISBON, date(2026, 10, 25), time(0, 30), "2026-10-24 23:30"),
    (LISBON, date(2026, 10, 25), time(1, 30), "2026-10-25 00:30"),  # twice: the first
    (LISBON, date(2026, 10, 25), time(2, 0), "2026-10-25 02:00"),
    (LISBON, date(2026, 12, 31), time(23, 59), "2026-12-31 23:59"),
    (LISBON, date(2027, 1, 1), time(0, 0), "2027-01-01 00:00"),
]


def minutes_around(at: datetime, hours: int) -> list[datetime]:
    start = at - timedelta(hours=hours)
    return [start + timedelta(minutes=n) for n in range(2 * hours * 60)]


@pytest.mark.parametrize(("zone", "day", "at", "expected"), DAYLIGHT)
def test_it_is_due_once_on_a_day_on_which_clocks_are_set(
    zone: str, day: date, at: time, expected: str
) -> None:
    instant = datetime.fromisoformat(f"{expected}+00:00")
    weekly = newsletter(
        zone=zone,
        release_weekday=day.weekday(),
        release_time=at,
        created_at=datetime(2018, 1, 1, tzinfo=UTC),
    )
    release_schedule = schedules.of(weekly)[0]
    seen: dict[datetime, datetime] = {}  # due -> the first minute at which it had come
    for minute in minutes_around(instant, 13):
        for found in release_schedule.came(minute):
            seen.setdefault(found, minute)
    of_the_day = [found for found in seen if found > instant - timedelta(days=5)]
    assert of_the_day == [instant]
    assert seen[instant] == instant


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("zone", "day", "at", "expected"),
    [
        (SAO_PAULO, date(2018, 11, 4), time(0, 0), "2018-11-04 03:00"),
        (NEW_YORK, date(2026, 3, 8), time(2, 30), "2026-03-08 07:00"),
        (LISBON, date(2026, 10, 25), time(1, 30), "2026-10-25 00:30"),
    ],
)
def test_a_tick_each_minute_makes_one_run(
    zone: str, day: date, at: time, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = datetime.fromisoformat(f"{expected}+00:00")
    weekly = cast.newsletter(
        zone=zone, release_weekday=day.weekday(), release_time=at, safety_net_time=time(9)
    )
    Newsletter.objects.filter(pk=weekly.pk).update(created_at=instant - timedelta(days=1))
    for minute in minutes_around(instant, 2):
        monkeypatch.setattr(schedules, "database_now", lambda minute=minute: minute)
        schedules.tick()
    made = Occurrence.objects.filter(schedule="release")
    assert list(made.values_list("due_utc", flat=True)) == [instant]
    assert Job.objects.filter(name="release").count() == 1


def test_a_missed_release_is_noticed_days_later() -> None:
    assert due(newsletter(), 2026, 6, 8, 6, 59) == [datetime(2026, 6, 1, 7, tzinfo=UTC)]


def test_after_a_week_it_is_the_next_that_counts() -> None:
    assert due(newsletter(), 2026, 6, 8, 7, 0) == [datetime(2026, 6, 8, 7, tzinfo=UTC)]


def test_a_newsletter_that_is_younger_than_the_hour_missed_nothing() -> None:
    made = datetime(2026, 6, 1, 7, 30, tzinfo=UTC)
    assert due(newsletter(created_at=made), 2026, 6, 1, 8) == []


def test_the_safety_net_is_every_five_minutes_from_the_hour_to_the_bound() -> None:
    weekly = newsletter()
    first = due(weekly, 2026, 6, 1, 7, 5, name="safety_net")
    last = due(weekly, 2026, 6, 1, 17, 59, name="safety_net")
    assert [at.time() for at in (*first, *last)] == [time(7, 5), time(17, 55)]
    assert due(weekly, 2026, 6, 1, 18, 1, name="safety_net") == []
    assert due(weekly, 2026, 6, 2, 12, name="safety_net") == []


def test_a_missed_sweep_is_made_up_for_by_the_next() -> None:
    found = due(newsletter(), 2026, 6, 1, 12, 3, name="safety_net")
    assert [at.time() for at in found] == [time(12, 0)]


# --- the tick


def at_noon(**over: Any) -> Newsletter:
    """A newsletter in whose zone it is between 12:00 and 13:00 on its day; its hour was 11:30."""
    now = database_now()
    zone = f"Etc/GMT{now.hour - 12:+d}"  # its signs are the other way round
    values: dict[str, Any] = {
        "zone": zone,
        "release_weekday": now.astimezone(ZoneInfo(zone)).weekday(),
        "release_time": time(11, 30),
        "safety_net_time": time(11, 30),
        "too_late_time": time(18, 0),
    }
    weekly = cast.newsletter(**{**values, **over})
    weekly.created_at = now - timedelta(days=30)
    weekly.save()
    return weekly


def day_of(weekly: Newsletter) -> date:
    return weekly.today(database_now())


def events() -> list[str]:
    return [
        row.notice["event"] for row in Notification.objects.filter(channel="log").order_by("id")
    ]


def notice(event: str) -> dict[str, Any]:
    rows = Notification.objects.filter(channel="log")
    found = [row.notice for row in rows if row.notice["event"] == event]
    assert len(found) == 1
    return dict(found[0])


def state_of(issue: Issue) -> str:
    return str(Issue.objects.values_list("state", flat=True).get(pk=issue.pk))


@pytest.fixture
def told(settings: Settings) -> None:
    settings.DISCORD_WEBHOOK_URL = "http://127.0.0.1:1/webhook"


@pytest.mark.django_db
def test_the_tick_starts_the_approved_issue() -> None:
    issue = cast.approved(at_noon())
    schedules.tick()
    assert "release" in drain(but="await_podcast")
    assert state_of(issue) == "awaiting_podcast"
    assert Occurrence.objects.get(schedule="release").issue == issue
    assert Occurrence.objects.get(schedule="release").note == "started weekly/first-issue"


@pytest.mark.django_db
def test_two_ticks_make_an_occurrence_once() -> None:
    at_noon()
    made = schedules.tick()
    assert (made, schedules.tick()) == (3, 0)
    assert Job.objects.filter(name="release").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_hosts_that_tick_at_once_make_an_occurrence_once() -> None:
    issue = cast.approved(at_noon())
    gate = threading.Barrier(3)

    def tick() -> None:
        gate.wait(10)
        schedules.tick()
        connection.close()

    threads = [threading.Thread(target=tick) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    drain(but="await_podcast")
    made = Occurrence.objects.values_list("schedule", flat=True)
    assert sorted(made) == ["prune", "release", "safety_net"]
    assert Job.objects.filter(name__in=["release", "safety_net", "prune"]).count() == 3
    assert history(issue).count("the release starts") == 1


@pytest.mark.django_db
@pytest.mark.parametrize("odd", [{"zone": "Nowhere/At_All"}, {"zone": ""}, {"release_weekday": 9}])
def test_one_bad_newsletter_does_not_stop_the_others(odd: dict[str, Any]) -> None:
    bad = at_noon(slug="bad", name="A bad one")
    Newsletter.objects.filter(pk=bad.pk).update(**odd)
    issue = cast.approved(at_noon())
    schedules.tick()
    drain(but="await_podcast")
    assert state_of(issue) == "awaiting_podcast"


@pytest.mark.django_db
def test_a_bad_newsletter_is_told_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = cast.newsletter(slug="bad", name="A bad one")
    Newsletter.objects.filter(pk=bad.pk).update(zone="Nowhere/At_All")
    morning = datetime(2026, 6, 1, 8, tzinfo=UTC)
    for hours in (0, 1, 15, 16, 17):  # the last two are tomorrow
        now = morning + timedelta(hours=hours)
        monkeypatch.setattr(schedules, "database_now", lambda now=now: now)
        schedules.tick()
    told = Notification.objects.filter(channel="log").order_by("id")
    assert [row.key.rpartition(":")[2] for row in told] == ["2026-06-01", "2026-06-02"]
    assert told[0].notice["event"] == "schedule_failed"
    assert told[0].notice["level"] == "error"
    assert "Nowhere/At_All" in told[0].notice["lines"][0]


@pytest.mark.django_db
def test_nothing_is_made_on_another_day() -> None:
    weekly = at_noon()
    weekly.release_weekday = (weekly.release_weekday + 1) % 7
    weekly.save()
    Newsletter.objects.update(created_at=database_now() - timedelta(hours=1))
    schedules.tick()
    assert Occurrence.objects.get().schedule == "prune"


@pytest.mark.django_db
def test_an_occurrence_that_is_gone_is_discarded() -> None:
    at_noon()
    schedules.tick()
    Occurrence.objects.all().delete()
    drain()
    ended = Job.objects.exclude(name="prune").values_list("state", flat=True)
    assert list(ended) == ["discarded", "discarded"]


# --- the house


def pruned(*now: int) -> list[datetime]:
    at = datetime(*now, tzinfo=UTC)  # type: ignore[misc,arg-type]
    return [due for found in schedules.OF_THE_HOUSE for due in found.came(at)]


def test_the_prune_is_due_each_day_at_half_past_three() -> None:
    assert pruned(2026, 6, 1, 3, 30) == [datetime(2026, 6, 1, 3, 30, tzinfo=UTC)]
    assert pruned(2026, 6, 2, 3, 30) == [datetime(2026, 6, 2, 3, 30, tzinfo=UTC)]


def test_a_prune_that_was_missed_is_made_within_a_day() -> None:
    assert pruned(2026, 6, 2, 3, 29) == [datetime(2026, 6, 1, 3, 30, tzinfo=UTC)]


@pytest.mark.django_db
def test_the_prune_needs_no_newsletter() -> None:
    assert schedules.tick() == 1
    assert drain() == ["prune"]
    row = Occurrence.objects.get()
    assert (row.newsletter, row.note) == (None, "nothing was old enough")


@pytest.mark.django_db
def test_the_database_lets_the_house_have_an_occurrence_once() -> None:
    """NULL equals nothing: the newsletters' constraint would let any number in."""
    at = database_now()
    Occurrence.objects.create(schedule="prune", newsletter=None, due_utc=at)
    with pytest.raises(IntegrityError):
        Occurrence.objects.create(schedule="prune", newsletter=None, due_utc=at)


# --- what comes next (for the operations page)


@pytest.mark.django_db
def test_it_is_known_what_came_last_and_what_comes_next() -> None:
    weekly = cast.newsletter()
    due = datetime(2026, 6, 1, 7, tzinfo=UTC)
    for weeks in (2, 1):
        Occurrence.objects.create(
            schedule="release", newsletter=weekly, due_utc=due - timedelta(weeks=weeks)
        )
    found = {row.schedule: row for row in schedules.upcoming(due - timedelta(minutes=1))}
    assert set(found) == {"prune", "release", "safety_net"}
    assert found["release"].next == due
    last = found["release"].last
    assert last is not None
    assert last.due_utc == due - timedelta(weeks=1)
    assert (found["prune"].newsletter, found["prune"].last) == (None, None)
    assert found["prune"].next == datetime(2026, 6, 2, 3, 30, tzinfo=UTC)
    assert found["safety_net"].next == datetime(2026, 6, 1, 7, 5, tzinfo=UTC)


@pytest.mark.django_db
def test_after_the_hour_the_next_is_in_a_week() -> None:
    cast.newsletter()
    due = datetime(2026, 6, 1, 7, tzinfo=UTC)
    found = {row.schedule: row.next for row in schedules.upcoming(due)}
    assert found["release"] == due + timedelta(weeks=1)


@pytest.mark.django_db
def test_a_bad_newsletter_has_no_next_and_hides_no_other() -> None:
    bad = cast.newsletter(slug="bad", name="A bad one")
    Newsletter.objects.filter(pk=bad.pk).update(zone="Nowhere/At_All")
    cast.newsletter()
    found = {
        (row.schedule, row.newsletter.slug if row.newsletter else ""): row.next
        for row in schedules.upcoming(database_now())
    }
    assert len(found) == 5
    assert {name for name, at in found.items() if at is None} == {
        ("release", "bad"),
        ("safety_net", "bad"),
    }


@pytest.mark.django_db
def test_many_newsletters_cost_no_more_queries(django_assert_num_queries: Any) -> None:
    for number in range(20):
        cast.newsletter(slug=f"n{number}", name=f"N {number}")
    with django_assert_num_queries(5):
        assert len(schedules.upcoming(database_now())) == 41


# --- which issue


@pytest.mark.django_db
def test_the_oldest_date_goes_first_and_the_others_are_named(told: None) -> None:
    weekly = at_noon()
    newer = cast.approved(weekly, slug="newer", release_date=date(2026, 5, 2))
    older = cast.approved(weekly, slug="older", release_date=date(2026, 5, 1))
    schedules.tick()
    drain(but="await_podcast")
    assert (state_of(older), state_of(newer)) == ("awaiting_podcast", "approved")
    assert notice("others_wait")["lines"][0] == "Still waiting: weekly/newer"


@pytest.mark.django_db
def test_an_issue_of_a_later_date_is_not_started() -> None:
    weekly = at_noon()
    issue = cast.approved(weekly, release_date=day_of(weekly) + timedelta(days=1))
    schedules.tick()
    drain()
    assert state_of(issue) == "approved"


@pytest.mark.django_db
def test_an_issue_that_is_paused_is_not_started() -> None:
    issue = cast.approved(at_noon())
    issue.pause(reason="not yet", actor="ana")
    schedules.tick()
    drain()
    assert state_of(issue) == "approved"


@pytest.mark.django_db
def test_one_issue_is_started_a_day() -> None:
    weekly = at_noon()
    first = cast.approved(weekly)
    release.start(first, actor="ana", now=True)
    second = cast.approved(weekly, slug="second")
    schedules.tick()
    assert release.sweep(weekly, database_now()) == []
    drain(but="await_podcast")
    assert (state_of(first), state_of(second)) == ("awaiting_podcast", "approved")


@pytest.mark.django_db
def test_the_issue_that_waits_for_another_day_is_told(told: None) -> None:
    weekly = at_noon()
    release.start(cast.approved(weekly), actor="ana", now=True)
    cast.approved(weekly, slug="second")
    schedules.tick()
    drain(but="await_podcast")
    assert notice("others_wait")["lines"][0] == "Still waiting: weekly/second"


@pytest.mark.django_db
def test_a_run_that_was_cancelled_does_not_use_up_the_day() -> None:
    weekly = at_noon()
    first = cast.approved(weekly)
    release.start(first, actor="ana", now=True)
    release.cancel(first, actor="ana")
    second = cast.approved(weekly, slug="second")
    schedules.tick()
    drain(but="await_podcast")
    assert state_of(second) == "awaiting_podcast"


@pytest.mark.django_db
def test_a_run_that_was_edited_back_does_not_use_up_the_day() -> None:
    weekly = at_noon()
    first = cast.approved(weekly)
    release.start(first, actor="ana", now=True)
    first.edit(actor="ana", title="Better")
    second = cast.approved(weekly, slug="second")
    schedules.tick()
    drain(but="await_podcast")
    assert (state_of(first), state_of(second)) == ("draft", "awaiting_podcast")


@pytest.mark.django_db
def test_the_schedule_and_a_person_at_once_make_one_run() -> None:
    issue = cast.approved(at_noon())
    schedules.tick()
    release.start(issue, actor="ana", now=True)
    drain(but="await_podcast")
    assert history(issue).count("the release starts") == 1


# --- nothing approved, too late


@pytest.mark.django_db
def test_nothing_approved_is_told(told: None) -> None:
    at_noon()
    schedules.tick()
    drain()
    assert events() == ["nothing_approved"]
    assert Occurrence.objects.get(schedule="release").note == "no approved issue"


@pytest.mark.django_db
def test_what_is_approved_late_is_started_by_the_next_sweep(told: None) -> None:
    weekly = at_noon(safety_net_time=time(17, 0))  # the net itself is still to come
    schedules.tick()
    drain()
    issue = cast.approved(weekly)
    Occurrence.objects.filter(schedule="safety_net").delete()
    schedules.tick()
    drain(but="await_podcast")
    assert state_of(issue) == "awaiting_podcast"


@pytest.mark.django_db
def test_a_missed_release_within_the_bound_runs_late(told: None) -> None:
    issue = cast.approved(at_noon(release_time=time(2, 0), safety_net_time=time(4, 0)))
    schedules.tick()
    drain(but="await_podcast")
    assert state_of(issue) == "awaiting_podcast"
    assert "too_late" not in events()


@pytest.mark.django_db
def test_a_missed_release_beyond_the_bound_is_told_and_not_started(told: None) -> None:
    bound = {"release_time": time(2), "safety_net_time": time(4), "too_late_time": time(11)}
    issue = cast.approved(at_noon(**bound))
    schedules.tick()
    drain()
    assert state_of(issue) == "approved"
    assert "weekly/first-issue" in notice("too_late")["lines"][0]
    assert notice("too_late")["level"] == "error"


@pytest.mark.django_db
def test_a_release_that_somebody_started_by_hand_was_not_missed(told: None) -> None:
    bound = {"release_time": time(2), "safety_net_time": time(4), "too_late_time": time(11)}
    issue = cast.approved(at_noon(**bound))
    release.start(issue, actor="ana", now=True)
    schedules.tick()
    drain(but="await_podcast")
    assert "too_late" not in events()


# --- the safety net


@pytest.mark.django_db
def test_a_run_that_lies_there_is_resumed_by_the_net() -> None:
    weekly = at_noon()
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    Job.objects.all().delete()
    schedules.tick()
    drain(but="await_podcast")
    assert Job.objects.unfinished().get().name == "await_podcast"


@pytest.mark.django_db
def test_before_its_hour_the_net_resumes_nothing() -> None:
    weekly = at_noon(safety_net_time=time(17, 0))
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    Job.objects.all().delete()
    schedules.tick()
    drain(but="await_podcast")
    assert not Job.objects.unfinished().exists()


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["waits", "is paused", "is blocked"])
def test_the_net_leaves_alone_what_waits_is_paused_or_blocked(reason: str) -> None:
    weekly = at_noon()
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    if reason == "waits":
        Job.objects.update(due_at=database_now() + timedelta(hours=1))
    else:
        Job.objects.all().delete()
        hold_up = issue.pause if reason == "is paused" else issue.block
        hold_up(reason="lunch", actor="ana")
    before = Job.objects.count()
    assert release.sweep(weekly, database_now()) == []
    assert Job.objects.count() == before


@pytest.mark.django_db
def test_a_run_whose_audience_is_frozen_is_resumed_at_any_hour() -> None:
    issue = frozen(2)
    Job.objects.all().delete()
    night = datetime(2026, 6, 3, 3, tzinfo=UTC)  # a Wednesday
    assert release.sweep(issue.newsletter, night) == ["resumed weekly/first-issue at sending"]


@pytest.mark.django_db
def test_nothing_to_do_enqueues_nothing() -> None:
    weekly = at_noon()
    assert release.sweep(weekly, database_now()) == []
    assert not Job.objects.exists()
