"""Jobs: their rows, their claim, their outcomes, and what becomes of them when a worker dies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django_q.models import OrmQ

from delivery import queue
from delivery.errors import EdgeError
from delivery.models import Job, JobTally
from delivery.models.job import MAX_CRASHES, JobState, Lane
from delivery.outcome import Discard, Done, Outcome, Wait
from delivery.queue.registry import REGISTRY, JobType
from delivery.queue.wakeups import wake
from delivery.retries import Backoff, On
from newsletter.models import Issue, Newsletter, Transition, database_now
from tests import cast
from tests.drain import drain

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
TROUBLES = {"EdgeError": {"count": 5, "since": "2026-11-22T00:00:00+00:00"}}
BUSY = On(EdgeError, Backoff(first=10, cap=600), times=8, within=86_400)


class Errand:
    """A job's body that a test scripts: what it returns, and how often it ran."""

    def __init__(self) -> None:
        self.outcome: Callable[[], Outcome] = Done
        self.runs = 0
        self.advanced = 0
        self.gave_up: list[str] = []

    def body(self, **args: Any) -> Outcome:
        self.runs += 1
        return self.outcome()

    def fails(self, error: Exception) -> None:
        """From now on its body raises this."""

        def body() -> Outcome:
            raise error

        self.outcome = body

    def advance(self) -> None:
        self.advanced += 1

    def give_up(self, row: Job, reason: str) -> None:
        assert connection.in_atomic_block
        self.gave_up.append(reason)


@pytest.fixture
def errand() -> Iterator[Errand]:
    made = Errand()
    REGISTRY["errand"] = JobType(made.body, Lane.DEFAULT, (BUSY,), made.give_up)
    yield made
    REGISTRY.pop("errand", None)


def want(key: str = "errand:1", **over: Any) -> Job:
    queue.ensure("errand", key=key, **over)
    return the_job(key)


def the_job(key: str = "errand:1") -> Job:
    return Job.objects.filter(key=key).latest("id")


def run(row: Job) -> Job:
    queue.run(row.pk)
    row.refresh_from_db()
    return row


def claimed(row: Job) -> Job:
    assert row.claim()
    return row


def abandoned(row: Job) -> Job:
    """Its worker was killed, and the lease is over."""
    claimed(row)
    Job.objects.filter(pk=row.pk).update(lease_until=database_now() - HOUR)
    return row


def at_once(*works: Callable[[], object]) -> None:
    """Each in a thread and with a connection of its own, begun together."""
    gate = threading.Barrier(len(works))
    failed: list[Exception] = []

    def begin(work: Callable[[], object]) -> None:
        try:
            gate.wait(10)
            work()
        except Exception as error:  # noqa: BLE001 - told by the assertion below
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=begin, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed, failed


# --- wanting a job


def test_a_wanted_job_is_queued_for_now_in_its_lane(errand: Errand) -> None:
    assert queue.enqueue("errand", key="errand:1", number=7)
    row = the_job()
    assert (row.state, row.lane, row.args) == (JobState.QUEUED, Lane.DEFAULT, {"number": 7})
    assert row.due_at <= database_now()


def test_a_key_has_one_unfinished_job(errand: Errand) -> None:
    assert queue.ensure("errand", key="errand:1")
    assert not queue.ensure("errand", key="errand:1")
    assert not queue.enqueue("errand", key="errand:1")
    assert Job.objects.count() == 1


def test_a_finished_job_leaves_its_key_free(errand: Errand) -> None:
    run(want())
    assert queue.ensure("errand", key="errand:1")
    assert Job.objects.count() == 2


def test_wanting_a_waiting_job_hurries_it(errand: Errand) -> None:
    want(delay=3600)
    queue.enqueue("errand", key="errand:1")
    assert the_job().due_at <= database_now()
    assert OrmQ.objects.filter(lock__lte=database_now()).count() == 1


def test_making_sure_of_a_waiting_job_leaves_its_time(errand: Errand) -> None:
    want(delay=3600)
    queue.ensure("errand", key="errand:1")
    assert the_job().due_at > database_now()


