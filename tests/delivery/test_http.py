"""The guarded fetch, against real sockets."""

from __future__ import annotations

import gzip
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from delivery import pinned
from delivery.errors import EdgeError
from delivery.http import LONGEST_RETRY_AFTER, Limits, Page, expect_success, fetch
from tests.stand_ins.certificate import client_context, server_context
from tests.stand_ins.http import (
    HttpStandIn,
    cut_short,
    drip,
    drop,
    gzip_reply,
    raw,
    redirect,
    reply,
)

HERE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SMALL = Limits(total_seconds=20, connect_seconds=10, max_bytes=1000, max_redirects=2)
QUICK = Limits(total_seconds=0.4, connect_seconds=0.2, max_bytes=1_000_000)


def ask(url: str, **more: Any) -> Page:
    return fetch(url, **{"allow_private": HERE, "limits": SMALL, **more})


def refusal(url: str, **more: Any) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        ask(url, **more)
    return caught.value


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make a name resolve to these addresses, one list after another; return the look-ups."""
    really = socket.getaddrinfo

    def install(name: str, *answers: list[str]) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: int, *rest: Any, **more: Any) -> Any:
            if host != name:
                return really(host, port, *rest, **more)
            asked.append(host)
            addresses = answers[min(len(asked), len(answers)) - 1]
            return [found for a in addresses for found in really(a, port, *rest, **more)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return install


# What comes back


def test_it_returns_the_body_and_type_of_a_page() -> None:
    with HttpStandIn(reply(body="hello", headers={"Content-Type": "text/plain"})) as server:
        page = ask(server.url("/a?b=c"))
    assert (page.status, page.body, page.content_type) == (200, b"hello", "text/plain")
    assert page.url == server.url("/a?b=c")


@pytest.mark.parametrize("status", [204, 304, 404, 429, 503])
def test_it_returns_any_final_status(status: int) -> None:
    with HttpStandIn(reply(status)) as server:
        assert ask(server.url()).status == status
        assert len(server.requests) == 1


def test_it_sends_the_method_json_headers_and_user_agent() -> None:
    with HttpStandIn() as server:
        ask(
            server.url("/hook"),
            method="POST",
            json={"text": "olá"},
            headers={"X-Key": "1"},
            user_agent="Carteiro/1",
        )
    request = server.requests[0]
    assert (request.method, request.path, request.json()) == ("POST", "/hook", {"text": "olá"})
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-key"] == "1"
    assert request.headers["user-agent"] == "Carteiro/1"


def test_it_keeps_no_cookies_between_hops() -> None:
    away = reply(302, headers={"Location": "/b", "Set-Cookie": "a=b"})
    with HttpStandIn(away, reply()) as server:
        ask(server.url("/a"))
    assert "cookie" not in server.requests[1].headers


def test_it_ignores_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with HttpStandIn(reply(body="direct")) as server:
        assert ask(server.url()).body == b"direct"


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "file:///etc/hosts",
        "example.org",
        "http://",
        "http://[::1/",
        "https:///path",
        "//a.org",
        "http://example.org:99999/",
        "http://�/",
        "http://a%20b/",
        "http://%5b/",
        "\x00",
    ],
)
def test_it_refuses_what_is_no_web_url(url: str) -> None:
    assert refusal(url).permanent


@pytest.mark.parametrize("url", ["http://me:pw@127.0.0.1/", "http://token@127.0.0.1/"])
def test_it_refuses_credentials_in_a_url_without_repeating_them(url: str) -> None:
    error = refusal(url)
    assert error.permanent
    assert "user name or password" in error.message
    assert "pw" not in error.message and "token" not in error.message


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "255.255.255.255",
        "localhost",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00::1]",
        "[ff02::1]",
        "[fec0::1]",
        "[3fff::1]",
        "[2001::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::1]",
    ],
)
def test_it_refuses_an_address_that_is_not_public(host: str) -> None:
    error = refusal(f"http://{host}:9/secret", allow_private=())
    assert error.permanent
    assert "not public" in error.message
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
def test_it_takes_an_address_of_the_internet_for_public(text: str) -> None:
    assert pinned.is_public(ip_address(text))


def test_it_sends_nothing_to_a_refused_address() -> None:
    with HttpStandIn() as server:
        refusal(server.url(), allow_private=())
        assert server.requests == []


def test_it_refuses_a_name_that_has_one_private_address_among_public_ones(
    names: Callable[..., list[str]],
) -> None:
    names("news.test", ["8.8.8.8", "127.0.0.1"])
    assert "not public" in refusal("http://news.test/", allow_private=()).message


def test_it_resolves_a_name_once_and_connects_to_what_it_checked(
    names: Callable[..., list[str]],
) -> None:
    asked = names("news.test", ["127.0.0.1"], ["10.0.0.1"])
    with HttpStandIn(reply(body="pinned")) as server:
        assert ask(server.url(host="news.test")).body == b"pinned"
    assert asked == ["news.test"]
    assert server.requests[0].headers["host"] == f"news.test:{server.port}"


def test_it_tries_the_next_address_of_a_name(names: Callable[..., list[str]]) -> None:
    names("news.test", ["127.0.0.2", "127.0.0.1"])
    with HttpStandIn(reply(body="second")) as server:
        assert ask(server.url(host="news.test")).body == b"second"


def test_it_checks_the_name_of_each_redirect(names: Callable[..., list[str]]) -> None:
    names("inside.test", ["10.0.0.1"])
    with HttpStandIn(redirect("http://inside.test/admin")) as server:
        error = refusal(server.url())
    assert error.permanent
    assert error.message.startswith("inside.test leads to an address")


def test_it_checks_a_name_again_when_a_redirect_comes_back_to_it(
    names: Callable[..., list[str]],
) -> None:
    names("news.test", ["127.0.0.1"], ["10.0.0.1"])
    with HttpStandIn(redirect("/again")) as server:
        assert "not public" in refusal(server.url(host="news.test")).message
        assert len(server.requests) == 1


def test_it_tells_a_name_that_does_not_resolve() -> None:
    error = refusal("http://nobody.invalid/secret")
    assert not error.permanent
    assert "nobody.invalid cannot be resolved" in error.message


def test_it_does_not_wait_for_a_resolver_beyond_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def look_up(*_: Any, **__: Any) -> list[Any]:
        release.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    begun = time.monotonic()
    error = refusal("http://slow.test/", limits=QUICK)
    release.set()
    assert "not resolved in time" in error.message
    assert not error.permanent
    assert time.monotonic() - begun < 4


# TLS


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the stand-ins' certificate; everything else is checked as always."""
    monkeypatch.setattr(pinned, "_tls_context", client_context)


