"""The admin's long lists: page by page along the ids, with filters and search, and at no more cost than they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from delivery.admin.keyset import READERS
from delivery.models import EmailDelivery, Job, LedgerTally
from newsletter.models import (
    Issue,
    Newsletter,
    Subscriber,
    Subscription,
    Suppression,
    database_now,
)
from tests import cast
from tests.drain import tell_the_tally

pytestmark = pytest.mark.django_db

DELIVERIES = "/admin/delivery/emaildelivery/"
JOBS = "/admin/delivery/job/"
SUBSCRIBERS = "/admin/newsletter/subscriber/"
SUBSCRIPTIONS = "/admin/newsletter/subscription/"


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


def listed(client: Client, path: str, query: str = "") -> Any:
    """The change list behind an address; it is followed to where it leads."""
    answer = client.get(f"{path}{query}", follow=True)
    assert answer.status_code == 200
    return answer.context["cl"]


def ids(found: Any) -> list[int]:
    return [row.pk for row in found.result_list]


def walk(client: Client, path: str, query: str, link: str) -> list[list[int]]:
    """The ids of each page, along one of its links."""
    pages = [ids(found := listed(client, path, query))]
    while query := getattr(found, link):
        pages.append(ids(found := listed(client, path, query)))
    return pages


def test_every_row_is_on_one_page_forth_and_back(editing: Client, weekly: Newsletter) -> None:
    cast.readers(weekly, 120)
    everybody = list(Subscriber.objects.order_by("-id").values_list("id", flat=True))
    forth = walk(editing, SUBSCRIBERS, "", "older_url")
    assert [len(page) for page in forth] == [50, 50, 20]
    assert [*chain(*forth)] == everybody
    back = walk(editing, SUBSCRIBERS, "?p=oldest", "newer_url")
    assert [len(page) for page in back] == [50, 50, 50]  # the last is the newest page, and full
    assert back[0] == everybody[-50:] and back[-1] == everybody[:50]


def test_a_page_says_where_one_is(editing: Client, weekly: Newsletter) -> None:
    rows = cast.readers(weekly, 120)
    top = rows[-1].subscriber_id
    first = listed(editing, SUBSCRIBERS)
    assert first.place == f"The newest 50 subscribers, ids {top} to {top - 49}"
    assert (first.newest_url, first.newer_url) == ("", "")
    second = listed(editing, SUBSCRIBERS, first.older_url)
    assert second.place == f"50 subscribers, ids {top - 50} to {top - 99}"
    last = listed(editing, SUBSCRIBERS, second.oldest_url)
    assert last.place == f"The oldest 50 subscribers, ids {top - 70} to {top - 119}"
    assert (last.older_url, last.oldest_url) == ("", "")
    assert ids(listed(editing, SUBSCRIBERS, last.newest_url)) == ids(first)
    assert listed(editing, SUBSCRIBERS, "?q=bob@").place == "1 subscriber"


def test_turning_the_page_keeps_filter_and_search(editing: Client, weekly: Newsletter) -> None:
    monthly = cast.newsletter(slug="monthly")
    rows = cast.readers(weekly, 130)
    Subscription.objects.bulk_create(
        Subscription(
            subscriber=row.subscriber, newsletter=monthly, state="pending", consent_source="x"
        )
        for row in rows
    )
    query = f"?q=reader&newsletter__id__exact={monthly.pk}&state__exact=pending"
    pages = walk(editing, SUBSCRIPTIONS, query, "older_url")
    assert [len(page) for page in pages] == [50, 50]  # reader9 to reader130, of which READERS
    assert READERS == 100
    shown = Subscription.objects.filter(pk__in=[*chain(*pages)])
    assert {(row.newsletter_id, row.state) for row in shown} == {(monthly.pk, "pending")}
    link = listed(editing, SUBSCRIPTIONS, query).older_url
    assert parse_qs(urlsplit(link).query).keys() == {
        "p",
        "q",
        "newsletter__id__exact",
        "state__exact",
    }


CURSORS = [
    *("40000", "0", "before-", "before-0", "before-abc", "after-9999999", "after-" + "9" * 40),
    *("before-%00", "between-1", "before--1", "oldest-1", "é"),
]


@pytest.mark.parametrize("path", [SUBSCRIBERS, JOBS])
def test_a_wrong_or_stale_cursor_is_the_first_page(
    editing: Client, weekly: Newsletter, path: str
) -> None:
    cast.readers(weekly, 60)
    now = database_now()
    Job.objects.bulk_create(Job(key=f"j:{n}", name="notify", due_at=now) for n in range(60))
    first = ids(listed(editing, path))
    found = {cursor: ids(listed(editing, path, f"?p={cursor}")) for cursor in CURSORS}
    assert found == dict.fromkeys(CURSORS, first)


def test_a_list_without_rows_has_no_pages(editing: Client) -> None:
    for cursor in "", "?p=before-7", "?p=oldest":
        found = listed(editing, JOBS, cursor)
        assert (found.place, found.multi_page) == ("0 jobs", False)


def test_another_order_or_all_at_once_is_not_to_be_had(editing: Client, weekly: Newsletter) -> None:
    cast.readers(weekly, 60)
    plain = ids(listed(editing, SUBSCRIBERS))
    for query in "?o=1", "?o=-2.1", "?all=", "?o=1&p=before-9999999":
        assert ids(listed(editing, SUBSCRIBERS, query)) == plain


def test_an_action_reaches_what_is_ticked(editing: Client, weekly: Newsletter) -> None:
    now = database_now()
    Job.objects.bulk_create(
        Job(key=f"j:{n}", name="notify", state="dead", due_at=now, finished_at=now)
        for n in range(60)
    )
    page = editing.get(JOBS).content.decode()
    assert "0 of 50 selected" in page and "across all pages" not in page
    ticked = ids(listed(editing, JOBS))[:3]
    editing.post(JOBS, {"action": "discard", "_selected_action": ticked, "index": "0"})
    assert sorted(Job.objects.filter(state="discarded").values_list("id", flat=True)) == sorted(
        ticked
    )


# The ledger's filters


def a_ledger(newsletter: Newsletter, slug: str, **statuses: int) -> Issue:
    """Statuses in blocks, in the order given; the first have the lowest ids."""
    issue = cast.approved(newsletter, slug=slug, title=slug)
    rows = [
        EmailDelivery(issue=issue, address_key=f"{slug}{status}{n}", status=status, fence=1,
                      attempt=1, sending_at=database_now())
        for status, number in statuses.items()
        for n in range(number)
    ]  # fmt: skip
    EmailDelivery.objects.bulk_create(rows, batch_size=1000)
    Issue.objects.filter(pk=issue.pk).update(
        state="sending", audience_frozen_at=database_now(), audience=len(rows)
    )
    tell_the_tally(issue)
    return issue


def test_a_status_alone_is_that_of_the_newest_issue_which_has_it(
    editing: Client, weekly: Newsletter
) -> None:
    old = a_ledger(weekly, "old", failed=2, sent=3)
    new = a_ledger(weekly, "new", sent=4)
    for status, issue, number in ("failed", old, 2), ("sent", new, 4), ("unknown", new, 0):
        answer = editing.get(f"{DELIVERIES}?status__exact={status}", follow=True)
        assert f"issue__id__exact={issue.pk}" in answer.redirect_chain[-1][0]
        assert answer.context["cl"].result_count == number
    assert listed(editing, DELIVERIES, "?status__exact=nonsense").result_count == 0


def test_an_issues_rows_are_its_own_also_where_anothers_stand_between(
    editing: Client, weekly: Newsletter
) -> None:
    one, other = a_ledger(weekly, "one", sent=30), a_ledger(weekly, "other", sent=30, pending=5)
    moved = list(EmailDelivery.objects.of(one.pk).order_by("id")[10:13])
    EmailDelivery.objects.filter(pk__in=[row.pk for row in moved]).update(issue=other)
    pages = walk(editing, DELIVERIES, f"?issue__id__exact={one.pk}", "older_url")
    assert [*chain(*pages)] == list(
        EmailDelivery.objects.of(one.pk).order_by("-id").values_list("id", flat=True)
    )
    assert [len(page) for page in pages] == [25, 2]


@pytest.mark.parametrize("value", ["x", "", "9" * 30, "-1", "%00", "12345"])
def test_a_wrong_issue_is_no_error(editing: Client, weekly: Newsletter, value: str) -> None:
    a_ledger(weekly, "one", sent=1)
    answer = editing.get(f"{DELIVERIES}?issue__id__exact={value}", follow=True)
    assert answer.status_code == 200


# What a page costs

# Below 40,000 PostgreSQL rightly reads a whole table for a hundred rows of it.
TABLES = [m._meta.db_table for m in (Subscriber, Subscription, EmailDelivery, Suppression)]
ROWS = 40_000 if connection.vendor == "postgresql" else 20_000
FEW = 40
# PostgreSQL: rows that were read. SQLite: steps of its machine, some 60 to show a row, 5 or more to pass one by.
MOST = 3_000 if connection.vendor == "postgresql" else 60_000
RECURSIVE = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"


def crowd(weekly: Newsletter, monthly: Newsletter) -> tuple[Issue, Issue]:
    """Rows in the order that is worst for a walk along the ids: what is asked for stands at the far end."""
    old, new = a_ledger(weekly, "old", sent=FEW, failed=FEW), cast.approved(weekly, slug="new")
    half = ROWS // 2
    _insert(
        "newsletter_subscriber (address, address_key, name, created_at)",
        "'reader' || i || '@example.org', 'k' || i, '', CURRENT_TIMESTAMP",
    )
    of = f"CASE WHEN i <= {FEW} THEN {monthly.pk} ELSE {weekly.pk} END"
    state = f"CASE WHEN i <= {FEW} THEN 'pending' WHEN i <= {half} THEN 'unsubscribed' ELSE 'confirmed' END"
    _insert(
        "newsletter_subscription (subscriber_id, newsletter_id, state, token, consent_source, consent_at)",
        f"{_first(Subscriber)} + i - 1, {of}, {state}, 't' || i, 'x', CURRENT_TIMESTAMP",
    )
    status = f"CASE WHEN i <= {FEW} THEN 'unknown' WHEN i <= {2 * FEW} THEN 'sending' WHEN i <= {half} THEN 'sent'"
    _insert(
        "delivery_emaildelivery (issue_id, subscription_id, address, address_key, name, status, reason, reply, attempt,"
        " attempts_spent, dot_refusals, resend_no, provider_message_id, fence, sending_at)",
        f"{new.pk}, {_first(Subscription)} + i - 1, '', 'k' || i, '', {status} ELSE 'pending' END, '', '', 1,"
        " 0, 0, 0, '', 1, CURRENT_TIMESTAMP",
    )
    _insert(
        "newsletter_suppression (address_key, reason, detail, created_at)",
        f"'s' || i, CASE WHEN i <= {FEW} THEN 'operator' ELSE 'complaint' END, '', CURRENT_TIMESTAMP",
    )
    Issue.objects.filter(pk=new.pk).update(
        state="sending", audience_frozen_at=database_now(), audience=ROWS
    )
    tell_the_tally(new)
    if connection.vendor == "postgresql":  # SQLite has no figures of its tables there either
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {', '.join(TABLES)}")
    return old, new


def _first(model: type[Model]) -> int:
    return int(model._default_manager.order_by("id")[0].pk)


def _insert(into: str, values: str) -> None:
    series = RECURSIVE.format(rows=ROWS)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {into} {series} SELECT {values} FROM n")


@contextmanager
def work() -> Iterator[Callable[[], int]]:
    """What the database did inside, by its own counters: no clock, and no belief in a plan."""
    if connection.vendor == "postgresql":
        reading = [0]
        with transaction.atomic():  # its counters are those of a transaction
            before = _rows_read()
            yield lambda: reading[0]
            reading[0] = _rows_read() - before
        return
    steps = [0]

    def hundred() -> int:
        steps[0] += 100
        return 0

    connection.ensure_connection()
    connection.connection.set_progress_handler(hundred, 100)
    try:
        yield lambda: steps[0]
    finally:
        connection.connection.set_progress_handler(None, 0)


def _rows_read() -> int:
    read = "coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
    ours = "relname LIKE 'newsletter%' OR relname LIKE 'delivery%'"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT sum({read}) FROM pg_stat_xact_user_tables WHERE {ours}")
        return int(cursor.fetchone()[0])


def pages(old: Issue, new: Issue, monthly: Newsletter) -> list[str]:
    middle = EmailDelivery.objects.of(new.pk).order_by("id")[ROWS // 2].pk
    reader = Subscriber.objects.order_by("id")[7]
    of = "issue__id__exact"
    return [
        *(f"{DELIVERIES}{query}" for query in ("", f"?p=before-{middle}", "?p=oldest")),
        *(f"{DELIVERIES}?{of}={issue.pk}{p}" for issue in (old, new) for p in ("", "&p=oldest")),
        *(f"{DELIVERIES}?status__exact={status}" for status in ("sent", "failed", "unknown")),
        *(f"{DELIVERIES}?status__exact={status}&{of}={new.pk}" for status in ("sent", "sending")),
        *(f"{DELIVERIES}?status__exact={status}&{of}={new.pk}" for status in ("failed", "skipped")),
        *(f"{DELIVERIES}?q={q}" for q in ("reader77@", "reader", "nobody")),
        f"{DELIVERIES}?q=reader&{of}={new.pk}&status__exact=pending",
        *(f"{SUBSCRIBERS}?{query}" for query in ("", "q=reader77@", "q=reader", "p=oldest")),
        *(f"{SUBSCRIPTIONS}?state__exact={state}" for state in ("pending", "unsubscribed")),
        *(f"{SUBSCRIPTIONS}?newsletter__id__exact={n}" for n in (monthly.pk, new.newsletter_id)),
        f"{SUBSCRIPTIONS}?newsletter__id__exact={new.newsletter_id}&state__exact=unsubscribed",
        f"{SUBSCRIPTIONS}?newsletter__id__exact={new.newsletter_id}&state__exact=pending",
        f"{SUBSCRIPTIONS}?q=reader",
        "/admin/newsletter/suppression/?reason__exact=operator",
        "/admin/newsletter/suppression/?reason__exact=bad_address",
        "/admin/", "/admin/operations/", "/admin/unknown/", f"/admin/unknown/{new.pk}/",
        f"/admin/newsletter/issue/{new.pk}/change/", "/admin/newsletter/issue/",
        f"/admin/newsletter/subscriber/{reader.pk}/change/",
        f"{DELIVERIES}{middle}/change/",
        f"/admin/readers/{reader.pk}/", "/admin/readers/?q=reader", "/admin/readers/?q=reader9@example.org",
        "/ready", "/metrics",
        "/", "/n/weekly/", "/n/weekly/new/", "/u/t77/", f"/c/t{ROWS}/",
    ]  # fmt: skip


@pytest.mark.django_db(
    transaction=True
)  # a rollback would leave its pages to the plans of other tests
def test_no_page_reads_more_than_it_shows(
    editing: Client, weekly: Newsletter, settings: Any
) -> None:
    settings.METRICS_TOKEN = "a-token"
    monthly = cast.newsletter(slug="monthly")
    old, new = crowd(weekly, monthly)
    cost, queries = {}, {}
    for path in pages(old, new, monthly):
        with CaptureQueriesContext(connection) as asked, work() as done:
            answer = editing.get(path, follow=True, headers={"authorization": "Bearer a-token"})
        assert answer.status_code == (503 if path == "/ready" else 200), path
        cost[path], queries[path] = done(), len(asked)
    print(sorted(cost.items(), key=lambda x: -x[1])[:60], queries)
    assert {path: steps for path, steps in cost.items() if steps > MOST} == {}
    assert {path: number for path, number in queries.items() if number > 30} == {}
    with work() as done:
        assert not EmailDelivery.objects.filter(reply="no index").exists()
    assert done() > MOST  # the counters would notice a scan
    assert LedgerTally.objects.figures(new.pk)