def test_a_job_that_is_wanted_while_it_runs_runs_once_more(errand: Errand) -> None:
    def body() -> Outcome:
        if errand.runs == 1:
            queue.enqueue("errand", key="errand:1")
        return Done()

    errand.outcome = body
    want()
    assert drain() == ["errand", "errand"]


def test_a_job_that_is_wanted_while_it_runs_does_not_wait(errand: Errand) -> None:
    def body() -> Outcome:
        queue.enqueue("errand", key="errand:1")
        return Wait(3600, "not yet")

    errand.outcome = body
    assert run(want()).due_at <= database_now()


def test_a_job_that_lost_its_lease_does_not_forget_what_is_wanted(errand: Errand) -> None:
    def body() -> Outcome:
        Job.objects.update(token="another's", again=True)
        return Wait(3600, "not yet")

    errand.outcome = body
    assert run(want()).again


def test_its_wake_up_goes_with_the_change_that_caused_it(errand: Errand) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        queue.enqueue("errand", key="errand:1")
        assert OrmQ.objects.count() == 1
        raise ZeroDivisionError
    assert not OrmQ.objects.exists() and not Job.objects.exists()


def test_a_delayed_wake_up_is_locked_until_then(errand: Errand) -> None:
    row = want(delay=3600)
    wake_up = OrmQ.objects.get()
    assert wake_up.lock == row.due_at > database_now() + HOUR * 0.9
    assert wake_up.key == Lane.DEFAULT


def test_a_wake_up_holds_a_name_and_an_id_and_nothing_else(errand: Errand) -> None:
    row = want(secret="not here")
    task = OrmQ.objects.get().task
    assert (task["func"], task["args"], task["kwargs"]) == ("delivery.queue.run", (row.pk,), {})


@pytest.mark.django_db(transaction=True)
def test_two_who_want_the_same_job_at_once_get_one(errand: Errand) -> None:
    for number in range(10):
        key = f"errand:{number}"
        at_once(*[lambda key=key: queue.enqueue("errand", key=key)] * 2)
    assert Job.objects.count() == 10
    assert OrmQ.objects.count() == 10


@pytest.mark.django_db(transaction=True)
def test_a_due_job_that_is_wanted_waits_for_the_change_to_be_committed(errand: Errand) -> None:
    """Else it would look before the change is there, and nobody would look again."""
    row = want()
    wanted, claims = threading.Event(), []

    def change() -> None:
        with transaction.atomic():
            queue.enqueue("errand", key="errand:1")
            wanted.set()
            worker.join(0.5)
            claims.append("committed")

    def claim() -> None:
        wanted.wait(10)
        claimed(Job.objects.get(pk=row.pk))
        claims.append("claimed")
        connection.close()

    worker = threading.Thread(target=claim)
    worker.start()
    change()
    worker.join(10)
    assert claims == ["committed", "claimed"]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_wanted_while_it_finishes_is_not_lost(errand: Errand) -> None:
    row = claimed(want())
    about_to_want = threading.Event()

    def finish() -> None:
        with transaction.atomic():
            row.finish(JobState.DONE, "")
            about_to_want.set()
            other.join(0.5)

    def ask() -> None:
        about_to_want.wait(10)
        queue.enqueue("errand", key="errand:1")
        connection.close()

    other = threading.Thread(target=ask)
    other.start()
    finish()
    other.join(10)
    assert the_job().state == JobState.QUEUED


@pytest.mark.django_db(transaction=True)
def test_an_operator_and_a_finishing_step_do_not_lock_each_other_out(errand: Errand) -> None:
    """Both take the issue first and the job then: the other way round PostgreSQL ends one of them."""
    issue = cast.issue(cast.newsletter())
    begun, held = threading.Event(), threading.Event()

    def body() -> Outcome:
        begun.set()
        held.wait(10)
        return Done("", lambda: Issue.objects.filter(pk=issue.pk).update(title="Moved on"))

    def operate() -> None:
        begun.wait(10)
        with transaction.atomic():
            Issue.objects.select_for_update().get(pk=issue.pk)
            held.set()
            finished.wait(0.5)
            queue.enqueue("errand", key="errand:1", issue_id=issue.pk)

    def work() -> None:
        queue.run(row.pk)
        finished.set()

    finished = threading.Event()
    errand.outcome = body
    row = want(issue_id=issue.pk)
    at_once(operate, work)
    row.refresh_from_db()
    assert (row.state, the_job().state) == (JobState.DONE, JobState.QUEUED)


