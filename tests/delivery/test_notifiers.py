"""Notices: what Discord and Slack are sent, and the bytes of an e-mail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from delivery.errors import EdgeError
from delivery.http import fetch
from delivery.notifiers import Notice, discord, email, slack
from tests.stand_ins.http import HttpStandIn, Request, drop, redirect, reply

FETCH = partial(fetch, allow_private=(ip_network("127.0.0.0/8"),))
NOTICE = Notice(
    event="issue_sent",
    level="info",
    title="“Forty-two” was sent",
    lines=("sent 998", "failed 2"),
    url="https://news.example.org/admin/42/?a=1&b=2",
)
NOTIFIERS = [discord.notify, slack.notify]
Notify = Callable[..., None]


def told(notify: Notify, notice: Notice) -> Request:
    with HttpStandIn(reply(204)) as server:
        notify(server.url("/hooks/SECRET"), notice, fetch=FETCH)
    assert len(server.requests) == 1
    return server.requests[0]


# Both webhooks


@pytest.mark.parametrize("notify", NOTIFIERS)
def test_it_makes_one_post_of_json(notify: Notify) -> None:
    request = told(notify, NOTICE)
    assert (request.method, request.path) == ("POST", "/hooks/SECRET")
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("notify", NOTIFIERS)
@pytest.mark.parametrize(
    ("answer", "permanent", "retry_after"),
    [
        (reply(404), True, None),
        (reply(429, headers={"Retry-After": "9"}), False, 9.0),
        (reply(500), False, None),
        (redirect("/elsewhere"), True, None),
        (drop(), False, None),
    ],
)
def test_it_tells_a_failure_once_and_without_the_secret(
    notify: Notify, answer: Any, permanent: bool, retry_after: float | None
) -> None:
    with HttpStandIn(answer) as server, pytest.raises(EdgeError) as caught:
        notify(server.url("/hooks/SECRET?t=SECRET"), NOTICE, fetch=FETCH)
    assert (caught.value.permanent, caught.value.retry_after) == (permanent, retry_after)
    assert "127.0.0.1" in caught.value.message
    assert "SECRET" not in caught.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("notify", NOTIFIERS)
def test_it_sends_odd_characters_as_spaces(notify: Notify) -> None:
    odd = replace(NOTICE, title="a\ud800b\x00c", lines=("d\x1be",))
    body = told(notify, odd).body.decode()
    assert "a b c" in body
    assert "d e" in body


# Discord


def test_it_gives_discord_an_embed() -> None:
    data = told(discord.notify, NOTICE).json()
    assert data["embeds"] == [
        {
            "title": NOTICE.title,
            "description": "sent 998\nfailed 2",
            "color": 0x2E7D32,
            "url": NOTICE.url,
            "footer": {"text": "issue_sent"},
        }
    ]


def test_it_lets_discord_mention_nobody() -> None:
    data = told(discord.notify, replace(NOTICE, title="@everyone")).json()
    assert data["allowed_mentions"] == {"parse": []}


def test_it_colours_discord_s_embed_by_level() -> None:
    levels = ("info", "warning", "error")
    notices = [Notice("e", level, "t", (), "") for level in levels]  # type: ignore[arg-type]
    colours = {told(discord.notify, notice).json()["embeds"][0]["color"] for notice in notices}
    assert len(colours) == 3


def test_it_keeps_discord_s_limits() -> None:
    long = replace(NOTICE, title="t" * 300, lines=("l" * 3000, "m" * 3000))
    embed = told(discord.notify, long).json()["embeds"][0]
    assert (len(embed["title"]), len(embed["description"])) == (256, 4096)
    assert embed["title"].endswith("…") and embed["description"].endswith("…")


def test_it_gives_discord_no_empty_fields() -> None:
    embed = told(discord.notify, replace(NOTICE, lines=(), url="")).json()["embeds"][0]
    assert "url" not in embed
    assert "description" not in embed


# Slack


def texts(notice: Notice) -> list[str]:
    return [block["text"]["text"] for block in told(slack.notify, notice).json()["blocks"]]


def test_it_gives_slack_a_heading_lines_and_a_link() -> None:
    assert texts(NOTICE) == [
        "✅ “Forty-two” was sent",
        "sent 998\nfailed 2",
        "<https://news.example.org/admin/42/?a=1&amp;b=2|Open in Carteiro>",
    ]


def test_it_escapes_what_slack_would_read_as_a_mention_or_link() -> None:
    data = told(slack.notify, replace(NOTICE, title="<!here> & co", lines=("<@U1> & co",))).json()
    assert data["text"] == "✅ &lt;!here&gt; &amp; co"
    assert data["blocks"][1]["text"]["text"] == "&lt;@U1&gt; &amp; co"
    assert data["blocks"][0]["text"]["type"] == "plain_text"


def test_it_keeps_slack_s_limits_and_cuts_no_escape_in_two() -> None:
    long = replace(NOTICE, title="t" * 4000, lines=("&" * 4000, "x" * 2999, *["y" * 2000] * 60))
    data = told(slack.notify, long).json()
    sections = [block["text"]["text"] for block in data["blocks"][1:]]
    assert len(data["blocks"][0]["text"]["text"]) == 150
    assert len(data["blocks"]) <= 50
    assert max(map(len, [data["text"], *sections])) <= 3000
    assert sections[0].replace("&amp;", "") == "…"


def test_it_packs_slack_s_lines_into_few_sections() -> None:
    many = replace(NOTICE, lines=("z" * 99,) * 60, url="")
    assert [len(text) for text in texts(many)[1:]] == [2999, 2999]


# E-mail


def composed(notice: Notice = NOTICE, **changes: Any) -> bytes:
    usual = {
        "from_address": "Carteiro <news@example.org>",
        "to_address": "ops@example.org",
        "date": datetime(2026, 11, 23, 7, 0, tzinfo=UTC),
        "message_id": "<notice.1@example.org>",
    }
    return email.compose(notice, **{**usual, **changes})


def parsed(data: bytes) -> EmailMessage:
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_it_composes_a_message() -> None:
    message = parsed(composed())
    assert message["From"] == "Carteiro <news@example.org>"
    assert message["To"] == "ops@example.org"
    assert message["Subject"] == NOTICE.title
    assert message["Date"] == "Mon, 23 Nov 2026 07:00:00 +0000"
    assert message["Message-ID"] == "<notice.1@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content().replace("\r\n", "\n")
    assert "sent 998\nfailed 2\n" in text
    assert NOTICE.url in text


def test_it_composes_the_same_bytes_from_the_same_arguments() -> None:
    assert composed() == composed()


def test_it_composes_short_ascii_lines_that_end_in_crlf() -> None:
    data = composed(replace(NOTICE, lines=("é" * 3000, "x" * 3000)))
    assert data.isascii()
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert b"\r" not in data.replace(b"\r\n", b"")
    assert max(map(len, data.split(b"\r\n"))) <= 998


def test_it_puts_the_level_into_the_subject() -> None:
    assert parsed(composed(replace(NOTICE, level="error")))["Subject"].startswith("Error: ")


def test_it_keeps_a_long_message_id_on_the_wire_as_it_is() -> None:
    long = f"<notice.{'a' * 90}@{'b' * 60}.example.org>"
    assert long.encode() in composed(message_id=long)


def test_it_takes_any_language_and_emoji_in_a_title() -> None:
    title = "Olá\u00a0👩\u200d🚀 漢字 한글 " * 5
    assert parsed(composed(replace(NOTICE, title=title)))["Subject"].split() == title.split()


@pytest.mark.parametrize(
    "title",
    [
        "a\r\nBcc: x@y.org",
        "a\nb",
        "a\rb",
        "a\x00b",
        "a\u2028b",
        "=?utf-8?q?a=0D=0ABcc:_x=40y.org?=",
        "=?utf-8?b?YQ0KQmNjOiB4QHkub3Jn?=",
        "=?utf-8?q?a=0Ab?= =?utf-8?q?c?=",
    ],
)
def test_it_refuses_a_title_that_would_forge_a_header(title: str) -> None:
    with pytest.raises(EdgeError) as caught:
        composed(replace(NOTICE, title=title))
    assert caught.value.permanent
    assert "Subject" in caught.value.message
    assert "y.org" not in caught.value.message


@pytest.mark.parametrize("name", ["from_address", "to_address"])
@pytest.mark.parametrize(
    "address",
    [
        "a@b.org\r\nBcc: x@y.org",
        "a@b.org, x@y.org",
        "",
        "nobody",
        "a@",
        "é@b.org",
        "a@b.org\x00",
        "=?utf-8?q?a=0D=0ABcc:_x=40y.org?= <a@b.org>",
        "a@b.org x@y.org",
        "<>",
        "g: x@y.org;",
    ],
)
def test_it_refuses_anything_but_one_address(name: str, address: str) -> None:
    with pytest.raises(EdgeError) as caught:
        composed(NOTICE, **{name: address})
    assert caught.value.permanent
    assert "y.org" not in caught.value.message and "b.org" not in caught.value.message


@pytest.mark.parametrize(
    "message_id", ["", "x@y", "<x>", "<a@b>\r\nBcc: x", "<a b@c>", "<é@b.org>"]
)
def test_it_refuses_a_malformed_message_id(message_id: str) -> None:
    with pytest.raises(EdgeError, match="Message-ID"):
        composed(message_id=message_id)


def test_it_refuses_a_date_without_a_zone() -> None:
    with pytest.raises(EdgeError, match="no time zone"):
        composed(date=datetime(2026, 11, 23))


def test_it_writes_no_header_line_of_its_own_from_the_lines() -> None:
    body = composed(replace(NOTICE, lines=("a\r\nBcc: x@y.org", json.dumps("\n"))))
    assert parsed(body).keys() == parsed(composed()).keys()
