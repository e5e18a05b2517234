"""Subscribers from CSV: the good rows get in, each bad one is told with its line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.db import connection

from newsletter.importing import ImportRefused, Report, import_subscribers
from newsletter.models import (
    Newsletter,
    Subscriber,
    Subscription,
    Suppression,
    address_key,
)
from tests import cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


def load(data: str | bytes, newsletter: Newsletter) -> Report:
    raw = data.encode() if isinstance(data, str) else data
    return import_subscribers(raw, newsletter, source="import of readers.csv")


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


def lines(report: Report) -> list[int]:
    return [line for line, _ in report.problems]


def only_problem(report: Report) -> tuple[int, str]:
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def names() -> dict[str, str]:
    return dict(Subscriber.objects.values_list("address", "name"))


def rows_of(people: Iterable[str]) -> str:
    return "email\n" + "".join(f"{person}\n" for person in people)


def test_it_confirms_with_the_import_as_the_consents_source(weekly: Newsletter) -> None:
    report = load("email,name\nbob@example.org,Bob\ncarla@example.org,Carla\n", weekly)
    assert (report.rows, report.added, report.already, report.problems) == (2, 2, 0, [])
    row = Subscription.objects.get(subscriber__address="bob@example.org")
    assert (row.state, row.consent_source) == ("confirmed", "import of readers.csv")
    assert row.consent_at is not None
    assert row.subscriber.name == "Bob"


def test_a_second_import_changes_nothing(weekly: Newsletter) -> None:
    load("email\nbob@example.org\n", weekly)
    token = Subscription.objects.get().token
    report = load("email\nBOB@example.org\n", weekly)
    assert (report.added, report.already, report.problems) == (0, 1, [])
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
    assert (report.added, report.problems) == (1, [])
    assert names() == {"bob@example.org": "Bob"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_it_knows_the_usual_line_ends(weekly: Newsletter, end: str) -> None:
    rows = ["name,email", "Bob,bob@example.org", "x,nobody", ",carla@example.org"]
    report = load(end.join(rows), weekly)
    assert (report.added, lines(report)) == (2, [3])


def test_it_takes_a_byte_order_mark(weekly: Newsletter) -> None:
    report = load("\ufeffemail,name\nbob@example.org,Bob\n", weekly)
    assert (report.added, report.problems) == (1, [])


def test_a_header_in_quotes_and_capitals_is_one(weekly: Newsletter) -> None:
    report = load('"Name" , "E-mail", "EMAIL"\nBob, x, bob@example.org\n', weekly)
    assert (report.added, report.problems) == (1, [])


def test_empty_lines_are_no_rows_and_are_counted_as_lines(weekly: Newsletter) -> None:
    report = load("\n\nemail\n\nbob@example.org\n\n,,\nnonsense\n", weekly)
    assert (report.rows, report.added, lines(report)) == (2, 1, [8])


def test_further_columns_and_short_rows_do_no_harm(weekly: Newsletter) -> None:
    report = load("id,email,name\n1,bob@example.org\n2,carla@example.org,Carla,x,y\n", weekly)
    assert (report.added, report.problems) == (2, [])


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
    assert report.problems == []
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
    assert report.problems == []
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
    assert (report.rows, report.added, report.problems) == (0, 0, [])


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
def test_two_imports_at_once_add_each_reader_once() -> None:
    weekly = cast.newsletter()
    data = rows_of(f"r{n}@example.org" for n in range(1500)).encode()
    # Known already: their rows would make the second import wait for the first, and hide the race.
    import_subscribers(data, cast.newsletter(slug="monthly"), source="before")
    start = threading.Barrier(2)
    reports: list[Report] = []

    def load_too() -> None:
        try:
            start.wait(10)
            reports.append(import_subscribers(data, weekly, source="one of two"))
        finally:
            connection.close()

    threads = [threading.Thread(target=load_too) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [report.problems for report in reports] == [[], []]
    assert sum(report.added for report in reports) == 1500
    assert sum(report.already for report in reports) == 1500
    assert Subscription.objects.filter(newsletter=weekly).count() == 1500


def test_a_hundred_thousand_rows_take_bounded_time_and_queries(weekly: Newsletter) -> None:
    text = "email,name\n" + "".join(
        f"reader{n}@example.org,Reader {n}\n" if n % 100 else f"reader{n},bad\n"
        for n in range(100_000)
    )
    seen: list[int] = []
    statements: list[str] = []

    def count(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        statements.append(sql[:20])
        return execute(sql, *rest)

    began = time.process_time()  # the machine may have other things to do
    with connection.execute_wrapper(count):
        report = import_subscribers(text.encode(), weekly, source="big", progress=seen.append)
    assert time.process_time() - began < 60
    assert (report.rows, report.added, len(report.problems)) == (100_000, 99_000, 1000)
    assert Subscription.objects.count() == 99_000
    assert len(statements) <= 20 * 99 + 20
    assert len(seen) == 99
    # The foreign keys are checked at the end, and PostgreSQL keeps the plan of that from when the table was tiny: two
    # minutes of sequential scans, once, where another test had come before.
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE newsletter_subscriber")
