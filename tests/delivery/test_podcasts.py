"""Podcast feeds and metadata files, asked for over a real socket."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from delivery.errors import EdgeError
from delivery.http import fetch
from delivery.podcasts import Answer, Episode, Question, ask
from tests.stand_ins.http import HttpStandIn, redirect, reply

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
LAST_RELEASE = NOW - timedelta(days=7)
MONDAY = NOW - timedelta(hours=2)
FETCH = partial(fetch, allow_private=(ip_network("127.0.0.0/8"),))
MP3 = "https://cdn.example.org/42.mp3"


def question(**changes: Any) -> Question:
    usual = {"issue_slug": "n42", "after": LAST_RELEASE, "now": NOW, "used_keys": frozenset()}
    return Question(**{**usual, **changes})


def answer(body: bytes | str, kind: str = "", **changes: Any) -> Answer:
    with HttpStandIn(reply(body=body, headers={"Content-Type": kind})) as server:
        return ask(server.url("/podcast?key=SECRET"), question(**changes), fetch=FETCH)


def episode(body: bytes | str, **changes: Any) -> Episode:
    said = answer(body, **changes)
    assert said.state == "ready", said.reason
    assert said.episode is not None
    return said.episode


def fault(body: bytes | str, kind: str = "") -> str:
    with pytest.raises(EdgeError) as caught:
        answer(body, kind)
    assert not caught.value.permanent
    assert "127.0.0.1" in caught.value.message
    assert "SECRET" not in caught.value.message
    return caught.value.message


def metadata(**changes: Any) -> str:
    usual = {"status": "ready", "issue": "n42", "url": MP3, "title": "Forty-two", "duration": 1830}
    data: Mapping[str, Any] = {**usual, **changes}
    return json.dumps({name: value for name, value in data.items() if value is not ...})


def item(
    guid: str = "ep-42",
    at: datetime | None = MONDAY,
    url: str = MP3,
    title: str = "Forty-two",
    extra: str = "",
) -> str:
    date = f"<pubDate>{format_datetime(at)}</pubDate>" if at else ""
    enclosure = f'<enclosure url="{url}" type="audio/mpeg" length="1"/>' if url else ""
    name = f'<guid isPermaLink="false">{guid}</guid>' if guid else ""
    return f"<item><title>{title}</title>{name}{date}{enclosure}{extra}</item>"


def rss(*items: str, before: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{before}<rss version="2.0" '
        'xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"><channel><title>Pod</title>'
        f"{''.join(items)}</channel></rss>"
    )


# Metadata


def test_it_reads_a_ready_episode_from_metadata() -> None:
    assert episode(metadata()) == Episode(MP3, "Forty-two", MP3, 1830, None)


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_it_passes_on_pending_and_failed(state: str) -> None:
    said = answer(metadata(status=state))
    assert (said.state, said.episode) == (state, None)
    assert said.reason == f"the metadata says {state}"


@pytest.mark.parametrize("state", ["ready", "failed", "anything"])
def test_it_waits_while_the_metadata_is_still_for_another_issue(state: str) -> None:
    said = answer(metadata(issue="n41", status=state))
    assert said.state == "pending"
    assert said.reason == 'the metadata is still for another issue, "n41"'


@pytest.mark.parametrize("issue", [..., None])
def test_it_takes_metadata_that_names_no_issue(issue: Any) -> None:
    assert episode(metadata(issue=issue)).url == MP3


def test_it_waits_while_the_metadata_has_a_used_episode() -> None:
    said = answer(metadata(issue=...), used_keys=frozenset({MP3}))
    assert said.state == "pending"
    assert "used already" in said.reason


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(61, 61), ("61", 61), (61.9, 61), ("1:01", 61), ("1:00:01", 3601), (None, None), ("", None)],
)
def test_it_reads_a_duration_in_seconds(duration: Any, seconds: int | None) -> None:
    assert episode(metadata(duration=duration)).duration_seconds == seconds


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": "done"}, '"status" must be one of ready, pending, failed'),
        ({"status": ...}, '"status" must be one of'),
        ({"status": ["ready"]}, '"status" must be one of'),
        ({"url": ...}, '"url" is missing'),
        ({"url": " "}, '"url" is missing'),
        ({"url": 7}, '"url" is missing'),
        ({"url": "ftp://a.org/x.mp3"}, '"url" must be an http(s) URL'),
        ({"url": "javascript:alert(1)"}, '"url" must be an http(s) URL'),
        ({"url": "https://me:pw@a.org/x.mp3"}, '"url" must be an http(s) URL'),
        ({"url": "https://a.org/x\r\nBcc: y"}, '"url" must be an http(s) URL'),
        ({"url": "https://a.org/" + "x" * 2000}, '"url" must be an http(s) URL'),
        ({"title": 7}, '"title" must be text'),
        ({"duration": "long"}, '"duration" must be a number of seconds'),
        ({"duration": -1}, '"duration" must be a number of seconds'),
        ({"duration": True}, '"duration" must be a number of seconds'),
        ({"duration": 1e300}, '"duration" must be a number of seconds'),
        ({"duration": 10**9}, '"duration" must be a number of seconds'),
    ],
)
def test_it_tells_what_is_wrong_with_metadata(changes: dict[str, Any], told: str) -> None:
    assert told in fault(metadata(**changes))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[]", "one JSON object"),
        (b'{\n "status": ', "not valid JSON (line 2"),
        (b'{"status": "\xff"}', "not valid JSON in UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"duration": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_it_tells_that_it_is_not_valid_json(body: bytes, told: str) -> None:
    assert told in fault(body)


def test_it_takes_the_type_for_json_where_the_content_does_not_tell() -> None:
    assert "not valid JSON" in fault("", "application/json; charset=utf-8")


def test_it_takes_a_byte_order_mark_before_json() -> None:
    assert episode(b"\xef\xbb\xbf" + metadata().encode()).url == MP3


def test_it_makes_a_title_plain() -> None:
    title = episode(metadata(title="One\r\nBcc: two\x00\ud800 \u202eevil" + "x" * 400)).title
    assert title.startswith("One Bcc: two evil")
    assert len(title) == 300


# Feeds


def test_it_reads_the_newest_episode_of_a_feed() -> None:
    old = item("ep-41", MONDAY - timedelta(days=1), "https://cdn.example.org/41.mp3", "Old")
    assert episode(rss(old, item())) == Episode("ep-42", "Forty-two", MP3, None, MONDAY)


def test_it_reads_an_atom_feed() -> None:
    feed = (
        '<feed xmlns="http://www.w3.org/2005/Atom"><title>Pod</title><entry><id>urn:42</id>'
        "<title>A &lt; B</title><updated>2026-11-23T05:00:00Z</updated>"
        f'<link rel="enclosure" type="audio/mpeg" href="{MP3}"/></entry></feed>'
    )
    assert episode(feed) == Episode("urn:42", "A < B", MP3, None, MONDAY)


def test_it_gives_times_in_utc() -> None:
    local = datetime.fromisoformat("2026-11-23T03:00:00-03:00")
    assert episode(rss(item(at=local))).published_at == datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1:02:03", 3723), ("02:03", 123), ("90", 90), ("90.5", 90), ("soon", None), ("-5", None)],
)
def test_it_reads_an_itunes_duration(text: str, seconds: int | None) -> None:
    extra = f"<itunes:duration>{text}</itunes:duration>"
    assert episode(rss(item(extra=extra))).duration_seconds == seconds


def test_it_waits_when_the_newest_episode_is_before_the_last_release() -> None:
    said = answer(rss(item(at=LAST_RELEASE - timedelta(hours=1))))
    assert said.state == "pending"
    assert said.reason == "newest episode is of 2026-11-16, before the last release"


def test_it_does_not_take_an_episode_of_the_very_moment_of_the_last_release() -> None:
    assert answer(rss(item(at=LAST_RELEASE))).state == "pending"


def test_it_takes_an_old_episode_before_the_first_release() -> None:
    assert episode(rss(item(at=NOW - timedelta(days=400))), after=None).key == "ep-42"


def test_it_waits_for_an_episode_in_the_future() -> None:
    said = answer(rss(item(at=NOW + timedelta(days=1))))
    assert said.state == "pending"
    assert said.reason == "the feed's next episode is of 2026-11-24, in the future"


def test_it_passes_over_an_episode_in_the_future() -> None:
    later = item("ep-43", NOW + timedelta(days=1))
    assert episode(rss(later, item())).key == "ep-42"


def test_it_never_takes_a_used_episode_again() -> None:
    said = answer(rss(item()), used_keys=frozenset({"ep-42"}))
    assert said.state == "pending"
    assert said.reason == "newest episode is of 2026-11-23, and was used already"


def test_it_takes_the_next_newest_where_the_newest_was_used() -> None:
    other = item("ep-41", MONDAY - timedelta(days=1))
    assert episode(rss(item(), other), used_keys=frozenset({"ep-42"})).key == "ep-41"


def test_it_knows_an_episode_by_its_enclosure_where_it_has_no_guid() -> None:
    assert episode(rss(item(guid=""))).key == MP3


def test_it_keeps_a_guid_as_it_is_whatever_the_feed_s_address() -> None:
    permalink = item("42").replace(' isPermaLink="false"', "")
    assert episode(rss(permalink)).key == "42"


def test_it_hashes_a_guid_that_is_too_long_to_store() -> None:
    keys = {episode(rss(item("g" * 400 + end))).key for end in "ab"}
    assert len(keys) == 2
    assert all(key.startswith("sha256:") and len(key) <= 255 for key in keys)


def test_it_takes_an_item_without_a_date_only_before_the_first_release() -> None:
    undated = rss(item(at=None))
    assert episode(undated, after=None).published_at is None
    assert "without a date" in answer(undated).reason


def test_it_counts_a_date_that_cannot_be_read_as_none() -> None:
    odd = item(at=None, extra="<pubDate>next Monday</pubDate>")
    assert "without a date" in answer(rss(odd)).reason


@pytest.mark.parametrize(
    "items", [(), (item(url=""),), (item(url="ftp://a.org/x.mp3"),), (item(url="http://[/"),)]
)
def test_it_waits_where_no_item_has_a_usable_enclosure(items: tuple[str, ...]) -> None:
    said = answer(rss(*items))
    assert said.state == "pending"
    assert said.reason == "the feed has no item with an enclosure yet"


def test_it_prefers_audio_among_enclosures() -> None:
    cover = '<enclosure url="https://cdn.example.org/cover.png" type="image/png"/>'
    two = item(url="").replace(
        "</item>", f'{cover}<enclosure url="{MP3}" type="AUDIO/mpeg"/></item>'
    )
    assert episode(rss(two)).url == MP3


def test_it_takes_an_enclosure_of_any_type() -> None:
    other = f'<enclosure url="{MP3}"/>'
    assert episode(rss(item(url="", extra=other))).url == MP3


def test_it_resolves_a_relative_enclosure() -> None:
    with HttpStandIn(redirect("/pod/feed.xml"), reply(body=rss(item(url="42.mp3")))) as server:
        said = ask(server.url("/"), question(), fetch=FETCH)
        assert said.episode is not None
        assert said.episode.url == server.url("/pod/42.mp3")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("AT&amp;T &lt;b&gt;live&lt;/b&gt;", "AT&T live"),
        ("<![CDATA[<i>Olá</i>,\n mundo]]>", "Olá, mundo"),
        ("2 &lt; 3", "2 < 3"),
        ("<![CDATA[<img src='x' onerror='y'></img>Hi]]>", "Hi"),
        ("Vol.&#9;7\u202e", "Vol. 7"),
    ],
)
def test_it_gives_a_feed_s_title_as_plain_text(markup: str, text: str) -> None:
    assert episode(rss(item(title=markup))).title == text


def test_it_reads_a_feed_in_its_declared_encoding() -> None:
    feed = rss(item(title="Olá")).replace("utf-8", "iso-8859-1").encode("latin-1")
    assert episode(feed).title == "Olá"


def test_it_reads_a_feed_whatever_type_the_server_says() -> None:
    assert answer(rss(item()), "text/html").state == "ready"
    assert answer(rss(item()), "application/json").state == "ready"


def test_it_forgives_a_feed_that_is_not_well_formed() -> None:
    assert episode(rss(item(title="R&D &nbsp; more"))).url == MP3


# Hostile and broken


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("", "neither RSS nor Atom nor a JSON object"),
        ("hello", "neither RSS nor Atom"),
        ("<!doctype html><html><body>Log in</body></html>", "is it a web page?"),
        ("/etc/hostname", "neither RSS nor Atom"),
        (rss(before="\n" * 9000), "neither RSS nor Atom"),
        (rss(before='<!DOCTYPE rss [<!ENTITY a "b">]>'), "declares entities"),
        (rss(before='<!DOCTYPE r [<!entity x SYSTEM "file:///etc/passwd">]>'), "entities"),
        (rss().replace("utf-8", "punycode"), "unusual encoding"),
        (rss().encode("utf-16"), "UTF-8"),
    ],
)
def test_it_refuses_what_is_no_feed_or_a_hostile_one(body: bytes | str, told: str) -> None:
    assert told in fault(body)


def test_it_is_not_kept_busy_by_a_huge_title() -> None:
    begun = time.monotonic()
    assert answer(rss(item(title="&lt;!--" * 200_000))).state == "ready"
    assert time.monotonic() - begun < 5


def test_it_takes_a_plain_doctype() -> None:
    assert episode(rss(item(), before="<!DOCTYPE rss>")).key == "ep-42"


def test_it_takes_a_missing_file_for_temporary() -> None:
    with HttpStandIn(reply(404)) as server, pytest.raises(EdgeError) as caught:
        ask(server.url("/SECRET"), question(), fetch=FETCH)
    assert not caught.value.permanent
    assert "nothing is there yet at 127.0.0.1" in caught.value.message


def test_it_takes_a_forbidden_file_for_permanent() -> None:
    with HttpStandIn(reply(403)) as server, pytest.raises(EdgeError) as caught:
        ask(server.url(), question(), fetch=FETCH)
    assert caught.value.permanent


def test_it_passes_on_how_long_a_busy_server_wants_to_be_left_alone() -> None:
    with (
        HttpStandIn(reply(503, headers={"Retry-After": "30"})) as server,
        pytest.raises(EdgeError) as caught,
    ):
        ask(server.url(), question(), fetch=FETCH)
    assert caught.value.retry_after == 30
