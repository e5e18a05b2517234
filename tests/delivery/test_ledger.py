"""The door to the ledger: moves for given rows, the planners' way to them, and the tally that pages show."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import given as example
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from delivery import moves, sending
from delivery.exchange import Exchange, prepared_start
from delivery.ledger import Prepared, move
from delivery.models import EmailDelivery, Lease, LedgerTally
from delivery.models.ledger_tally import Changes
from delivery.results import prepared_accept
from newsletter.models import Issue, Statement, run_together
from tests import cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def issue() -> Issue:
    """Frozen, for eight readers."""
    weekly = cast.newsletter()
    cast.readers(weekly, 8)
    made = cast.approved(weekly)
    Issue.objects.filter(pk=made.pk).update(state="published")
    made.refresh_from_db()
    assert sending.freeze(made, sending.compile_issue(made), actor="test")
    made.refresh_from_db()
    return made


def leased(issue: Issue) -> tuple[Lease, list[int]]:
    lease = Lease.acquire(f"sender:{issue.pk}:0")
    assert lease
    return lease, list(
        EmailDelivery.objects.of(issue.pk).order_by("id").values_list("id", flat=True)
    )


def run(prepared: Prepared, rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """One prepared move in a transaction of its own, told to the tally."""
    changes = Changes()
    with transaction.atomic():
        (won,) = run_together([prepared.statement(rows)])
        prepared.counted(won, changes)
        changes.write()
    return sorted(won)


def test_given_rows_are_moved_and_said(issue: Issue) -> None:
    lease, ids = leased(issue)
    assert run(prepared_start(issue.pk, lease), [(id,) for id in ids[:3]]) == [
        (id, 1) for id in ids[:3]
    ]
    assert EmailDelivery.objects.filter(status="sending").count() == 3


def test_a_row_that_its_needs_forbid_is_not_won(issue: Issue) -> None:
    lease, ids = leased(issue)
    EmailDelivery.objects.get(pk=ids[1]).subscription.unsubscribe(reason="test", actor="test")  # type: ignore[union-attr]
    assert run(prepared_start(issue.pk, lease), [(id,) for id in ids[:3]]) == [
        (ids[0], 1),
        (ids[2], 1),
    ]


def test_the_same_result_twice_is_booked_once(issue: Issue) -> None:
    lease, ids = leased(issue)
    run(prepared_start(issue.pk, lease), [(id,) for id in ids[:2]])
    accept = prepared_accept(issue.pk)
    rows: list[tuple[object, ...]] = [(ids[0], 1, "250 ok", "m-1"), (ids[1], 2, "250 ok", "")]
    assert run(accept, rows) == [(ids[0],)]
    assert run(accept, rows) == []
    row = EmailDelivery.objects.get(pk=ids[0])
    assert (row.status, row.reply, row.provider_message_id) == ("sent", "250 ok", "m-1")
    assert row.settled_at and row.sender_id is None and row.sending_at
    assert EmailDelivery.objects.get(pk=ids[1]).status == "sending"


REPLIES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@example(REPLIES)
@hypothesis(max_examples=60, deadline=None)
def test_a_reply_comes_back_as_it_was(reply: str) -> None:
    """It is somebody else's text, and stands in a statement."""
    if connection.vendor == "postgresql":
        (((said,),),) = run_together([Statement("SELECT (%s::text[])[1]", [[reply]])])
    else:
        import json

        ask = "SELECT json_extract(value, '$[0]') FROM json_each(%s)"
        (((said,),),) = run_together([Statement(ask, [json.dumps([(reply,)])])])
    assert said == reply


