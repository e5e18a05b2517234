from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import path

from delivery.sandbox.mailbox import Mailbox
from delivery.views import sandbox

LETTER = (
    b"From: news@example.com\r\nSubject: <b>Hello</b>\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain <i>words</i>\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>html</p><script>x</script>\r\n"
    b"--b--\r\n"
)
urlpatterns = [
    path("sandbox/", sandbox.mailbox, name="sandbox"),
    path("sandbox/<str:key>/", sandbox.message, name="sandbox_message"),
    path("sandbox/<str:key>/body", sandbox.body, name="sandbox_body"),
]


@pytest.fixture
def box(tmp_path: Path, settings: Any) -> Mailbox:
    settings.SANDBOX_DIR = str(tmp_path)
    settings.ROOT_URLCONF = __name__
    settings.SECURE_SSL_REDIRECT = False
    settings.ALLOWED_HOSTS = ["testserver"]
    return Mailbox(tmp_path)


def page(url: str, status: int = 200) -> str:
    response = Client().get(url)
    assert response.status_code == status
    return response.content.decode()


def test_it_lists_recipient_subject_and_totals(box: Mailbox) -> None:
    box.add("news@example.com", ["bob@example.org"], LETTER)
    shown = page("/sandbox/")
    assert "bob@example.org" in shown
    assert "&lt;b&gt;Hello&lt;/b&gt;" in shown
    assert "<dd>1</dd>" in shown


def test_it_searches_and_keeps_the_query_in_its_links(box: Mailbox) -> None:
    for _ in range(51):
        box.add("news@example.com", ["bob@example.org"], LETTER)
    box.add("news@example.com", ["alice@example.org"], LETTER)
    shown = page("/sandbox/?q=bob%40")
    assert "alice@" not in shown
    assert "?q=bob%40&amp;page=2" in shown


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999", "²"])
def test_it_takes_any_page_number(box: Mailbox, number: str) -> None:
    page(f"/sandbox/?page={number}")


def test_it_says_that_nothing_was_mailed(box: Mailbox) -> None:
    assert "Nothing has been mailed yet" in page("/sandbox/")


@pytest.mark.parametrize(
    ("show", "words"),
    [
        ("html", 'sandbox="allow-popups allow-popups-to-escape-sandbox" src='),
        ("text", "plain &lt;i&gt;words&lt;/i&gt;"),
        ("headers", "<dt>Content-Type</dt>"),
        ("source", "&lt;p&gt;html&lt;/p&gt;"),
        ("nonsense", 'class="desktop"'),
        ("html&width=phone", 'class="phone"'),
    ],
)
def test_it_shows_each_part(box: Mailbox, show: str, words: str) -> None:
    key = box.add("news@example.com", ["bob@example.org"], LETTER)
    assert words in page(f"/sandbox/{key}/?show={show}")


def test_it_shows_the_text_of_a_message_without_html(box: Mailbox) -> None:
    key = box.add("news@example.com", ["bob@example.org"], b"Subject: x\r\n\r\nonly text\r\n")
    assert "only text" in page(f"/sandbox/{key}/")
    assert page(f"/sandbox/{key}/body", 404)


def test_it_fences_the_html_in(box: Mailbox) -> None:
    key = box.add("news@example.com", ["bob@example.org"], LETTER)
    response = Client().get(f"/sandbox/{key}/body")
    assert response.content.strip() == b'<base target="_blank"><p>html</p><script>x</script>'
    assert response["X-Frame-Options"] == "SAMEORIGIN"
    assert response["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: https: http:; "
        "sandbox allow-popups allow-popups-to-escape-sandbox"
    )


@pytest.mark.parametrize("url", ["/sandbox/nope/", "/sandbox/..%2F..%2Fetc/body"])
def test_it_knows_no_such_message(box: Mailbox, url: str) -> None:
    page(url, 404)


def test_it_is_not_there_without_a_directory(box: Mailbox, settings: Any) -> None:
    settings.SANDBOX_DIR = ""
    page("/sandbox/", 404)


def test_it_changes_nothing_at_a_post(box: Mailbox) -> None:
    assert Client().post("/sandbox/").status_code == 405


def test_it_asks_no_other_host_for_anything(box: Mailbox) -> None:
    key = box.add("news@example.com", ["bob@example.org"], LETTER)
    for url in ("/sandbox/", f"/sandbox/{key}/"):
        shown = page(url)
        assert "http://" not in shown and "https://" not in shown and "<script" not in shown