# --- the claim


def test_a_job_is_claimed_by_one_only(errand: Errand) -> None:
    row = want()
    assert row.claim()
    assert not Job.objects.get(pk=row.pk).claim()


@pytest.mark.django_db(transaction=True)
def test_two_workers_run_a_job_once(errand: Errand) -> None:
    rows = [want(f"errand:{number}") for number in range(8)]
    for row in rows:
        at_once(*[lambda row=row: queue.run(row.pk)] * 2)
    assert errand.runs == 8


def test_a_job_is_not_run_before_it_is_due(errand: Errand) -> None:
    assert run(want(delay=3600)).state == JobState.QUEUED
    assert errand.runs == 0


def test_a_wake_up_of_a_job_that_is_gone_does_nothing(errand: Errand) -> None:
    queue.run(10**9)
    assert errand.runs == 0


def test_a_finished_job_is_not_run_again(errand: Errand) -> None:
    row = run(want())
    queue.run(row.pk)
    assert errand.runs == 1


def test_a_lease_is_renewed_while_it_holds(errand: Errand) -> None:
    row = claimed(want())
    Job.objects.filter(pk=row.pk).update(lease_until=database_now() + timedelta(seconds=2))
    assert row.renew()
    row.refresh_from_db()
    assert row.lease_until and row.lease_until > database_now() + timedelta(seconds=20)


def test_a_lease_that_is_over_is_renewed_where_nobody_took_the_job(errand: Errand) -> None:
    """The clock was put ahead: its worker lives."""
    assert abandoned(want()).renew()
    assert queue.recover() == 0


def test_the_lease_of_a_job_that_was_taken_back_cannot_be_renewed(errand: Errand) -> None:
    row = abandoned(want())
    queue.recover()
    assert not row.renew()


def test_wanting_a_job_does_not_read_the_finished_ones(errand: Errand) -> None:
    rows = Job.objects.filter(key="errand:1").unfinished()
    assert "job_unfinished" in rows.explain() or connection.vendor == "postgresql"


# --- outcomes


def test_done_finishes_it_and_applies_its_advance(errand: Errand) -> None:
    errand.outcome = lambda: Done("well", errand.advance)
    row = run(want())
    assert (row.state, row.note, errand.advanced) == (JobState.DONE, "well", 1)
    assert row.finished_at and row.lease_until is None


def test_wait_queues_it_for_later_and_is_no_failure(errand: Errand) -> None:
    errand.outcome = lambda: Wait(600, "the podcast", errand.advance)
    row = run(want())
    assert (row.state, row.failures, errand.advanced) == (JobState.QUEUED, 0, 1)
    assert row.due_at > database_now() + timedelta(seconds=590)
    assert OrmQ.objects.filter(lock=row.due_at).exists()


def test_discard_ends_it_in_peace(errand: Errand) -> None:
    errand.outcome = lambda: Discard("the issue is gone")
    row = run(want())
    assert (row.state, row.note, errand.gave_up) == (JobState.DISCARDED, "the issue is gone", [])


def test_a_body_that_runs_on_arguments_of_another_version_is_dead_and_says_which(
    errand: Errand,
) -> None:
    def body(id: int) -> Outcome:
        return Done()

    REGISTRY["errand"] = JobType(body, Lane.DEFAULT)
    row = run(want(number=7))
    assert row.state == JobState.DEAD
    assert "its arguments are of another version" in row.note and "'id'" in row.note


def test_where_giving_up_fails_the_job_is_not_dead(errand: Errand) -> None:
    def give_up(row: Job, reason: str) -> None:
        cast.newsletter()
        cast.newsletter()  # the same slug again: the database refuses it

    REGISTRY["errand"] = JobType(errand.body, Lane.DEFAULT, (), give_up)
    errand.fails(ValueError("a bug"))
    assert run(want()).state == JobState.RUNNING
    assert not Transition.objects.exists()