def test_nothing_given_asks_nothing(issue: Issue) -> None:
    assert run_together([None, prepared_accept(issue.pk).statement([])]) == [[], []]


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.django_db(transaction=True)
def test_steps_are_taken_while_postgresql_works_and_no_longer(in_transaction: bool) -> None:
    """SQLite works in this thread: nothing is taken there."""
    steps = itertools.count()
    if connection.vendor == "postgresql":
        slow = Statement("SELECT 'done' FROM pg_sleep(0.05)", [])
    else:
        slow = Statement("SELECT 'done'", [])
    with transaction.atomic() if in_transaction else nullcontext():
        assert run_together([slow, None, slow], steps) == [[("done",)], [], [("done",)]]
        taken = next(steps)
        assert taken > 100 if connection.vendor == "postgresql" else taken == 0
        run_together([slow])
        assert next(steps) == taken + 1


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_ended_in_a_step_leaves_a_connection_that_can_be_used() -> None:
    """django-q2 ends a job that takes too long by a signal, anywhere: its lease is released after that."""

    def ended() -> Iterator[None]:
        yield
        raise SystemExit

    on_postgresql = connection.vendor == "postgresql"
    slow = Statement(f"SELECT 1{' FROM pg_sleep(20)' if on_postgresql else ''}", [])
    with pytest.raises(SystemExit) if on_postgresql else nullcontext():
        run_together([slow], ended())
    assert run_together([Statement("SELECT 1", [])]) == [[(1,)]]


def test_steps_that_are_done_before_the_answer_change_nothing() -> None:
    steps = iter(range(3))
    asked = Statement("SELECT 'done'", [])
    assert run_together([asked], steps) == [[("done",)]]


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_fails_while_steps_are_taken_fails_as_ever() -> None:
    with pytest.raises(DatabaseError):
        run_together([Statement("SELECT missing", [])], itertools.count())
    assert run_together([Statement("SELECT 1", [])]) == [[(1,)]]


def test_another_holder_s_statement_takes_the_place_of_the_first(issue: Issue) -> None:
    """PostgreSQL keeps what was prepared for the session, under one name."""
    lease, ids = leased(issue)
    old = prepared_start(issue.pk, lease)
    assert run(old, [(ids[0],)]) == [(ids[0], 1)]
    Lease.objects.filter(pk=lease.pk).update(fence=lease.fence + 1, token="another")
    new = Lease.objects.get(pk=lease.pk)
    assert run(prepared_start(issue.pk, new), [(ids[1],)]) == [(ids[1], 1)]
    assert run(old, [(ids[2],)]) == []


