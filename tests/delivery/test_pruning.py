"""The daily prune: what goes at which age, what stays, and tables that do not grow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Model, QuerySet, Sum
from django_q.models import OrmQ, Task

from delivery import pruning, stopping
from delivery.models import (
    CircuitBreaker,
    EmailDelivery,
    Heartbeat,
    Job,
    JobTally,
    Lease,
    Notification,
    Occurrence,
    ProviderEvent,
    QuotaTally,
    TransactionalMail,
)
from delivery.outcome import Done, Wait
from newsletter.models import Issue, Newsletter, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import frozen

DAY = timedelta(days=1)
RULES = {rule.what: rule for rule in pruning.TABLE}


def prune() -> str:
    outcome = pruning.prune(0)
    assert isinstance(outcome, Done)
    return outcome.note


# --- a row of each kind, as old as is asked


def job(state: str) -> Callable[[datetime], Job]:
    def make(at: datetime) -> Job:
        return Job.objects.create(
            key=f"{state}:{at}", name="x", state=state, due_at=at, finished_at=at
        )

    return make


def history(subject: Subject) -> Callable[[datetime], Transition]:
    def make(at: datetime) -> Transition:
        return Transition.objects.create(subject=subject, subject_id=1, old="a", new="b", at=at)

    return make


def created(row: Model, at: datetime) -> Model:
    """Its creation is set by Django to now."""
    type(row)._default_manager.filter(pk=row.pk).update(created_at=at)
    return row


def notification(at: datetime) -> Model:
    return created(Notification.objects.create(key=str(at), channel="log", notice={}), at)


def mail(at: datetime) -> Model:
    issue = Issue.objects.first() or cast.issue(cast.newsletter())
    row = TransactionalMail.objects.create(kind="test", address="bob@example.org", issue=issue)
    return created(row, at)


def provider_event(at: datetime) -> Model:
    row = ProviderEvent.objects.create(provider="ses", event_key=str(at), kind="sent", raw="{}")
    ProviderEvent.objects.filter(pk=row.pk).update(received_at=at)
    return row


def task(at: datetime) -> Model:
    values = {"name": "x", "func": "x", "started": at, "stopped": at, "success": False}
    row: Model = Task.objects.create(id=f"{at:%Y%m%d%H%M%S%f}", **values)
    return row


MAKERS: dict[str, Callable[[datetime], Model]] = {
    "jobs": job("done"),
    "dead jobs": job("dead"),
    "history of jobs": history(Subject.JOB),
    "history of deliveries": history(Subject.DELIVERY),
    "occurrences": lambda at: Occurrence.objects.create(schedule="prune", due_utc=at),
    "heartbeats": lambda at: Heartbeat.objects.create(work=str(at), lane="bulk", at=at),
    "notifications": notification,
    "transactional mails": mail,
    "events of providers": provider_event,
    "minutes of the tally": lambda at: JobTally.objects.create(name="x", ending="done", at=at),
    "tally of the quota": lambda at: QuotaTally.objects.create(channel="smtp", at=at),
    "breakers": lambda at: CircuitBreaker.objects.create(name=str(at), changed_at=at),
    "leases": lambda at: Lease.objects.create(name=str(at), expires_at=at),
    "wake-ups": lambda at: OrmQ.objects.create(key="bulk", payload="x", lock=at),
    "results of django-q2": task,
    "sessions": lambda at: Session.objects.create(session_key=f"{at:%H%M%S%f}", expire_date=at),
}


def exists(row: Model) -> bool:
    return type(row)._default_manager.filter(pk=row.pk).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("what", RULES)
def test_what_is_past_its_age_goes_and_the_rest_stays(what: str) -> None:
    then = database_now() - RULES[what].age
    old = MAKERS[what](then - timedelta(minutes=1))
    young = MAKERS[what](then + timedelta(minutes=1))
    assert prune() == f"taken away: 1 {what}"
    assert (exists(old), exists(young)) == (False, True)


@pytest.mark.django_db
def test_a_second_prune_finds_nothing() -> None:
    MAKERS["jobs"](database_now() - 31 * DAY)
    prune()
    assert prune() == "nothing was old enough"


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_is_not_over_is_never_too_old(state: str) -> None:
    long_ago = database_now() - 900 * DAY
    held = {"token": "t", "lease_until": long_ago} if state == "running" else {}
    Job.objects.create(key="k", name="x", state=state, due_at=long_ago, **held)
    prune()
    assert Job.objects.count() == 1


@pytest.mark.django_db
def test_a_dead_job_goes_with_its_history() -> None:
    at = database_now() - 181 * DAY
    row = job("dead")(at)
    Transition.objects.create(subject="job", subject_id=row.pk, old="running", new="dead", at=at)
    prune()
    assert not Job.objects.exists()
    assert not Transition.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("subject", [Subject.ISSUE, Subject.SUBSCRIPTION])
def test_what_proves_consent_and_decisions_is_kept_for_good(subject: Subject) -> None:
    history(subject)(database_now() - 4000 * DAY)
    prune()
    assert Transition.objects.count() == 1


@pytest.mark.django_db
def test_a_lease_stays_as_long_as_a_row_carries_its_fence() -> None:
    issue = frozen(1)
    lease = Lease.acquire("sender:1:0")
    assert lease
    EmailDelivery.objects.of(issue.pk).update(sender=lease, fence=lease.fence)
    Lease.objects.update(expires_at=database_now() - 40 * DAY)
    prune()
    assert Lease.objects.count() == 1
    EmailDelivery.objects.update(sender=None)
    prune()
    assert not Lease.objects.exists()


# --- the tally


def sums() -> list[Any]:
    rows = JobTally.objects.values("name", "ending").order_by("name", "ending")
    return list(rows.annotate(**{f"all_{field}": Sum(field) for field in pruning.SUMS}))


def tally(days: int, minutes: int) -> None:
    """Rows of two names and two endings, a minute each, from so many days ago on."""
    start = database_now().replace(second=0, microsecond=0) - days * DAY
    JobTally.objects.bulk_create(
        JobTally(
            name=name,
            ending=ending,
            at=start + timedelta(minutes=n),
            runs=n + 1,
            seconds=0.25 * n,
            items=3,
            to_50_ms=n,
            over=1,
        )
        for n in range(minutes)
        for name in ("close", "deliver")
        for ending in ("done", "retried")
    )


@pytest.mark.django_db
def test_old_minutes_are_added_up_and_every_sum_stays() -> None:
    tally(days=20, minutes=30)
    tally(days=2, minutes=5)
    before = sums()
    prune()
    assert sums() == before
    assert JobTally.objects.filter(at=pruning.EPOCH).count() == 4
    assert JobTally.objects.count() == 4 + 4 * 5


@pytest.mark.django_db
def test_the_next_day_adds_to_the_same_row() -> None:
    tally(days=20, minutes=3)
    prune()
    tally(days=18, minutes=3)
    before = sums()
    prune()
    assert sums() == before
    assert JobTally.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_two_prunes_at_once_count_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 7)
    tally(days=20, minutes=40)
    before = sums()
    gate = threading.Barrier(2)
    said: list[str] = []

    def want() -> None:
        gate.wait(10)
        said.append(prune())
        connection.close()

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(said) == 2
    assert sums() == before
    assert JobTally.objects.count() == 4


# --- in short steps


@pytest.mark.django_db
def test_a_batch_is_no_more_than_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 10)
    long_ago = database_now() - 40 * DAY
    for n in range(25):
        MAKERS["jobs"](long_ago - timedelta(seconds=n))
    rule = RULES["jobs"]
    taken = [rule.take(rule.rows(database_now() - rule.age)) for _ in range(4)]
    assert taken == [10, 10, 5, 0]


@pytest.mark.django_db
def test_after_its_turn_it_goes_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 10)
    monkeypatch.setattr(pruning, "TURN_SECONDS", 0.0)
    long_ago = database_now() - 400 * DAY
    for n in range(15):
        MAKERS["jobs"](long_ago - timedelta(seconds=n))
    MAKERS["occurrences"](long_ago)
    outcomes = [pruning.prune(0) for _ in range(4)]
    assert [type(outcome) for outcome in outcomes] == [Wait, Wait, Wait, Done]
    assert outcomes[0] == Wait(0, "goes on: taken away: 10 jobs")
    assert not Job.objects.exists()
    assert not Occurrence.objects.exists()


@pytest.mark.django_db
def test_it_leaves_off_when_work_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS["jobs"](database_now() - 40 * DAY)
    MAKERS["occurrences"](database_now() - 400 * DAY)
    monkeypatch.setattr(pruning, "stopping", lambda: True)
    assert isinstance(pruning.prune(0), Wait)
    assert Occurrence.objects.exists()
    assert not stopping.stopping()


def _plan(rows: QuerySet[Any]) -> list[str]:
    sql, params = rows.order_by().values_list("pk")[:1000].query.sql_with_params()
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # so that small tables show it too
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        cursor.execute(f"{explain} {sql}", params)
        return [row[-1] for row in cursor.fetchall()]


# They never have more than some thousand rows: to read them all once a day costs nothing.
SMALL = {
    "breakers",
    "occurrences",
    "heartbeats",
    "notifications",
    "leases",
    "wake-ups",
    "results of django-q2",
}


@pytest.mark.django_db
@pytest.mark.parametrize("what", [what for what in RULES if what not in SMALL])
def test_a_big_table_is_not_read_from_end_to_end(what: str) -> None:
    plan = _plan(RULES[what].rows(database_now()))
    assert not [line for line in plan if line.startswith("SCAN") or "Seq Scan" in line], plan


# --- forty days

MOST = 7 * DAY  # no age is longer here
SIZES: dict[str, type[Model]] = {
    "jobs": Job,
    "history": Transition,
    "occurrences": Occurrence,
    "heartbeats": Heartbeat,
    "notifications": Notification,
    "mails": TransactionalMail,
    "tallies": JobTally,
    "leases": Lease,
    "wake-ups": OrmQ,
    "results": Task,
    "sessions": Session,
}


def live_through(day: datetime, issue: Issue, weekly: Newsletter) -> None:
    """What a busy day leaves behind."""

    def at(n: int, of: int) -> datetime:
        return day + n * DAY / of

    Job.objects.bulk_create(
        Job(key=f"{day}:{n}", name="x", state=state, due_at=at(n, 200), finished_at=at(n, 200))
        for n, state in enumerate(["done"] * 190 + ["discarded"] * 5 + ["dead"] * 5)
    )
    Transition.objects.bulk_create(
        Transition(subject=subject, subject_id=n, old="a", new="b", at=at(n, 40))
        for n in range(40)
        for subject in (Subject.JOB, Subject.DELIVERY)
    )
    Occurrence.objects.bulk_create(
        Occurrence(schedule="safety_net", newsletter=weekly, due_utc=at(n, 60)) for n in range(60)
    )
    Heartbeat.objects.bulk_create(
        Heartbeat(work=f"{day}:{n}", lane="bulk", at=at(n, 6)) for n in range(6)
    )
    told = Notification.objects.bulk_create(
        Notification(key=f"{day}:{n}", channel="log", notice={}) for n in range(20)
    )
    mails = TransactionalMail.objects.bulk_create(
        TransactionalMail(kind="test", address="bob@example.org", issue=issue) for _ in range(20)
    )
    for row in (*told, *mails):
        created(row, at(row.pk % 20, 20))
    JobTally.objects.bulk_create(
        JobTally(name=name, ending=ending, at=at(n, 24), runs=2, seconds=0.5, to_50_ms=2)
        for n in range(24)
        for name in ("close", "deliver", "notify")
        for ending in ("done", "waiting", "retried")
    )
    Lease.objects.bulk_create(Lease(name=f"{day}:{n}", expires_at=at(n, 2)) for n in range(2))
    OrmQ.objects.bulk_create(OrmQ(key="bulk", payload="x", lock=at(n, 30)) for n in range(30))
    for n in range(5):
        task(at(n, 5))
    Session.objects.bulk_create(
        Session(session_key=f"{day:%j}:{n}", expire_date=at(n, 5)) for n in range(5)
    )


@pytest.mark.django_db
def test_after_forty_days_no_table_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    short = tuple(replace(rule, age=min(rule.age, MOST)) for rule in pruning.TABLE)
    monkeypatch.setattr(pruning, "TABLE", short)
    monkeypatch.setattr(pruning, "PAUSE", 0)
    weekly = cast.newsletter()
    issue = cast.issue(weekly)
    first = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
    sizes = []
    for number in range(40):
        live_through(first + number * DAY, issue, weekly)
        now = first + (number + 1) * DAY
        monkeypatch.setattr(pruning, "database_now", lambda now=now: now)
        prune()
        sizes.append({name: model._default_manager.count() for name, model in SIZES.items()})
    for number in (0, 6, 9, 19, 39):
        print(f"day {number + 1}: {sizes[number]}")
    assert sizes[9] == sizes[19] == sizes[39]
    assert JobTally.objects.aggregate(all=Sum("runs"))["all"] == 40 * 24 * 9 * 2
