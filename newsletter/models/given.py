"""UPDATE ... FROM rows that the caller gives ... RETURNING: written by the ORM once, run for each group of rows.

The ORM takes 2 ms of CPU to write a statement with the ledger's conditions; on PostgreSQL parsing and planning it take
another. These are compiled once, and prepared there. For that a session must be ours: a pool between (PgBouncer) has to
be in session mode.
"""

from __future__ import annotations

import json
import select
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Expression, Field, QuerySet
from django.db.models.sql.subqueries import UpdateQuery
from psycopg.abc import PQGen
from psycopg.waiting import Wait

Row = tuple[Any, ...]

_OVER = object()
_TYPES = {"BigIntegerField": "bigint", "CharField": "text"}
# What each session has prepared: name -> text and parameters. It outlives transactions, and ends with the session.
_prepared: WeakKeyDictionary[psycopg.Connection[Any], dict[str, Any]] = WeakKeyDictionary()


class Given(Expression):
    """A column of the given rows, by its name; `like` is a field of its kind: BigIntegerField or CharField."""

    def __init__(self, name: str, like: Field[Any, Any]) -> None:
        super().__init__(output_field=like)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[str | int, ...]]:
        return f"given.given_{self.name}", ()


class Statement(NamedTuple):
    sql: str
    params: Sequence[Any]


class GivenUpdate:
    """An UPDATE of the rows of one table for which `rows`, a queryset with conditions on `given`, holds.

    `statement` takes the given rows, a tuple for each, in the order of `given`; it returns `fields` of those that it
    won. `name` is of what PostgreSQL prepares: another update of that name takes its place.
    """

    def __init__(
        self,
        name: str,
        rows: QuerySet[Any],
        given: Sequence[Given],
        fields: Sequence[str] = ("id",),
        **values: Any,
    ) -> None:
        self.name, self.given = name, given
        query: UpdateQuery = rows.query.chain(UpdateQuery)  # type: ignore[assignment]
        query.add_update_values(values)
        query.clear_ordering(force=True)
        try:
            sql, self.params = query.get_compiler(rows.db).as_sql()
        except EmptyResultSet:
            self._parts = None
            return
        head, where = sql.split(" WHERE ", 1)
        self._before = head.count("%s")
        meta, quote = rows.model._meta, connection.ops.quote_name
        columns = (
            f"{quote(meta.db_table)}.{quote(meta.get_field(name).column)}" for name in fields
        )
        self._parts = head, f"WHERE {where} RETURNING {', '.join(columns)}"
        self._sql = self.sql()

    def statement(self, rows: Sequence[Row]) -> Statement | None:
        """None: nothing can be won."""
        if not rows or not self._parts:
            return None
        if connection.vendor == "postgresql":
            return _execute(self.name, self._sql, self.params, [(self.given, rows)])
        before, after = self.params[: self._before], self.params[self._before :]
        return Statement(self._sql, [*before, json.dumps(rows), *after])

    def sql(self, first: int = 1) -> str:
        """The text; on PostgreSQL the arrays of the given columns are its parameters from `$first` on."""
        assert self._parts, "nothing can be won"
        head, tail = self._parts
        return f"{head} FROM {self._source(first)} {tail}"

    def _source(self, first: int) -> str:
        names = [f"given_{column.name}" for column in self.given]
        if connection.vendor == "postgresql":
            arrays = (f"${at}" for at, _ in enumerate(self.given, first))
            return f"unnest({', '.join(arrays)}) AS given({', '.join(names)})"
        picked = (f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(names))
        return f"(SELECT {', '.join(picked)} FROM json_each(%s)) AS given"  # noqa: S608


class GivenUpdates:
    """Several updates as one statement of PostgreSQL's: each is a table there by its name, of what it returns.

    `also` and `last` may read them; `last` is what `statement` returns. None of them sees what another changes.
    """

    def __init__(
        self, name: str, updates: Mapping[str, GivenUpdate], also: Statement, last: str
    ) -> None:
        self._name, self._updates = name, list(updates.values())
        first, tables = 1, []
        for table, update in updates.items():
            tables.append(f"{table} AS ({update.sql(first)})")
            first += len(update.given)
        self._sql = f"WITH {', '.join(tables)}, also AS ({also.sql}) {last}"
        self._params = [param for update in self._updates for param in update.params]
        self._params += also.params

    def statement(self, rows: Sequence[Sequence[Row]]) -> Statement:
        """The rows that each of the updates is given."""
        given = [(update.given, its) for update, its in zip(self._updates, rows, strict=True)]
        return _execute(self._name, self._sql, self._params, given)


