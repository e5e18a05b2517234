"""Subscribers from CSV: the good rows get in, each bad one is told with its line."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.management import call_command
from django.db import connection

from newsletter import csv_rows, importing
from newsletter.importing import ImportRefused, Report, import_subscribers
from newsletter.models import (
    Newsletter,
    Subscriber,
    Subscription,
    Suppression,
    address_key,
)
from tests import cast
from tests.house import House, a_house

pytestmark = pytest.mark.django_db


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


class Told(Report):
    """A report with all that was told on the way: (line, what is wrong)."""

    told: list[tuple[int, str]]


def load(data: str | bytes, newsletter: Newsletter) -> Told:
    raw = data.encode() if isinstance(data, str) else data
    told: list[tuple[int, str]] = []
    report = import_subscribers(
        io.BytesIO(raw),
        newsletter,
        source="import of readers.csv",
        tell=lambda line, why: told.append((line, why)),
    )
    assert report.problems == len(told)
    assert report.rows == report.added + report.already + report.problems
    found = Told(**vars(report))
    found.told = told
    return found


def test_a_quoted_header_is_read_as_csv() -> None:
    weekly = cast.newsletter()
    data = '"Name, full",email,assistant\n"Foo",foo@example.org,other@example.org\n'
    assert load(data, weekly).added == 1
    assert Subscription.objects.get().subscriber.address == "foo@example.org"


def test_two_columns_named_email_are_refused() -> None:
    with pytest.raises(ImportRefused, match="Two columns"):
        load("email,email\na@example.org,b@example.org\n", cast.newsletter())


def addresses() -> set[str]:
    found = Subscription.objects.filter(state="confirmed")
    return set(found.values_list("subscriber__address", flat=True))


def lines(report: Told) -> list[int]:
    return [line for line, _ in report.told]


def only_problem(report: Told) -> tuple[int, str]:
    assert len(report.told) == 1, report.told
    return report.told[0]


def names() -> dict[str, str]:
    return dict(Subscriber.objects.values_list("address", "name"))


def rows_of(people: Iterable[str]) -> str:
    return "email\n" + "".join(f"{person}\n" for person in people)


def test_it_confirms_with_the_import_as_the_consents_source(weekly: Newsletter) -> None:
    report = load("email,name\nbob@example.org,Bob\ncarla@example.org,Carla\n", weekly)
    assert (report.rows, report.added, report.already, report.told) == (2, 2, 0, [])
    row = Subscription.objects.get(subscriber__address="bob@example.org")
    assert (row.state, row.consent_source) == ("confirmed", "import of readers.csv")
    assert row.consent_at is not None
    assert row.subscriber.name == "Bob"


def test_a_second_import_changes_nothing(weekly: Newsletter) -> None:
    load("email\nbob@example.org\n", weekly)
    token = Subscription.objects.get().token
    report = load("email\nBOB@example.org\n", weekly)
    assert (report.added, report.already, report.told) == (0, 1, [])
    assert Subscription.objects.get().token == token


def test_each_reader_has_a_token_of_their_own(weekly: Newsletter) -> None:
    load(rows_of(f"r{n}@example.org" for n in range(50)), weekly)
    assert len(set(Subscription.objects.values_list("token", flat=True))) == 50


def test_a_reader_of_two_newsletters_is_one_subscriber(weekly: Newsletter) -> None:
    load("email\nbob@example.org\n", weekly)
    report = load("email\nbob@example.org\n", cast.newsletter(slug="monthly"))
    assert report.added == 1
    assert (Subscriber.objects.count(), Subscription.objects.count()) == (1, 2)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_it_knows_the_usual_delimiters(weekly: Newsletter, delimiter: str) -> None:
    report = load(f"name{delimiter}email\nBob{delimiter}bob@example.org\n", weekly)
    assert (report.added, report.told) == (1, [])
    assert names() == {"bob@example.org": "Bob"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_it_knows_the_usual_line_ends(weekly: Newsletter, end: str) -> None:
    rows = ["name,email", "Bob,bob@example.org", "x,nobody", ",carla@example.org"]
    report = load(end.join(rows), weekly)
    assert (report.added, lines(report)) == (2, [3])


def test_it_takes_a_byte_order_mark(weekly: Newsletter) -> None:
    report = load("\ufeffemail,name\nbob@example.org,Bob\n", weekly)
    assert (report.added, report.told) == (1, [])


def test_a_header_in_quotes_and_capitals_is_one(weekly: Newsletter) -> None:
    report = load('"Name" , "E-mail", "EMAIL"\nBob, x, bob@example.org\n', weekly)
    assert (report.added, report.told) == (1, [])


def test_empty_lines_are_no_rows_and_are_counted_as_lines(weekly: Newsletter) -> None:
    report = load("\n\nemail\n\nbob@example.org\n\n,,\nnonsense\n", weekly)
    assert (report.rows, report.added, lines(report)) == (2, 1, [8])


def test_further_columns_and_short_rows_do_no_harm(weekly: Newsletter) -> None:
    report = load("id,email,name\n1,bob@example.org\n2,carla@example.org,Carla,x,y\n", weekly)
    assert (report.added, report.told) == (2, [])


def test_a_row_without_its_address_is_told(weekly: Newsletter) -> None:
    report = load("id,email\n1\n2,bob@example.org\n", weekly)
    assert (report.added, lines(report)) == (1, [2])


def test_an_address_that_is_none_is_told_with_its_line(weekly: Newsletter) -> None:
    report = load("email\nbob@example.org\nnobody\ncarla@example.org\n", weekly)
    line, why = only_problem(report)
    assert (line, report.added) == (3, 2)
    assert "is not an address" in why


def test_the_second_of_two_equal_addresses_is_told(weekly: Newsletter) -> None:
    report = load("email\nbob@example.org\ncarla@example.org\nBob@EXAMPLE.org\n", weekly)
    assert only_problem(report) == (4, "is the same address as line 2")
    assert report.added == 2


def test_equal_addresses_in_different_batches_are_found(weekly: Newsletter) -> None:
    people = [f"r{n}@example.org" for n in range(1500)]
    report = load(rows_of([*people, people[0]]), weekly)
    assert only_problem(report) == (1502, "is the same address as line 2")
    assert report.added == 1500


def test_who_unsubscribed_is_not_subscribed_again(weekly: Newsletter) -> None:
    (bob,) = cast.readers(weekly, 1)
    bob.unsubscribe(actor="reader", reason="his wish")
    report = load("email\nbob@example.org\ncarla@example.org\n", weekly)
    assert only_problem(report)[0] == 2
    assert "unsubscribed" in only_problem(report)[1]
    assert addresses() == {"carla@example.org"}


def test_who_is_still_pending_is_not_confirmed_by_an_import(weekly: Newsletter) -> None:
    cast.readers(weekly, 1)
    Subscription.objects.update(state="pending")
    assert "pending" in only_problem(load("email\nbob@example.org\n", weekly))[1]
    assert addresses() == set()


def test_who_is_suppressed_does_not_get_in(weekly: Newsletter) -> None:
    Suppression.objects.create(address_key=address_key("bob@example.org"), reason="complaint")
    report = load("email\nBob@example.org\ncarla@example.org\n", weekly)
    assert only_problem(report)[0] == 2
    assert "suppressed" in only_problem(report)[1]
    assert addresses() == {"carla@example.org"}


def test_a_name_in_quotes_may_hold_what_divides(weekly: Newsletter) -> None:
    report = load('email,name\nbob@example.org,"Bob ""the Builder"", Jr."\n', weekly)
    assert report.told == []
    assert names() == {"bob@example.org": 'Bob "the Builder", Jr.'}


def test_a_name_over_two_lines_becomes_one_and_the_lines_stay_right(weekly: Newsletter) -> None:
    report = load('email,name\nbob@example.org,"Bob\nSilva"\nnobody,x\n', weekly)
    assert names() == {"bob@example.org": "Bob Silva"}
    assert lines(report) == [4]


def test_a_quote_that_is_never_closed_costs_its_row_and_no_other(weekly: Newsletter) -> None:
    text = 'email,name\nbob@example.org,"Bob\ncarla@example.org,Carla\ndavi@example.org,Davi\n'
    report = load(text, weekly)
    assert addresses() == {"carla@example.org", "davi@example.org"}
    assert only_problem(report) == (2, "cannot be read: a quotation mark is not closed")


def test_a_quote_that_a_later_one_closes_swallows_nobody(weekly: Newsletter) -> None:
    text = 'email,name\nbob@example.org,"Bob\ncarla@example.org,"Carla"\ndavi@example.org,Davi\n'
    report = load(text, weekly)
    assert addresses() == {"carla@example.org", "davi@example.org"}
    assert lines(report) == [2]


def test_a_quote_on_the_last_line_that_is_never_closed_is_told(weekly: Newsletter) -> None:
    report = load('email,name\nbob@example.org,Bob\ncarla@example.org,"Carla', weekly)
    assert (addresses(), lines(report)) == ({"bob@example.org"}, [3])


def test_a_quote_in_the_middle_of_a_name_is_a_letter(weekly: Newsletter) -> None:
    report = load('email,name\nbob@example.org,Bob "the" Builder\n', weekly)
    assert report.told == []
    assert names() == {"bob@example.org": 'Bob "the" Builder'}


def test_control_characters_leave_a_name(weekly: Newsletter) -> None:
    load("email,name\nbob@example.org,Bo\x00b\x1b[31m\u2028S\n", weekly)
    assert names() == {"bob@example.org": "Bo b [31m S"}


def test_a_name_that_is_too_long_is_cut(weekly: Newsletter) -> None:
    load(f"email,name\nbob@example.org,{'b' * 500}\n", weekly)
    assert names() == {"bob@example.org": "b" * 200}


def test_a_cell_that_is_too_large_costs_its_row_only(weekly: Newsletter) -> None:
    big = "x" * 200_000
    report = load(f"email,name\nbob@example.org,{big}\ncarla@example.org,Carla\n", weekly)
    assert "carla@example.org" in addresses()
    assert lines(report) == [2]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_refused(weekly: Newsletter, data: bytes) -> None:
    with pytest.raises(ImportRefused, match="email"):
        load(data, weekly)


def test_a_file_without_the_column_is_refused_and_says_what_it_has(weekly: Newsletter) -> None:
    with pytest.raises(ImportRefused, match=r"no column `email`.*address, name"):
        load("Address;Name\nbob@example.org;Bob\n", weekly)


def test_a_file_of_only_a_header_adds_nobody(weekly: Newsletter) -> None:
    report = load("email,name\n", weekly)
    assert (report.rows, report.added, report.told) == (0, 0, [])


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(weekly: Newsletter) -> None:
    with pytest.raises(ImportRefused, match=r"Line 3 is not UTF-8.*CSV UTF-8"):
        load(
            "email,name\nbob@example.org,Bob\ncarla@example.org,Cármen\n".encode("latin-1"), weekly
        )
    assert addresses() == set()


def test_a_file_in_utf_16_is_refused(weekly: Newsletter) -> None:
    with pytest.raises(ImportRefused, match="UTF-8"):
        load("email\nbob@example.org\n".encode("utf-16"), weekly)


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_add_each_reader_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 300)
    weekly = cast.newsletter()
    data = rows_of(f"r{n}@example.org" for n in range(1500)).encode()
    # Known already: their rows would make the second import wait for the first, and hide the race.
    import_subscribers(io.BytesIO(data), cast.newsletter(slug="monthly"), source="before")
    start = threading.Barrier(2)
    reports: list[Report] = []

    def load_too() -> None:
        try:
            start.wait(10)
            reports.append(import_subscribers(io.BytesIO(data), weekly, source="one of two"))
        finally:
            connection.close()

    threads = [threading.Thread(target=load_too) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [report.problems for report in reports] == [0, 0]
    assert sum(report.added for report in reports) == 1500
    assert sum(report.already for report in reports) == 1500
    assert Subscription.objects.filter(newsletter=weekly).count() == 1500


@pytest.mark.django_db(transaction=True)
def test_imports_of_the_same_people_for_two_newsletters_do_not_wait_for_ever() -> None:
    people = [f"r{n}@example.org" for n in range(2000)]
    files = [rows_of(people).encode(), rows_of(reversed(people)).encode()]
    newsletters = [cast.newsletter(), cast.newsletter(slug="monthly")]
    start = threading.Barrier(2)
    added: list[int] = []

    def load_too(data: bytes, newsletter: Newsletter) -> None:
        try:
            start.wait(10)
            added.append(import_subscribers(io.BytesIO(data), newsletter, source="x").added)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=load_too, args=both)
        for both in zip(files, newsletters, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (added, Subscriber.objects.count()) == ([2000, 2000], 2000)


@pytest.mark.django_db(transaction=True)
def test_somebody_unsubscribes_between_two_batches(
    weekly: Newsletter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 10)
    (bob,) = cast.readers(weekly, 1)
    gone: list[bool] = []

    def leave() -> None:
        try:
            gone.append(bob.unsubscribe(actor="reader", reason="his wish"))
        finally:
            connection.close()

    def progress(what: str, rows: int) -> None:
        if (what, rows) == ("done", 10):
            thread = threading.Thread(target=leave)
            thread.start()
            thread.join(20)

    data = rows_of(f"r{n}@example.org" for n in range(50)).encode()
    report = import_subscribers(io.BytesIO(data), weekly, source="x", progress=progress)
    assert (gone, report.added) == ([True], 50)


@pytest.mark.django_db(transaction=True)
def test_a_file_is_read_without_the_write_lock(weekly: Newsletter) -> None:
    other: list[int] = []

    def write() -> None:
        try:
            other.append(Newsletter.objects.filter(pk=weekly.pk).update(name="Renamed"))
        finally:
            connection.close()

    def progress(what: str, rows: int) -> None:
        if what == "read":
            thread = threading.Thread(target=write)
            thread.start()
            thread.join(20)

    data = rows_of(f"r{n}@example.org" for n in range(importing.TOLD_EVERY)).encode()
    import_subscribers(io.BytesIO(data), weekly, source="x", progress=progress)
    assert other == [1]


@pytest.mark.parametrize(
    "state",
    [
        *("pending", "unsubscribed", "Suppressed", " UNSUBSCRIBED"),  # ours
        *(
            "cleaned",
            "Non-Subscribed",
            "opted_out",
            "Hard Bounced",
            "Opted\u2011out.",
        ),  # other tools'
    ],
)
def test_who_is_no_reader_in_an_export_does_not_become_one(weekly: Newsletter, state: str) -> None:
    report = load(f"email,state\nbob@example.org,{state}\ncarla@example.org,CA\n", weekly)
    assert only_problem(report) == (2, f"is {state.strip()} in the file: it was not taken")
    assert addresses() == {"carla@example.org"}


def test_a_disk_that_fails_in_mid_file_adds_nobody(weekly: Newsletter) -> None:
    class Failing(io.RawIOBase):
        parts: ClassVar = [b"email\nbob@example.org\n"]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not self.parts:
                raise OSError(errno.EIO, "Input/output error")
            part = self.parts.pop()
            buffer[: len(part)] = part
            return len(part)

    file: Any = io.BufferedReader(Failing(), 8)
    with pytest.raises(ImportRefused, match=r"cannot be read after line 2: Input/output error\."):
        import_subscribers(file, weekly, source="x")
    assert not addresses()


def test_a_file_s_name_need_not_be_utf_8(weekly: Newsletter, tmp_path: Path) -> None:
    path = os.fsdecode(bytes(tmp_path / "") + b"/r\xe9aders.csv")
    Path(path).write_text("email\nbob@example.org\n")
    call_command("import_subscribers", path, newsletter=weekly.slug)
    assert Subscription.objects.get().consent_source == "import of r?aders.csv"


def test_a_line_without_end_is_not_held_in_memory(
    weekly: Newsletter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "LONGEST_LINE", 1000)
    text = "email,name\nbob@example.org," + "x" * 5000 + "\ncarla@example.org,Carla\nnobody,x\n"
    report = load(text, weekly)
    assert report.told[0] == (2, "cannot be read: the line is too long")
    assert (lines(report), addresses()) == ([2, 4], {"carla@example.org"})


def test_a_second_quoted_row_within_the_look_ahead_is_read_too(weekly: Newsletter) -> None:
    text = (
        "email,name\n" + "".join(f'r{n}@example.org,"R\n{n}"\n' for n in range(20)) + "nobody,x\n"
    )
    report = load(text, weekly)
    assert (report.added, lines(report)) == (20, [42])


def test_nothing_of_an_import_stays_behind(weekly: Newsletter) -> None:
    load("email\nbob@example.org\n", weekly)
    assert load("email\ncarla@example.org\n", weekly).added == 1
    names = {"sqlite": "sqlite_temp_master", "postgresql": "pg_class"}[connection.vendor]
    column = {"sqlite": "name", "postgresql": "relname"}[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {names} WHERE {column} LIKE 'import_s%%'", [])
        assert cursor.fetchone() == (0,)


class Endless(io.RawIOBase):
    """A file of so many rows that no memory should hold it: made as it is read."""

    def __init__(self, rows: Iterator[bytes]) -> None:
        self.rows = rows
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self.rest) < len(buffer) and (row := next(self.rows, b"")):
            self.rest += row
        taken = self.rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self.rest = self.rest[len(taken) :]
        return len(taken)


def test_a_file_of_bad_lines_takes_no_memory_and_no_query_for_each(weekly: Newsletter) -> None:
    def rows() -> Iterator[bytes]:
        yield b"email,name\n"
        yield b"bob@example.org,Bob\n"
        yield from (b"nobody at all, %d,\n" % n for n in range(20_000))

    statements: list[str] = []

    def count(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return execute(sql, *rest)

    file = io.BufferedReader(Endless(rows()))
    tracemalloc.start()
    with connection.execute_wrapper(count):
        report = import_subscribers(file, weekly, source="bad")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.added, report.problems) == (1, 20_000)
    assert peak < 2_000_000
    assert len(statements) < 30


def test_twenty_thousand_rows_take_bounded_queries_and_memory(weekly: Newsletter) -> None:
    def rows() -> Iterator[bytes]:
        yield b"email,name\n"
        yield from (b"reader%d@example.org,Reader %d\n" % (n, n) for n in range(20_000))

    seen: list[tuple[str, int]] = []
    statements: list[str] = []

    def count(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        statements.append(sql[:20])
        return execute(sql, *rest)

    tracemalloc.start()
    with connection.execute_wrapper(count):
        report = import_subscribers(
            io.BufferedReader(Endless(rows())),
            weekly,
            source="big",
            progress=lambda what, n: seen.append((what, n)),
        )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.rows, report.added) == (20_000, 20_000)
    assert Subscription.objects.count() == 20_000
    assert peak < 4_000_000
    assert len(statements) <= 20 + 8 * 8 + 20  # staged by the thousand; eight batches
    assert seen[:4] == [("read", n) for n in (5000, 10_000, 15_000, 20_000)]
    assert seen[-1] == ("done", 20_000)
    # The foreign keys are checked at the end, and PostgreSQL keeps the plan of that from when the table was tiny: two
    # minutes of sequential scans, once, where another test had come before.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE newsletter_subscriber")


# Killed in the middle.

SLOW = """
import sys, time
import django
django.setup()
from newsletter import importing
from newsletter.models import Newsletter
importing.BATCH = 50
def progress(what, rows):
    if (what, rows) == ("done", 150):
        print("adding", flush=True)
        time.sleep(60)
with open(sys.argv[1], "rb") as file:
    importing.import_subscribers(
        file, Newsletter.objects.get(slug="weekly"), source="first", progress=progress)
"""


def killed_in_the_middle(house: House, file: str) -> None:
    process = house.python(SLOW, file)
    assert process.stdout is not None
    assert process.stdout.readline() == "adding\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_an_import_that_was_killed_is_finished_by_another() -> None:
    with a_house() as house:
        file = house.folder / "more.csv"
        file.write_text(rows_of(f"more{n}@example.org" for n in range(400)))
        killed_in_the_middle(house, str(file))
        done: subprocess.CompletedProcess[str] = house.manage(
            "import_subscribers", str(file), "--newsletter", "weekly"
        )
        assert "400 rows: 250 added, 150 were subscribed already, 0 with a problem." in done.stdout
        again = house.manage("import_subscribers", str(file), "--newsletter", "weekly")
        assert "0 added, 400 were subscribed already, 0 with a problem." in again.stdout
