"""UPDATE ... RETURNING, which Django's ORM has not, on both databases."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import QuerySet
from django.db.models.sql.subqueries import UpdateQuery


def update_returning(
    rows: QuerySet[Any], fields: tuple[str, ...] = ("id",), **values: Any
) -> list[tuple[Any, ...]]:
    """Update the rows that match, and say which ones were won: a tuple of `fields` for each.

    The columns come back as the driver gives them (times are text on SQLite).
    """
    query: UpdateQuery = rows.query.chain(UpdateQuery)  # type: ignore[assignment]
    query.add_update_values(values)
    query.clear_ordering(force=True)
    connection = connections[rows.db]
    try:
        sql, params = query.get_compiler(rows.db).as_sql()
    except EmptyResultSet:
        return []
    columns = ", ".join(
        connection.ops.quote_name(rows.model._meta.get_field(name).column) for name in fields
    )
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {columns}", params)
        return list(cursor.fetchall())
