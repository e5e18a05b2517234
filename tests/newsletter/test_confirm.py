"""Joining with a confirmation: the request, the mail's words, the page behind its link."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from delivery.models import TransactionalMail
from newsletter.models import Newsletter, Refused, Subscriber, Subscription, Transition, address_key
from newsletter.models.newsletter import Language
from newsletter.phrases import phrases
from newsletter.rendering import Rendered
from newsletter.rendering.confirmation import Confirmation, render_confirmation
from newsletter.signals import confirmation_requested
from tests import cast

pytestmark = pytest.mark.django_db


def pending(newsletter: Newsletter, name: str = "bob") -> Subscription:
    """Somebody who asked to join and did not confirm yet."""
    address = f"{name}@example.org"
    person, _ = Subscriber.objects.get_or_create(
        address=address, defaults={"address_key": address_key(address), "name": name.capitalize()}
    )
    return Subscription.objects.create(
        subscriber=person, newsletter=newsletter, state="pending", consent_source="a form"
    )


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


@pytest.fixture
def bob(weekly: Newsletter) -> Subscription:
    return pending(weekly)


@pytest.fixture
def browser() -> Client:
    """A reader's: no cookies, and CSRF checks as in production."""
    return Client(enforce_csrf_checks=True)


def state() -> str:
    return Subscription.objects.get().state


# The request


@pytest.fixture
def requests() -> Iterator[list[int]]:
    """Whose confirmation was requested."""
    heard: list[int] = []

    def listen(subscription_id: int, **_: object) -> None:
        heard.append(subscription_id)

    confirmation_requested.connect(listen)
    yield heard
    confirmation_requested.disconnect(listen)


def test_a_request_is_told_and_stands_in_the_history(
    bob: Subscription, requests: list[int]
) -> None:
    assert bob.ask_to_confirm(actor="ana")
    assert requests == [bob.pk]
    row = Transition.objects.get(subject="subscription", subject_id=bob.pk)
    assert (row.old, row.new, row.reason, row.actor) == (
        "pending",
        "pending",
        "asked to confirm",
        "ana",
    )


def test_a_second_request_at_once_mails_nothing_and_leaves_no_history(bob: Subscription) -> None:
    bob.ask_to_confirm(actor="ana")
    assert not bob.ask_to_confirm(actor="ana")
    assert TransactionalMail.objects.count() == 1
    assert Transition.objects.filter(subject="subscription").count() == 1


@pytest.mark.parametrize("other", ["confirmed", "unsubscribed"])
def test_who_is_not_pending_is_not_asked(
    bob: Subscription, requests: list[int], other: str
) -> None:
    Subscription.objects.update(state=other, consent_at="2026-01-01T00:00Z")
    with pytest.raises(Refused, match=f"is {other}: there is nothing to confirm"):
        bob.ask_to_confirm(actor="ana")
    assert requests == []
    assert not TransactionalMail.objects.exists()


# The page


def test_a_post_confirms_with_its_time_and_source(browser: Client, bob: Subscription) -> None:
    answer = browser.post(f"/c/{bob.token}/")
    assert answer.status_code == 200
    assert not answer.cookies
    row = Subscription.objects.get()
    assert (row.state, row.consent_source) == ("confirmed", "confirmed by link")
    assert row.consent_at is not None
    line = Transition.objects.get(subject="subscription", subject_id=bob.pk)
    assert (line.old, line.new, line.actor) == ("pending", "confirmed", "reader")
    assert "You are subscribed" in answer.content.decode()


def test_a_second_post_is_the_same_as_one(browser: Client, bob: Subscription) -> None:
    first = browser.post(f"/c/{bob.token}/")
    at = Subscription.objects.get().consent_at
    second = browser.post(f"/c/{bob.token}/")
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert Subscription.objects.get().consent_at == at
    assert Transition.objects.filter(subject="subscription").count() == 1


def test_a_get_shows_a_button_and_changes_nothing(client: Client, bob: Subscription) -> None:
    answer = client.get(f"/c/{bob.token}/")
    assert answer.status_code == 200
    assert '<form method="post"><button type="submit">' in answer.content.decode()
    assert state() == "pending"


def test_a_head_changes_nothing(client: Client, bob: Subscription) -> None:
    assert client.head(f"/c/{bob.token}/").status_code == 200
    assert state() == "pending"


@pytest.mark.parametrize("verb", ["put", "patch", "delete", "options"])
def test_other_verbs_are_refused_and_change_nothing(
    client: Client, bob: Subscription, verb: str
) -> None:
    call: Callable[[str], object] = getattr(client, verb)
    assert getattr(call(f"/c/{bob.token}/"), "status_code", 0) == 405
    assert state() == "pending"


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("token", ["x" * 43, "x" * 5000, "test", "%00", "%F0%9F%92%8C"])
def test_an_unknown_token_is_told_as_such(
    client: Client, bob: Subscription, method: str, token: str
) -> None:
    answer = getattr(client, method)(f"/c/{token}/")
    assert answer.status_code == 404
    assert "<h1>" in answer.content.decode()
    assert state() == "pending"


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_old_link_does_not_undo_a_later_no(
    client: Client, bob: Subscription, method: str
) -> None:
    bob.confirm(actor="reader")
    bob.unsubscribe(actor="reader", reason="the reader's own wish")
    answer = getattr(client, method)(f"/c/{bob.token}/")
    assert answer.status_code == 404
    assert state() == "unsubscribed"