@pytest.mark.usefixtures("trusting")
def test_it_checks_the_certificate_and_asks_for_it_by_name() -> None:
    with HttpStandIn(reply(body="safe"), tls=server_context()) as server:
        assert ask(server.url(host="localhost")).body == b"safe"
    assert server.names == ["localhost"]


@pytest.mark.usefixtures("trusting")
def test_it_refuses_a_certificate_of_another_name(names: Callable[..., list[str]]) -> None:
    names("news.test", ["127.0.0.1"])
    with HttpStandIn(tls=server_context()) as server:
        error = refusal(server.url("/secret", host="news.test"))
        assert server.requests == []
    assert "news.test shows a TLS certificate that is not valid" in error.message
    assert not error.permanent


def test_it_refuses_a_certificate_that_nobody_vouches_for() -> None:
    with HttpStandIn(tls=server_context()) as server:
        assert "certificate" in refusal(server.url()).message


def test_it_tells_when_the_other_side_does_not_speak_tls() -> None:
    with HttpStandIn() as server:
        error = refusal(server.url().replace("http:", "https:"))
    assert "TLS" in error.message


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_it_follows_a_redirect_of_a_get(status: int) -> None:
    with HttpStandIn(redirect("/there?x=1", status), reply(body="there")) as server:
        page = ask(server.url("/here"))
    assert (page.body, page.url) == (b"there", server.url("/there?x=1"))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_follows_no_redirect_of_anything_but_get_and_head(method: str) -> None:
    with HttpStandIn(redirect("/there")) as server:
        error = refusal(server.url(), method=method, json={})
        assert len(server.requests) == 1
    assert error.permanent
    assert f"redirects a {method}" in error.message