def _execute(
    name: str,
    sql: str,
    params: Sequence[Any],
    given: Sequence[tuple[Sequence[Given], Sequence[Row]]],
) -> Statement:
    """What runs the prepared statement with one array for each given column; prepares it, where the session has not."""
    columns = [column for columns, _ in given for column in columns]
    arrays: list[list[Any]] = []
    for its, rows in given:
        arrays += [list(column) for column in zip(*rows, strict=True)] or [[] for _ in its]
    _prepare(name, sql, params, columns)
    types = (_TYPES[column.output_field.get_internal_type()] for column in columns)
    marks = ", ".join(f"%s::{kind}[]" for kind in types)
    return Statement(f"EXECUTE {name}({marks})", arrays)


def _prepare(name: str, sql: str, params: Sequence[Any], columns: Sequence[Given]) -> None:
    connection.ensure_connection()
    known = _prepared.setdefault(connection.connection, {})
    wanted = (sql, tuple(params))
    if known.get(name) == wanted:
        return
    if not known:
        # Plans for the very values took longer to make than to run, and were no better.
        with _client_cursor() as cursor:
            cursor.execute("SET plan_cache_mode = force_generic_plan")
    types = (f"{_TYPES[column.output_field.get_internal_type()]}[]" for column in columns)
    with _client_cursor() as cursor:
        if known.pop(name, None):
            cursor.execute(f"DEALLOCATE {name}")
        cursor.execute(f"PREPARE {name}({', '.join(types)}) AS {sql}", params)
    known[name] = wanted


def run_together(
    statements: Sequence[Statement | None], meanwhile: Iterable[object] = ()
) -> list[list[Row]]:
    """What each of them returns, in their order; on PostgreSQL they make one round trip.

    Each sees what was committed before it began, and waits for its own locks. While PostgreSQL works, `meanwhile` is
    gone through, as far as it comes; its steps must not fail, nor use the database.
    """
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            return [_rows(cursor, statement) for statement in statements]
    asked = [statement for statement in statements if statement]
    if not asked:
        return [[] for _ in statements]
    with _client_cursor() as cursor:
        text = "; ".join(statement.sql for statement in asked)
        with _used_wait(connection.connection, meanwhile):
            cursor.execute(text, [param for statement in asked for param in statement.params])
        answers = iter(_answers(cursor))
        return [next(answers) if statement else [] for statement in statements]


@contextmanager
def _used_wait(raw: psycopg.Connection[Any], meanwhile: Iterable[object]) -> Iterator[None]:
    """`meanwhile` is gone through where psycopg would wait. It leaves to others how its generators are waited for."""
    wait = raw.wait

    def use(asking: PQGen[Any], *args: Any, **options: Any) -> Any:
        return wait(_Between(asking, steps, raw.fileno()), *args, **options)  # type: ignore[arg-type]

    steps = iter(meanwhile)
    raw.wait = use  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del raw.wait


class _Between:
    """The same generator, and steps between its last byte out and the first one in.

    No generator itself: one that a signal breaks off in a step is over, and psycopg has to read the rest of the answer.
    """

    def __init__(self, asking: PQGen[Any], steps: Iterator[object], fileno: int) -> None:
        self._asking, self._steps = asking, steps
        self._answered = select.poll()
        self._answered.register(fileno, select.POLLIN)

    def __iter__(self) -> _Between:
        return self

    def __next__(self) -> Wait:
        return self.send(None)

    def send(self, ready: Any) -> Wait:
        waits_for = self._asking.send(ready)
        if waits_for == Wait.R:
            while not self._answered.poll(0):
                if next(self._steps, _OVER) is _OVER:
                    break
        return waits_for


def _rows(cursor: CursorWrapper, statement: Statement | None) -> list[Row]:
    if statement is None:
        return []
    cursor.execute(*statement)
    return list(cursor.fetchall())


def _answers(cursor: CursorWrapper) -> list[list[Row]]:
    found = [list(cursor.fetchall())]
    while cursor.nextset():
        found.append(list(cursor.fetchall()))
    return found


def _client_cursor() -> CursorWrapper:
    """One that writes parameters into the text: only so several statements go together."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        raw: Any = psycopg.ClientCursor(connection.connection)
        return connection.make_cursor(raw)
