"""Leaving with one click, as RFC 8058 has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from newsletter.models import Subscription, Transition
from newsletter.signals import consent_withdrawn
from tests import cast

pytestmark = pytest.mark.django_db

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def bob() -> Subscription:
    return cast.readers(cast.newsletter(), 1)[0]


@pytest.fixture
def mailbox_provider() -> Client:
    """No cookies, no CSRF token: what posts is the reader's mail provider."""
    return Client(enforce_csrf_checks=True)


def state() -> str:
    return Subscription.objects.get().state


def test_one_click_unsubscribes(mailbox_provider: Client, bob: Subscription) -> None:
    answer = mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    assert answer.status_code == 200
    assert not answer.cookies
    row = Subscription.objects.get()
    assert (row.state, row.unsubscribed_at is not None) == ("unsubscribed", True)


def test_one_click_in_the_other_encoding_unsubscribes(
    mailbox_provider: Client, bob: Subscription
) -> None:
    # The test client's dict is multipart/form-data; this is the other way that RFC 8058 allows.
    answer = mailbox_provider.post(
        f"/u/{bob.token}/",
        "List-Unsubscribe=One-Click",
        content_type="application/x-www-form-urlencoded",
    )
    assert (answer.status_code, state()) == (200, "unsubscribed")


def test_a_second_click_is_the_same_as_one(mailbox_provider: Client, bob: Subscription) -> None:
    first = mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    at = Subscription.objects.get().unsubscribed_at
    second = mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    assert (first.status_code, second.status_code) == (200, 200)
    assert Subscription.objects.get().unsubscribed_at == at
    assert Transition.objects.filter(subject="subscription").count() == 1


def test_the_wish_stands_in_the_history(mailbox_provider: Client, bob: Subscription) -> None:
    mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    row = Transition.objects.get(subject="subscription", subject_id=bob.pk)
    assert (row.old, row.new, row.actor) == ("confirmed", "unsubscribed", "reader")


def test_the_withdrawal_is_told_once(mailbox_provider: Client, bob: Subscription) -> None:
    told: list[int] = []

    def listen(subscription_id: int, **_: object) -> None:
        told.append(subscription_id)

    consent_withdrawn.connect(listen)
    try:
        mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
        mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    finally:
        consent_withdrawn.disconnect(listen)
    assert told == [bob.pk]


def test_a_get_shows_a_button_and_changes_nothing(client: Client, bob: Subscription) -> None:
    answer = client.get(f"/u/{bob.token}/")
    page = answer.content.decode()
    assert answer.status_code == 200
    assert '<form method="post"><button type="submit">' in page
    assert state() == "confirmed"


def test_a_head_changes_nothing(client: Client, bob: Subscription) -> None:
    assert client.head(f"/u/{bob.token}/").status_code == 200
    assert state() == "confirmed"


@pytest.mark.parametrize("verb", ["put", "patch", "delete", "options"])
def test_other_verbs_are_refused_and_change_nothing(
    client: Client, bob: Subscription, verb: str
) -> None:
    call: Callable[[str], object] = getattr(client, verb)
    assert getattr(call(f"/u/{bob.token}/"), "status_code", 0) == 405
    assert state() == "confirmed"


def test_the_page_is_not_cached_and_not_indexed(client: Client, bob: Subscription) -> None:
    answer = client.get(f"/u/{bob.token}/")
    assert "no-store" in answer["Cache-Control"]
    assert 'name="robots" content="noindex"' in answer.content.decode()


def test_the_token_does_not_leave_with_a_referrer(client: Client, bob: Subscription) -> None:
    assert client.get(f"/u/{bob.token}/")["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("token", ["x" * 43, "x" * 5000, "%00", "%F0%9F%92%8C"])
def test_an_unknown_token_is_told_as_such(
    client: Client, bob: Subscription, method: str, token: str
) -> None:
    answer = getattr(client, method)(f"/u/{token}/")
    assert answer.status_code == 404
    assert "<h1>" in answer.content.decode()
    assert state() == "confirmed"


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_link_of_a_test_mail_says_so(client: Client, bob: Subscription, method: str) -> None:
    answer = getattr(client, method)("/u/test/")
    assert answer.status_code == 200
    assert "test mail" in answer.content.decode()
    assert state() == "confirmed"


def test_it_concerns_this_newsletter_and_this_reader_only(
    mailbox_provider: Client, bob: Subscription
) -> None:
    monthly = cast.newsletter(slug="monthly")
    other = Subscription.objects.create(
        subscriber=bob.subscriber,
        newsletter=monthly,
        state="confirmed",
        consent_source="the cast",
        consent_at=bob.consent_at,
    )
    mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    other.refresh_from_db()
    assert other.state == "confirmed"


def test_who_did_not_confirm_yet_can_leave_too(mailbox_provider: Client, bob: Subscription) -> None:
    Subscription.objects.update(state="pending")
    mailbox_provider.post(f"/u/{bob.token}/", ONE_CLICK)
    assert state() == "unsubscribed"
    assert Transition.objects.get(subject="subscription").old == "pending"


def test_it_speaks_the_newsletters_language(client: Client) -> None:
    (bob,) = cast.readers(cast.newsletter(language="pt-br"), 1)
    assert '<html lang="pt-br">' in client.get(f"/u/{bob.token}/").content.decode()


def test_the_page_takes_one_query(
    client: Client, bob: Subscription, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(1):
        client.get(f"/u/{bob.token}/")