@pytest.fixture
def analysed(issue: Issue) -> Iterator[None]:
    """SQLite keeps its figures when a table is emptied, and would plan other tests' queries by them."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE delivery_emaildelivery")
    yield
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM sqlite_stat1")
            cursor.execute("ANALYZE sqlite_schema")  # forgets them


# Not rolled back but emptied: PostgreSQL keeps the size that ANALYZE saw, and plans other tests' queries by it.
@pytest.mark.django_db(transaction=True)
def test_a_planner_goes_by_the_ids_alone(issue: Issue) -> None:
    """With old statistics both databases preferred another index, and read the whole claim for each group."""
    goes_by_the_ids(issue)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("analysed")
def test_a_planner_that_knows_the_tables_does_so_too(issue: Issue) -> None:
    goes_by_the_ids(issue)


def goes_by_the_ids(issue: Issue) -> None:
    lease, ids = leased(issue)
    results: list[tuple[object, ...]] = [(id, 1, "250 ok", "") for id in ids]
    statements = [
        prepared_start(issue.pk, lease).statement([(id,) for id in ids]),
        prepared_accept(issue.pk).statement(results),
    ]
    if connection.vendor == "postgresql":
        together = exchange(issue, lease)._together
        statements.append(together.statement([results, [(id,) for id in ids]]))
    for statement in statements:
        assert statement
        plan = "\n".join(explained(statement))
        assert "delivery_in_hands" not in plan and "delivery_books" not in plan
        if connection.vendor == "sqlite":
            assert "SEARCH delivery_emaildelivery USING INTEGER PRIMARY KEY" in plan


def explained(statement: Statement) -> list[str]:
    word = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    (rows,) = run_together([Statement(f"{word} {statement.sql}", statement.params)])
    return [str(row[-1]) for row in rows]


# --- results and next starts together


def exchange(issue: Issue, lease: Lease) -> Exchange:
    accept, start = prepared_accept(issue.pk), prepared_start(issue.pk, lease)
    return Exchange(issue.pk, accept, start, lease.pk)


def test_results_and_next_starts_are_one_transaction(issue: Issue) -> None:
    lease, ids = leased(issue)
    both = exchange(issue, lease)
    assert both.run([], [(id,) for id in ids[:3]]) == ([], [(id, 1) for id in ids[:3]])
    booked, marked = both.run([(id, 1, "250 ok", "") for id in ids[:3]], [(ids[3],)])
    assert (sorted(booked), marked) == ([(id,) for id in ids[:3]], [(ids[3], 1)])
    assert both.run([(ids[3], 1, "250 ok", "")], []) == ([(ids[3],)], [])
    told = figures(issue)
    assert told == EmailDelivery.objects.of(issue.pk).count_by_status()
    assert told["sent"] == 4 and told["pending"] == 4


def test_what_is_not_won_is_neither_said_nor_told(issue: Issue) -> None:
    lease, ids = leased(issue)
    both = exchange(issue, lease)
    both.run([], [(id,) for id in ids[:3]])
    EmailDelivery.objects.get(pk=ids[4]).subscription.unsubscribe(reason="test", actor="test")  # type: ignore[union-attr]
    booked, marked = both.run(
        [(ids[0], 1, "", ""), (ids[1], 2, "", "")], [(ids[2],), (ids[4],), (ids[5],)]
    )
    assert (booked, marked) == ([(ids[0],)], [(ids[5], 1)])
    told = figures(issue)
    assert told == EmailDelivery.objects.of(issue.pk).count_by_status()
    assert (told["sent"], told["sending"], told["pending"]) == (1, 3, 4)
    lease.release()
    assert both.run([(ids[2], 1, "", "")], [(ids[6],)]) == ([(ids[2],)], [])


# --- the tally


def figures(issue: Issue) -> dict[str, int] | None:
    return LedgerTally.objects.figures(issue.pk)


def test_the_freeze_begins_it(issue: Issue) -> None:
    told = figures(issue)
    assert told and told["pending"] == issue.audience == 8 and sum(told.values()) == 8


def test_every_move_is_in_it(issue: Issue) -> None:
    lease, ids = leased(issue)
    run(prepared_start(issue.pk, lease), [(id,) for id in ids[:4]])
    run(prepared_accept(issue.pk), [(id, 1, "", "") for id in ids[:2]])
    move(moves.LOSE, EmailDelivery.objects.filter(pk=ids[2]))  # the lease lives: not won
    lease.release()
    move(moves.LOSE, EmailDelivery.objects.filter(pk=ids[2]))
    move(moves.PROVE_FAILED, EmailDelivery.objects.filter(pk=ids[2]))
    told = figures(issue)
    assert told == EmailDelivery.objects.of(issue.pk).count_by_status()
    assert told == {
        "pending": 4,
        "sending": 1,
        "sent": 2,
        "failed": 1,
        "unknown": 0,
        "skipped": 0,
    }


def test_what_is_rolled_back_is_not_in_it(issue: Issue) -> None:
    class Cut(Exception):
        pass

    with pytest.raises(Cut), transaction.atomic():
        move(moves.EXPIRE, EmailDelivery.objects.of(issue.pk), facts={"before": issue.created_at})
        Issue.objects.filter(pk=issue.pk).update(state="cancelled")
        assert move(moves.SKIP_CANCELLED, EmailDelivery.objects.of(issue.pk))
        raise Cut
    assert figures(issue) == EmailDelivery.objects.of(issue.pk).count_by_status()


def test_a_ledger_that_the_freeze_did_not_begin_has_none() -> None:
    other = cast.approved(cast.newsletter(slug="monthly"), slug="old")
    assert figures(other) is None
    assert LedgerTally.objects.figures_of([other.pk]) == {}
