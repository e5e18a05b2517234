"""What an SMTP server is asked before a send, and what no server can do to the one who asks."""

from __future__ import annotations

import base64
import time

import pytest

from delivery.errors import EdgeError
from delivery.transports import probe as probing
from delivery.transports.probe import Probe, probe
from delivery.transports.smtp_url import parse_smtp_url
from tests.stand_ins.smtp import (
    Act,
    SmtpStandIn,
    drop,
    garbled,
    long_line,
    say,
    say_then_drop,
    stall,
    trusting,
)

PASSWORD = "s3cret-w0rd"


def ask(server: SmtpStandIn, connections: int = 3, url: str = "") -> Probe:
    return probe(
        parse_smtp_url(url or server.url),
        connections=connections,
        local_hostname="sender.test",
        tls_context=trusting() if server.security != "plain" else None,
    )


def refusal(server: SmtpStandIn, url: str = "") -> str:
    with pytest.raises(EdgeError) as caught:
        ask(server, url=url)
    return caught.value.message


def test_it_measures_the_round_trip_and_mails_nothing() -> None:
    with SmtpStandIn(size=1_000_000) as server:
        server.on("noop", stall(0.02))
        found = ask(server)
        assert 0.02 <= found.round_trip < 1
        assert found.size == 1_000_000
        assert {"PIPELINING", "SMTPUTF8", "8BITMIME", "SIZE"} <= found.extensions
        assert (found.admitted, found.refusal) == (3, "")
        assert server.copies == []
        assert len(server.said("QUIT")) == server.connections == 3
        assert not server.said("MAIL")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_it_goes_in_with_tls_and_auth_as_a_mail_does(security: str) -> None:
    with SmtpStandIn(security=security, auth=("ana", PASSWORD)) as server:
        assert ask(server).admitted == 3
        assert len(server.said("AUTH")) == 3


def test_it_opens_no_more_connections_after_the_first_refusal() -> None:
    with SmtpStandIn() as server:
        server.on("greeting", Act(), times=2)
        server.on("greeting", say_then_drop("421 4.7.0 too many from you"))
        found = ask(server, connections=9)
        assert found.admitted == 2
        assert found.refusal == "greeting: 421 4.7.0 too many from you"
        assert server.connections == 3


def test_it_stops_opening_when_its_time_is_over() -> None:
    with SmtpStandIn() as server:
        server.on("greeting", stall(0.1))
        found = probe(
            parse_smtp_url(server.url), connections=50, local_hostname="sender.test", seconds=0.35
        )
        assert 1 <= found.admitted <= 4
        assert found.refusal == ""


@pytest.mark.parametrize(
    ("phase", "act", "said"),
    [
        ("greeting", say("554 5.7.1 not you"), "greeting: 554 5.7.1 not you"),
        ("greeting", drop(), "greeting: the server closed the connection"),
        ("greeting", garbled(), "greeting: "),
        ("greeting", long_line(220), "greeting: a line of more than"),
        ("ehlo", say("550 5.7.1 HELO?"), "EHLO: 550 5.7.1 HELO?"),
        ("noop", say_then_drop("421 4.4.2 bye"), "NOOP: 421 4.4.2 bye"),
        ("noop", drop(), "NOOP: the server closed the connection"),
    ],
)
def test_it_says_where_it_was_not_let_in(phase: str, act: Act, said: str) -> None:
    with SmtpStandIn() as server:
        server.on(phase, act)
        assert refusal(server).startswith(said)


def test_a_server_that_knows_no_noop_is_measured_all_the_same() -> None:
    with SmtpStandIn() as server:
        server.on("noop", say("502 5.5.1 not known"))
        assert ask(server).round_trip > 0


def test_it_tries_a_wrong_password_once_and_shows_no_part_of_it() -> None:
    with SmtpStandIn(security="starttls", auth=("ana", PASSWORD)) as server:
        echo = base64.b64encode(b"\0ana\0wr0ng").decode()
        server.on("auth", say(f"535 5.7.8 no wr0ng {echo} for ana"))
        said = refusal(server, server.url.replace(PASSWORD, "wr0ng"))
        assert said == "AUTH: 535 5.7.8 no ... ... for ..."
        assert server.connections == len(server.said("AUTH")) == 1


def test_it_does_not_trust_a_certificate_that_nobody_vouches_for() -> None:
    with SmtpStandIn(security="tls") as server, pytest.raises(EdgeError, match=r"^TLS: "):
        probe(parse_smtp_url(server.url), connections=1, local_hostname="sender.test")


def test_it_tells_that_nobody_listens_and_that_starttls_is_missing() -> None:
    with SmtpStandIn() as server:
        url = server.url.replace("smtp://", "smtp+starttls://")
        assert refusal(server, url) == "STARTTLS: the server does not announce STARTTLS"
    assert refusal(server).startswith("connect: no connection to 127.0.0.1")


def test_a_server_that_hangs_at_quit_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "QUIT_SECONDS", 0.2)
    with SmtpStandIn() as server:
        server.on("quit", stall())
        began = time.monotonic()
        assert ask(server, connections=5).admitted == 5
        assert time.monotonic() - began < 2