def test_it_follows_at_most_so_many_redirects() -> None:
    with HttpStandIn(redirect("/again")) as server:
        error = refusal(server.url())
        assert len(server.requests) == SMALL.max_redirects + 1
    assert error.permanent
    assert "more than 2 redirects" in error.message


@pytest.mark.usefixtures("trusting")
def test_it_follows_no_redirect_from_https_to_http() -> None:
    with (
        HttpStandIn() as plain,
        HttpStandIn(redirect(plain.url()), tls=server_context()) as server,
    ):
        error = refusal(server.url())
        assert plain.requests == []
    assert error.permanent
    assert "from https to http" in error.message


@pytest.mark.parametrize(
    "location", ["ftp://a.org/x", "http://u:pw@a.org/", "http://[/", "file:///etc/passwd"]
)
def test_it_refuses_a_redirect_to_what_is_no_web_url(location: str) -> None:
    with HttpStandIn(redirect(location)) as server:
        error = refusal(server.url())
    assert error.permanent
    assert "pw" not in error.message


def test_it_keeps_headers_from_another_origin() -> None:
    with (
        HttpStandIn() as other,
        HttpStandIn(redirect("/same"), redirect(other.url())) as server,
    ):
        ask(server.url(), headers={"Authorization": "secret"})
    assert server.requests[1].headers["authorization"] == "secret"
    assert "authorization" not in other.requests[0].headers


def test_it_returns_a_redirect_that_leads_nowhere() -> None:
    with HttpStandIn(reply(302)) as server:
        assert ask(server.url()).status == 302


# Time and size


def ends_in_time(*replies: Any, redirects: int = 2) -> EdgeError:
    begun = time.monotonic()
    with HttpStandIn(*replies) as server:
        error = refusal(server.url(), limits=replace(QUICK, max_redirects=redirects))
    assert time.monotonic() - begun < 4  # all of it would take 5 and more
    assert not error.permanent
    return error


def test_it_ends_at_the_deadline_when_the_body_drips() -> None:
    error = ends_in_time(drip(b"x" * 100, 0.05))
    assert error.message == "127.0.0.1 did not answer in full within 0.4 seconds"


def test_it_ends_at_the_deadline_when_the_head_drips() -> None:
    ends_in_time(raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50, drip=0.05))


def test_it_ends_at_the_deadline_when_nothing_comes() -> None:
    ends_in_time(reply(delay=5))


def test_it_has_one_deadline_for_all_redirects() -> None:
    slow = reply(302, headers={"Location": "/again"}, delay=0.15)
    ends_in_time(slow, redirects=50)


def test_it_tells_a_refused_connection() -> None:
    with HttpStandIn() as server:
        url = server.url()
    error = refusal(url)
    assert "127.0.0.1 refused the connection" in error.message
    assert not error.permanent


@pytest.mark.parametrize("broken", [drop(), cut_short(b"half"), raw(b"SSH-2.0-x\r\n"), raw(b"\0")])
def test_it_asks_once_when_the_answer_breaks_off(broken: Any) -> None:
    with HttpStandIn(broken) as server:
        error = refusal(server.url("/secret?token=1"))
        assert len(server.requests) == 1
    assert not error.permanent
    assert error.message == "127.0.0.1 broke off, or answered with something that is not HTTP"


def test_it_takes_a_body_of_exactly_the_limit() -> None:
    with HttpStandIn(reply(body=b"x" * 1000)) as server:
        assert len(ask(server.url()).body) == 1000


def test_it_refuses_a_body_above_the_limit() -> None:
    with HttpStandIn(reply(body=b"x" * 1001)) as server:
        error = refusal(server.url())
    assert error.permanent
    assert error.message == "127.0.0.1 sent more than 1,000 bytes"


