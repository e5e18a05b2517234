"""Lists of a million rows: a page begins where another one ended, by the rows' ids; nothing is counted or skipped."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db import connection
from django.db.models import BooleanField, F, Func, Model, QuerySet, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.db.models.lookups import (
    Exact,
    GreaterThan,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
)
from django.http import HttpRequest

from newsletter.models import Subscriber

CURSOR = re.compile(r"(before|after)-([0-9]{1,18})")
OLDEST = "oldest"
READERS = 100  # that a search by the beginning of an address goes through


Chosen = list[tuple[str, str | int]]  # columns and their values, as an index begins


class Row(Func):
    """PostgreSQL compares (a, b) with (x, y) along an index of both."""

    template = "ROW(%(expressions)s)"
    output_field = BooleanField()  # any: it is only compared


class ColumnFilter(admin.SimpleListFilter):
    """By one column, which an index begins with that ends with the id. The list puts it into its query."""

    column: str

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """As it is, or nothing, where the address asks for a value that there is not."""
        return queryset.none() if self.value() and self.chosen() is None else queryset

    def chosen(self) -> str | int | None:
        """The column's value; None for any."""
        known = dict(self.lookup_choices)
        return self.value() if self.value() in known else None


class KeysetChangeList(ChangeList):
    """Newest first. `?p=before-ID` is older than that row, `?p=after-ID` newer, `?p=oldest` the end; anything else,
    and a cursor beyond the end, is the newest page. Page 40,000 costs as much as the first."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str | Combinable]:
        """By id whatever the address says: no index serves another order."""
        return ["-pk"]

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet:
        """With the columns' filters. What a search found is few rows: no index but its own, and a sort."""
        rows = super().get_queryset(request, exclude_parameters)
        self.chosen = self._chosen()
        if self.query:
            same = [Exact(Coalesce(F(column), F(column)), value) for column, value in self.chosen]
            return rows.filter(*same).order_by((F("pk") + 0).desc())
        return along(rows, self.chosen)

    def _chosen(self) -> Chosen:
        specs = [spec for spec in self.filter_specs if isinstance(spec, ColumnFilter)]
        found = [(spec.column, spec.chosen()) for spec in specs]
        return [(name, value) for name, value in found if value is not None]

    def _by_rows(self) -> bool:
        return connection.vendor == "postgresql" and bool(self.chosen) and not self.query

    def _beyond(self, way: str, id: int) -> QuerySet:
        """The rows before (older) or after that one, in the list's order."""
        rows: QuerySet = self.queryset
        if self._by_rows():
            compare = LessThan if way == "before" else GreaterThan
            return rows.filter(compare(*_row([*self.chosen, ("pk", id)])))
        return rows.filter(**{"pk__lt" if way == "before" else "pk__gt": id})

    def get_results(self, request: HttpRequest) -> None:
        cursor = request.GET.get(PAGE_VAR, "")
        rows, newer, older = self._page(cursor) or self._newest()
        self.result_list = rows
        self.result_count = self.full_result_count = len(rows)  # of this page: the form's "of 50"
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all, self.multi_page = False, newer or older
        first, last = (rows[0].pk, rows[-1].pk) if rows else (0, 0)
        self.newest_url, self.newer_url = self._to("") if newer else "", ""
        self.oldest_url, self.older_url = self._to(OLDEST) if older else "", ""
        if newer:
            self.newer_url = self._to(f"after-{first}")
        if older:
            self.older_url = self._to(f"before-{last}")
        self.place = self._in_words(newer, older, first, last)

    def _page(self, cursor: str) -> tuple[list[Any], bool, bool] | None:
        """(rows, is there a newer one, an older one); None where the cursor leads nowhere."""
        number, rows = self.list_per_page, self.queryset
        if cursor == OLDEST:
            found = list(rows.reverse()[: number + 1])
            return found[:number][::-1], len(found) > number, False
        match = CURSOR.fullmatch(cursor)
        if match is None:
            return None
        beyond = self._beyond(match[1], int(match[2]))
        if match[1] == "before":
            found = list(beyond[: number + 1])
            return (found[:number], True, len(found) > number) if found else None
        found = list(beyond.reverse()[: number + 1])
        # Fewer than a page are newer: the newest page itself, and full.
        return (found[:number][::-1], True, True) if len(found) > number else None

    def _newest(self) -> tuple[list[Any], bool, bool]:
        found = list(self.queryset[: self.list_per_page + 1])
        return found[: self.list_per_page], False, len(found) > self.list_per_page

    def _to(self, cursor: str) -> str:
        return self.get_query_string({PAGE_VAR: cursor} if cursor else {})

    def _in_words(self, newer: bool, older: bool, first: int, last: int) -> str:
        number = self.result_count
        name = self.opts.verbose_name if number == 1 else self.opts.verbose_name_plural
        if not newer and not older:
            return f"{number} {name}"
        which = "" if newer and older else "the oldest " if newer else "the newest "
        return f"{which}{number} {name}, ids {first} to {last}".capitalize()


def along(rows: QuerySet, chosen: Chosen) -> QuerySet:
    """Those with these values, the newest first, along the index that begins with the columns and ends with the id.

    An equality leaves PostgreSQL two ways, and it takes the primary key wherever it believes that the value is
    frequent: the newest 1,000,000 rows may have another one. Rows compared leave it one.
    """
    if connection.vendor != "postgresql" or not chosen:
        return rows.filter(**dict(chosen)).order_by("-pk")
    columns, values = _row(chosen)
    between = GreaterThanOrEqual(columns, values), LessThanOrEqual(columns, values)
    return rows.filter(*between).order_by(*(f"-{name}" for name, _ in chosen), "-pk")


def _row(chosen: Chosen) -> tuple[Row, Row]:
    return Row(*(F(name) for name, _ in chosen)), Row(*(Value(value) for _, value in chosen))


class KeysetAdmin(admin.ModelAdmin):
    """A list in the order of its ids, with links to newer and older rows.

    An action reaches what is ticked on the page. A filter needs an index that ends with the id.
    """

    ordering = ["-id"]
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each would count
    list_per_page = 50
    change_list_template = "admin/delivery/keyset_list.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList


class BeginningOfAddress(admin.ModelAdmin):
    """Search by the beginning of an address, over the readers' index; their erased addresses are not found."""

    search_fields = ["address"]  # for the box; what is typed is looked up below
    search_help_text = f"The beginning of an address; it finds the first {READERS} readers"
    reader_path: ClassVar[str]  # from the list's model to the subscriber's id

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet[Model], bool]:
        typed = search_term.strip()
        if not typed:
            return queryset, False
        found = Subscriber.objects.beginning_with(typed).values_list("pk", flat=True)[:READERS]
        return queryset.filter(**{f"{self.reader_path}__in": list(found)}), False
