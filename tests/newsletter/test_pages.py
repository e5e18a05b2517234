"""The public pages: what was published, for everybody, quickly."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from newsletter.models import Issue, Newsletter, Podcast, database_now
from tests import cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


def published(newsletter: Newsletter, state: str = "published", **over: Any) -> Issue:
    issue = cast.approved(newsletter, **over)
    frozen = state in ("sending", "sent", "cancelled")
    Issue.objects.filter(pk=issue.pk).update(
        state=state,
        audience=1 if frozen else None,
        audience_frozen_at=database_now() if frozen else None,
    )
    issue.refresh_from_db()
    return issue


def test_the_home_page_names_the_newsletters(client: Client, weekly: Newsletter) -> None:
    cast.newsletter(slug="mensal", name="A Mensal", language="pt-br")
    page = client.get("/").content.decode()
    assert '<a href="/n/weekly/">The Weekly</a>' in page
    assert '<li lang="pt-br"><a href="/n/mensal/">A Mensal</a>' in page


def test_the_home_page_of_an_empty_house_answers_too(client: Client) -> None:
    assert client.get("/").status_code == 200


def test_the_archive_lists_what_was_published_newest_first(
    client: Client, weekly: Newsletter
) -> None:
    published(weekly)
    published(weekly, "sent", slug="second-issue", title="The second", release_date="2026-06-08")
    page = client.get("/n/weekly/").content.decode()
    assert page.index('href="/n/weekly/second-issue/"') < page.index(
        'href="/n/weekly/first-issue/"'
    )
    assert "8 June 2026" in page


@pytest.mark.parametrize("state", ["published", "sending", "sent", "cancelled"])
def test_an_issue_that_was_published_has_its_page(
    client: Client, weekly: Newsletter, state: str
) -> None:
    published(weekly, state)
    answer = client.get("/n/weekly/first-issue/")
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "<h1>The first issue</h1>" in page
    assert "<strong>readers</strong>" in page
    assert "1 Main Street, Lisbon" in page
    assert '<html lang="en">' in page


@pytest.mark.parametrize("state", ["draft", "approved", "awaiting_podcast", "publishing"])
def test_what_is_not_published_is_nobodys_business(
    client: Client, weekly: Newsletter, state: str
) -> None:
    cast.approved(weekly)
    Issue.objects.update(state=state)
    assert client.get("/n/weekly/first-issue/").status_code == 404
    assert "first-issue" not in client.get("/n/weekly/").content.decode()


def test_a_draft_that_was_cancelled_has_no_page(client: Client, weekly: Newsletter) -> None:
    cast.issue(weekly).cancel(actor="ana")
    assert client.get("/n/weekly/first-issue/").status_code == 404


@pytest.mark.parametrize(
    "path", ["/n/nobody/", "/n/nobody/first-issue/", "/n/weekly/nothing/", "/nowhere", "/n/%00/"]
)
def test_what_is_not_there_is_a_plain_404(client: Client, weekly: Newsletter, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()


def test_an_issue_of_another_newsletter_is_not_found_here(
    client: Client, weekly: Newsletter
) -> None:
    published(cast.newsletter(slug="monthly"))
    assert client.get("/n/weekly/first-issue/").status_code == 404


def test_the_page_shows_what_was_approved(client: Client, weekly: Newsletter) -> None:
    published(weekly)
    Issue.objects.update(title="Changed", markdown="Changed behind her back")
    page = client.get("/n/weekly/first-issue/").content.decode()
    assert "The first issue" in page
    assert "Changed" not in page


def test_the_page_has_the_podcast_once_it_is_there(client: Client, weekly: Newsletter) -> None:
    issue = published(weekly)
    assert "Episode 7" not in client.get("/n/weekly/first-issue/").content.decode()
    Podcast.objects.create(
        issue=issue,
        newsletter=weekly,
        state="late",
        waiting_since=database_now(),
        key="7",
        title="Episode 7",
        url="https://pod.example.org/7.mp3",
    )
    assert "Episode 7" in client.get("/n/weekly/first-issue/").content.decode()


def test_the_page_greets_nobody_by_name(client: Client, weekly: Newsletter) -> None:
    published(weekly, markdown="Hello {{ name|there }}, good morning.\n")
    page = client.get("/n/weekly/first-issue/").content.decode()
    assert "Hello there, good morning" in page


def test_a_script_in_an_issue_stays_out_of_the_page(client: Client, weekly: Newsletter) -> None:
    published(weekly, title="<script>one()</script>", markdown="<script>two()</script>\n\nText.\n")
    page = client.get("/n/weekly/first-issue/").content.decode()
    assert "<script" not in page
    assert "two()" not in page


@pytest.mark.parametrize("path", ["/", "/n/weekly/", "/n/weekly/first-issue/", "/nowhere"])
def test_every_page_has_a_strict_policy_and_no_script(
    client: Client, weekly: Newsletter, path: str
) -> None:
    published(weekly)
    answer = client.get(path)
    policy = answer["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "object-src 'none'" in policy
    assert "<script" not in answer.content.decode()
    assert "style=" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/", "/n/weekly/", "/n/weekly/first-issue/"])
def test_a_page_sets_no_cookie(client: Client, weekly: Newsletter, path: str) -> None:
    published(weekly)
    assert not client.get(path).cookies


@pytest.mark.parametrize("path", ["/", "/n/weekly/", "/n/weekly/first-issue/"])
def test_a_page_is_only_read(client: Client, weekly: Newsletter, path: str) -> None:
    published(weekly)
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


@pytest.mark.parametrize(
    ("path", "queries"), [("/", 1), ("/n/weekly/", 2), ("/n/weekly/first-issue/", 1)]
)
def test_the_queries_do_not_grow_with_what_is_shown(
    client: Client,
    weekly: Newsletter,
    django_assert_num_queries: DjangoAssertNumQueries,
    path: str,
    queries: int,
) -> None:
    published(weekly)
    for number in range(20):
        cast.newsletter(slug=f"other-{number}")
        published(weekly, "sent", slug=f"issue-{number}")
    with django_assert_num_queries(queries):
        client.get(path)


def test_an_issues_page_names_its_language(client: Client) -> None:
    published(cast.newsletter(language="pt-br"))
    page = client.get("/n/weekly/first-issue/").content.decode()
    assert '<html lang="pt-br">' in page
    assert "de junho de 2026" in page