def test_it_unpacks_gzip() -> None:
    with HttpStandIn(gzip_reply(b"packed")) as server:
        assert ask(server.url()).body == b"packed"
    assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_it_unpacks_gzip_of_several_members() -> None:
    both = gzip.compress(b"one ", mtime=0) + gzip.compress(b"two")
    with HttpStandIn(reply(body=both, headers={"Content-Encoding": "gzip"})) as server:
        assert ask(server.url()).body == b"one two"


def test_it_refuses_a_gzip_bomb_without_unpacking_it() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, mtime=0)
    with HttpStandIn(reply(body=bomb, headers={"Content-Encoding": "gzip"})) as server:
        error = refusal(server.url())
    assert error.permanent
    assert "more than 1,000 bytes" in error.message


@pytest.mark.parametrize(
    ("body", "coding", "told"),
    [
        (gzip.compress(b"text", mtime=0)[:-9], "gzip", "breaks off"),
        (b"no gzip at all", "gzip", "damaged"),
        (b"x", "br", "not asked for"),
        (gzip.compress(gzip.compress(b"twice", mtime=0), mtime=0), "gzip, gzip", "not asked for"),
    ],
)
def test_it_refuses_what_it_cannot_unpack(body: bytes, coding: str, told: str) -> None:
    with HttpStandIn(reply(body=body, headers={"Content-Encoding": coding})) as server:
        error = refusal(server.url())
    assert told in error.message
    assert not error.permanent


def test_it_takes_a_head_without_its_packed_body() -> None:
    with HttpStandIn(gzip_reply(b"packed")) as server:
        assert ask(server.url(), method="HEAD").body == b""


# Secrets


def test_it_tells_no_path_or_query_in_errors_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with HttpStandIn(reply(), drop(), redirect("http://127.0.0.1:1/SECRET")) as server:
        ask(server.url("/SECRET?t=SECRET"))
        errors = [refusal(server.url("/SECRET?t=SECRET")) for _ in range(2)]
    assert not [error for error in errors if "SECRET" in error.message or error.__cause__]
    # At DEBUG, httpcore tells the answer's head with its Location; config/logs.py forbids that.
    said = [r.getMessage() for r in caplog.records if not re.match(r"receive_resp", r.message)]
    assert not [line for line in said if "SECRET" in line]


def test_it_shows_no_url_or_body_when_a_page_is_printed() -> None:
    assert "SECRET" not in repr(Page(200, "http://a.org/SECRET", b"SECRET", "", None))


# Retry-After and statuses


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 3 ", 3.0),
        ("0.5", 0.5),
        ("99999999", LONGEST_RETRY_AFTER),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("-5", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("1, 2", None),
    ],
)
def test_it_reads_retry_after(header: str, seconds: float | None) -> None:
    with HttpStandIn(reply(503, headers={"Retry-After": header})) as server:
        assert ask(server.url()).retry_after == seconds


def test_it_reads_retry_after_as_a_date() -> None:
    at = datetime.now(UTC) + timedelta(minutes=10)
    with HttpStandIn(
        reply(503, headers={"Retry-After": format_datetime(at, usegmt=True)})
    ) as server:
        seconds = ask(server.url()).retry_after
    assert seconds is not None
    assert 590 < seconds <= 600


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_it_takes_every_2xx_for_success(status: int) -> None:
    expect_success(Page(status, "https://a.org/", b"", "", None), "The feed")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_it_takes_a_busy_server_for_temporary(status: int) -> None:
    with pytest.raises(EdgeError) as caught:
        expect_success(Page(status, "https://a.org/SECRET", b"", "", 7.0), "The feed")
    assert (caught.value.permanent, caught.value.retry_after) == (False, 7.0)
    assert (
        caught.value.message
        == f"The feed: a.org answered with status {status}; it may be busy or down"
    )


@pytest.mark.parametrize("status", [302, 304, 400, 401, 403, 404, 410, 422])
def test_it_takes_any_other_status_for_permanent(status: int) -> None:
    with pytest.raises(EdgeError) as caught:
        expect_success(Page(status, "https://a.org/SECRET", b"", "", 7.0), "The feed")
    assert (caught.value.permanent, caught.value.retry_after) == (True, None)
    assert "SECRET" not in caught.value.message