def test_who_was_asked_can_say_no_for_good(browser: Client, bob: Subscription) -> None:
    browser.post(f"/u/{bob.token}/", {"List-Unsubscribe": "One-Click"})
    assert browser.post(f"/c/{bob.token}/").status_code == 404
    assert state() == "unsubscribed"


def test_who_is_confirmed_already_sees_it(client: Client, bob: Subscription) -> None:
    Subscription.objects.update(state="confirmed", consent_at="2026-01-01T00:00Z")
    page = client.get(f"/c/{bob.token}/").content.decode()
    assert "You are subscribed" in page
    assert "<form" not in page


def test_it_concerns_this_newsletter_only(browser: Client, bob: Subscription) -> None:
    other = pending(cast.newsletter(slug="monthly"))
    browser.post(f"/c/{bob.token}/")
    other.refresh_from_db()
    assert other.state == "pending"


def test_the_page_is_not_cached_not_indexed_and_keeps_its_token(
    client: Client, bob: Subscription
) -> None:
    answer = client.get(f"/c/{bob.token}/")
    assert "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "same-origin"
    assert 'name="robots" content="noindex"' in answer.content.decode()


@pytest.mark.parametrize("language", Language.values)
def test_the_page_speaks_the_newsletters_language(client: Client, language: str) -> None:
    bob = pending(cast.newsletter(language=language))
    say = phrases(language).about("The Weekly")
    before = unescape(client.get(f"/c/{bob.token}/").content.decode())
    after = unescape(client.post(f"/c/{bob.token}/").content.decode())
    assert f'<html lang="{language}">' in before
    assert all(words in before for words in (say.confirm_question, say.confirm_button))
    assert all(words in after for words in (say.confirmed_title, say.confirmed_text))


def test_the_page_takes_one_query(
    client: Client, bob: Subscription, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(1):
        client.get(f"/c/{bob.token}/")


# The mail's words


def rendered(**over: str) -> Rendered:
    values = {
        "newsletter_name": "The Weekly",
        "language": "en",
        "sender_name": "Ana",
        "postal_address": "1 Main Street\nLisbon",
        "url": "https://news.example.org/c/abc/",
    }
    return render_confirmation(Confirmation(**{**values, **over}))


@pytest.mark.parametrize("language", Language.values)
def test_the_mail_says_who_asks_what_and_what_to_do_otherwise(language: str) -> None:
    say = phrases(language).about("The Weekly")
    mail = rendered(language=language)
    assert mail.subject == say.confirm_subject
    for part in (mail.text, unescape(mail.html)):
        said = " ".join(part.split())
        for words in (say.confirm_text, say.confirm_button, say.confirm_otherwise, "Ana"):
            assert words in said, words
        assert "1 Main Street" in said
        assert "https://news.example.org/c/abc/" in said


def test_every_language_has_words_of_its_own_for_it() -> None:
    asked = {phrases(language).confirm_text for language in Language.values}
    assert len(asked) == len(Language.values)
    assert all("{newsletter}" in words for words in asked)


def test_a_name_that_is_html_stays_text() -> None:
    mail = rendered(newsletter_name="<b>Bold</b> & co")
    assert "<b>" not in mail.html
    assert "<b>Bold</b> & co" in mail.text


def test_the_mail_has_one_link() -> None:
    links = re.findall(r'href="([^"]+)"', rendered().html)
    assert links == ["https://news.example.org/c/abc/"]


def test_a_word_that_is_reserved_for_links_is_taken_out() -> None:
    mail = rendered(newsletter_name="carteiroxslotxunsubscribexurl")
    assert "carteiroxslotx" not in mail.text + mail.html + mail.subject


# The admin


def press(client: Client, *rows: Subscription) -> str:
    """The button over the selected rows; what the page says then."""
    form = {"action": "ask_to_confirm", "_selected_action": [row.pk for row in rows]}
    answer = client.post(reverse("admin:newsletter_subscription_changelist"), form, follow=True)
    return answer.content.decode()


def test_an_editor_asks_the_pending_ones(editing: Client, bob: Subscription) -> None:
    page = press(editing, bob)
    assert "1 were asked by mail." in page
    mail = TransactionalMail.objects.get()
    assert (mail.kind, mail.address) == ("confirmation", "bob@example.org")


def test_the_others_are_left_alone_and_that_is_told(
    editing: Client, bob: Subscription, weekly: Newsletter
) -> None:
    carla = pending(weekly, "carla")
    carla.confirm(actor="reader")
    page = press(editing, bob, carla)
    assert "1 were asked by mail." in page
    assert "not pending" in page
    assert TransactionalMail.objects.count() == 1


def test_who_may_only_look_has_no_button(client: Client, bob: Subscription) -> None:
    reader: User = cast.editor("vera", "view_subscription")
    client.force_login(reader)
    assert "ask_to_confirm" not in press(client, bob)
    assert not TransactionalMail.objects.exists()


def test_the_list_can_be_searched_and_filtered(editing: Client, bob: Subscription) -> None:
    where = reverse("admin:newsletter_subscription_changelist")
    for query in ("", "?q=bob", "?state__exact=pending"):
        assert "bob@example.org" in editing.get(where + query).content.decode()