def test_what_is_wanted_meanwhile_is_not_lost_with_a_discard(errand: Errand) -> None:
    def body() -> Outcome:
        if errand.runs == 1:
            queue.enqueue("errand", key="errand:1")
            return Discard("gone")
        return Done()

    errand.outcome = body
    want()
    assert drain() == ["errand", "errand"]


@pytest.mark.parametrize("text", ["a nul \0 in it", "a lone \ud800 surrogate"])
def test_an_error_that_no_database_takes_as_it_is_does_not_hide_itself(
    errand: Errand, text: str
) -> None:
    errand.fails(ValueError(text))
    row = run(want())
    assert row.state == JobState.DEAD
    assert "ValueError: a " in row.note and "in test_queue" not in row.note


def test_a_wait_forgets_the_troubles(errand: Errand) -> None:
    errand.outcome = lambda: Wait(1, "goes on")
    row = want()
    Job.objects.update(troubles=TROUBLES, crashes=2)
    row = run(row)
    assert (row.failures, row.crashes) == (0, 0)


def test_a_job_whose_token_was_lost_applies_nothing(errand: Errand) -> None:
    def body() -> Outcome:
        Job.objects.update(token="another's")
        return Done("well", errand.advance)

    errand.outcome = body
    row = run(want())
    assert (row.state, errand.advanced) == (JobState.RUNNING, 0)


@pytest.mark.parametrize("came", [Wait(1, ""), EdgeError("busy"), ValueError(), Discard("")])
def test_a_job_whose_token_was_lost_is_left_as_it_is(
    errand: Errand, came: Outcome | Exception
) -> None:
    def body() -> Outcome:
        Job.objects.update(token="another's")
        if isinstance(came, Exception):
            raise came
        return came

    errand.outcome = body
    assert run(want()).token == "another's"


def test_an_advance_that_fails_takes_the_finish_back_and_is_an_error_nobody_declared(
    errand: Errand,
) -> None:
    def advance() -> None:
        cast.newsletter()
        cast.newsletter()

    errand.outcome = lambda: Done("well", advance)
    row = run(want())
    assert row.state == JobState.DEAD
    assert row.note.startswith("an error that nobody declared: IntegrityError")
    assert not Newsletter.objects.exists()


def test_a_name_that_this_version_does_not_know_is_dead_and_says_what_to_do(errand: Errand) -> None:
    row = want()
    del REGISTRY["errand"]
    row = run(row)
    assert row.state == JobState.DEAD
    assert "no job named errand" in row.note and "Discard it" in row.note


# --- what a crash leaves


def test_a_running_job_whose_lease_is_over_is_queued_again(errand: Errand) -> None:
    row = abandoned(want())
    assert queue.recover() == 1
    row.refresh_from_db()
    assert (row.state, row.crashes, row.token) == (JobState.QUEUED, 1, "")
    assert JobTally.objects.get().ending == "crashed"
    assert drain() == ["errand"]


def test_a_running_job_whose_lease_holds_is_left_alone(errand: Errand) -> None:
    row = claimed(want())
    assert queue.recover() == 0
    row.refresh_from_db()
    assert row.state == JobState.RUNNING


def test_the_third_crash_kills_it_and_says_so(errand: Errand) -> None:
    row = want()
    for _ in range(MAX_CRASHES):
        row.refresh_from_db()
        abandoned(row)
        queue.recover()
    row.refresh_from_db()
    assert (row.state, row.crashes) == (JobState.DEAD, 3)
    assert errand.gave_up == ["its worker died 3 times"]


def test_a_worker_that_was_taken_for_dead_applies_nothing(errand: Errand) -> None:
    def body() -> Outcome:
        Job.objects.update(lease_until=database_now() - HOUR)
        queue.recover()
        return Done("well", errand.advance)

    errand.outcome = body
    assert run(want()).state == JobState.QUEUED
    assert errand.advanced == 0


def test_two_sweeps_take_a_job_back_once(errand: Errand) -> None:
    row = abandoned(want())
    assert (queue.recover(), queue.recover()) == (1, 0)
    row.refresh_from_db()
    assert row.crashes == 1


def forget(row: Job, ago: timedelta) -> None:
    """Its wake-up is gone, as after a purged table or a rotated key."""
    then = database_now() - ago
    Job.objects.filter(pk=row.pk).update(due_at=then, woken_at=then)
    OrmQ.objects.all().delete()


def test_a_forgotten_job_is_woken_again(errand: Errand) -> None:
    forget(want(), timedelta(minutes=2))
    assert queue.recover() == 1
    assert OrmQ.objects.count() == 1


def test_a_job_that_was_woken_just_now_is_not_woken_again(errand: Errand) -> None:
    want()
    assert queue.recover() == 0
    assert OrmQ.objects.count() == 1


def test_a_job_that_is_not_due_is_not_woken(errand: Errand) -> None:
    want(delay=3600)
    OrmQ.objects.all().delete()
    assert queue.recover() == 0


def test_a_job_that_waits_in_its_lanes_line_is_not_woken_again(errand: Errand) -> None:
    """Under a backlog each sweep would make it longer: 1,000 late jobs once had 6,000 wake-ups."""
    then = database_now() - timedelta(minutes=5)
    for number in range(3):
        want(f"errand:{number}")
    Job.objects.update(due_at=then, woken_at=then)
    OrmQ.objects.update(lock=then)
    assert queue.recover() == 0
    assert OrmQ.objects.count() == 3


def test_a_job_that_was_passed_in_the_line_is_woken_again(errand: Errand) -> None:
    """Its wake-up was taken by a worker that died before the claim; those behind it still wait."""
    then = database_now() - timedelta(minutes=5)
    lost, waits = want("errand:1"), want("errand:2")
    Job.objects.update(due_at=then)
    Job.objects.filter(pk=lost.pk).update(woken_at=then - timedelta(seconds=1))
    Job.objects.filter(pk=waits.pk).update(woken_at=then)
    OrmQ.objects.all().delete()
    wake(waits, then)
    assert queue.recover() == 1
    assert OrmQ.objects.latest("id").task["args"] == (lost.pk,)


def test_many_crashed_jobs_are_found_in_one_sweep(errand: Errand) -> None:
    for number in range(30):
        abandoned(want(f"errand:{number}"))
    assert queue.recover() == 30


# --- an operator


def dead(errand: Errand) -> Job:
    errand.fails(ValueError("a bug"))
    return run(want())


def test_an_operator_queues_a_dead_job_again(errand: Errand) -> None:
    row = dead(errand)
    assert queue.retry_dead(row, actor="ana")
    row.refresh_from_db()
    assert (row.state, row.failures, row.crashes) == (JobState.QUEUED, 0, 0)
    errand.outcome = Done
    assert drain() == ["errand"]


def test_a_dead_job_is_not_queued_beside_its_successor(errand: Errand) -> None:
    row = dead(errand)
    want()
    assert not queue.retry_dead(row, actor="ana")


def test_of_two_dead_ones_of_a_key_one_is_queued_again(errand: Errand) -> None:
    rows = [dead(errand), dead(errand)]
    assert [queue.retry_dead(row, actor="ana") for row in rows] == [True, False]


def test_a_job_that_is_not_dead_cannot_be_queued_again(errand: Errand) -> None:
    assert not queue.retry_dead(run(want()), actor="ana")


def test_an_issues_waiting_jobs_are_discarded_but_its_notices(errand: Errand) -> None:
    issue = cast.issue(cast.newsletter())
    want(issue_id=issue.pk, delay=60)
    want("errand:2", issue_id=issue.pk).claim()
    queue.ensure("notify", key="notify:1", issue_id=issue.pk, notification_id=1)
    queue.discard(issue.pk, "the issue was edited")
    states = dict(Job.objects.values_list("key", "state"))
    assert states == {"errand:1": "discarded", "errand:2": "running", "notify:1": "queued"}


def test_times_are_the_databases(errand: Errand) -> None:
    row = want()
    assert isinstance(row.due_at, datetime)
    assert abs((row.due_at - database_now()).total_seconds()) < 5
