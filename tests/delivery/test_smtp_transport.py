from __future__ import annotations

import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from delivery.transports import Envelope
from delivery.transports.outcomes import Outcome, Phase, Verdict
from delivery.transports.smtp import SmtpConnection, SmtpTransport, Timeouts, parse_smtp_url
from tests.stand_ins.smtp import (
    Act,
    SmtpStandIn,
    accept_then_drop,
    drop,
    garbled,
    long_line,
    say,
    say_then_drop,
    stall,
    trickle,
    trusting,
)

MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"
STEPWISE = ("8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
PIPELINED = (*STEPWISE, "PIPELINING")
QUICK = Timeouts(connect=2, greeting=0.4, command=0.4, data=0.4, dot=0.4)
PATIENT = Timeouts(connect=5, greeting=5, command=5, data=5, dot=5)
OPENED: list[SmtpConnection] = []


def copy_for(name: str = "bob", data: bytes = MESSAGE) -> Envelope:
    return Envelope("news@example.com", f"{name}@example.org", data)


def connect(
    server: SmtpStandIn, timeouts: Timeouts = PATIENT, tls: ssl.SSLContext | None = None
) -> SmtpConnection:
    transport = SmtpTransport(
        parse_smtp_url(server.url),
        timeouts=timeouts,
        local_hostname="sender.test",
        tls_context=tls,
    )
    OPENED.append(transport.connect())
    return OPENED[-1]


def attempt(server: SmtpStandIn, timeouts: Timeouts = PATIENT, data: bytes = MESSAGE) -> Outcome:
    connection = connect(server, timeouts)
    outcome = connection.send(copy_for(data=data))
    connection.close()
    return outcome


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(params=[PIPELINED, STEPWISE], ids=["pipelined", "stepwise"])
def server(request: pytest.FixtureRequest) -> Iterator[SmtpStandIn]:
    with SmtpStandIn(extensions=request.param) as server:
        yield server


@pytest.fixture
def pipelining() -> Iterator[SmtpStandIn]:
    with SmtpStandIn(extensions=PIPELINED) as server:
        yield server


def test_it_sends_one_copy(server: SmtpStandIn) -> None:
    outcome = attempt(server)
    assert (outcome.verdict, outcome.reply) == (Verdict.SENT, "250 2.0.0 queued")
    assert [(c.mail_from, c.rcpt_to, c.data, c.accepted) for c in server.copies] == [
        ("news@example.com", ("bob@example.org",), MESSAGE, True)
    ]


def test_it_opens_nothing_before_the_first_send(server: SmtpStandIn) -> None:
    connect(server).close()
    assert server.connections == 0


def test_it_keeps_its_connection_between_sends(server: SmtpStandIn) -> None:
    connection = connect(server)
    for name in ("alice", "bob", "charlie"):
        assert connection.send(copy_for(name)).verdict is Verdict.SENT
    assert (server.connections, len(server.said("EHLO sender.test"))) == (1, 1)


@pytest.mark.parametrize(
    "data",
    [b".\r\n", b".dot\r\n..dots\r\n\r\n.\r\nend\r\n", b"no end", b"bare\nfeed\n.\nno end\n\r."],
)
def test_it_carries_any_bytes_as_one_message(server: SmtpStandIn, data: bytes) -> None:
    attempt(server, data=data)
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n")
    assert [copy.data for copy in server.copies] == [b"\r\n".join(lines) + b"\r\n"]


def test_it_announces_size_and_eight_bits(server: SmtpStandIn) -> None:
    attempt(server)
    assert server.said("MAIL") == [
        f"MAIL FROM:<news@example.com> SIZE={len(MESSAGE)} BODY=8BITMIME"
    ]


def test_it_fails_a_message_that_is_larger_than_announced_before_the_wire() -> None:
    with SmtpStandIn(size=1000) as server:
        outcome = attempt(server, data=b"x" * 2000)
        assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "message_too_large")
        assert server.said("MAIL") == []


def test_it_asks_for_smtputf8_only_where_an_address_needs_it(server: SmtpStandIn) -> None:
    connection = connect(server)
    connection.send(copy_for("bob"))
    assert connection.send(copy_for("zoë")).verdict is Verdict.SENT
    assert [line.endswith(" SMTPUTF8") for line in server.said("MAIL")] == [False, True]
    assert server.copies[1].rcpt_to == ("zoë@example.org",)


def test_it_fails_and_suppresses_nobody_where_smtputf8_is_missing() -> None:
    with SmtpStandIn(extensions=()) as server:
        outcome = connect(server).send(copy_for("zoë"))
        assert (outcome.verdict, outcome.suppress) == (Verdict.FAILED, False)
        assert outcome.reason == "recipient_needs_smtputf8"


@pytest.mark.parametrize("name", ["bob>\r\nRCPT TO:<eve", "bob> X=1 <", "a b", "\ud800"])
def test_it_refuses_an_address_that_would_smuggle(server: SmtpStandIn, name: str) -> None:
    outcome = connect(server).send(copy_for(name))
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "recipient_unusable")
    assert server.connections == 0


def test_it_retries_the_channel_when_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"smtp://127.0.0.1:{taken.getsockname()[1]}"
    transport = SmtpTransport(parse_smtp_url(url), local_hostname="sender.test")
    outcome = transport.connect().send(copy_for())
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "connect_failed")
    assert outcome.phase is Phase.CONNECT


TALK = ["greeting", "ehlo", "mail", "rcpt", "data"]
MEGABYTE = Act(b"250-more and more\r\n" * 50_000 + b"250 end\r\n")


@pytest.mark.parametrize("phase", TALK)
@pytest.mark.parametrize(
    "act",
    [drop(), garbled(), long_line(250), long_line(550), say("399 odd"), MEGABYTE],
    ids=["drop", "garbled", "long250", "long550", "3xx", "1MB"],
)
def test_it_retries_the_channel_when_the_dialogue_breaks(
    server: SmtpStandIn, phase: str, act: Act
) -> None:
    server.on(phase, act)
    outcome = attempt(server)
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase(phase))
    assert server.copies == []


@pytest.mark.parametrize("phase", TALK[1:])  # at the greeting it can come before connect() is over
def test_it_retries_the_channel_when_the_connection_is_reset(
    server: SmtpStandIn, phase: str
) -> None:
    server.on(phase, drop(reset=True))
    outcome = attempt(server)
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase(phase))


@pytest.mark.parametrize("phase", TALK)
def test_it_waits_for_no_reply_longer_than_its_step(server: SmtpStandIn, phase: str) -> None:
    server.on(phase, stall())
    outcome = attempt(server, QUICK)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "timed_out")


@pytest.mark.parametrize("phase", TALK)
def test_it_waits_for_no_slow_reply_longer_than_its_step(server: SmtpStandIn, phase: str) -> None:
    server.on(phase, trickle("250 ok", 0.1))
    outcome = attempt(server, QUICK)
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase(phase))


def test_it_is_not_held_by_a_server_that_writes_slowly(server: SmtpStandIn) -> None:
    server.on("dot", trickle("250 ok", 0.1))
    outcome = attempt(server, QUICK)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, "timed_out")


@pytest.mark.parametrize(
    "act",
    [accept_then_drop(), drop(), drop(reset=True), garbled(), long_line(250), long_line(550),
     say("354 odd"), Act(b"250 cut o", drop=True), Act(b"250-ok\r\n550 no\r\n"),
     MEGABYTE],
    ids=["lost", "drop", "reset", "garbled", "long250", "long550", "3xx", "cut", "mixed", "1MB"],
)  # fmt: skip
def test_it_does_not_know_when_the_reply_to_the_dot_is_lost(server: SmtpStandIn, act: Act) -> None:
    server.on("dot", act)
    assert attempt(server).verdict is Verdict.UNKNOWN


def test_it_makes_one_request_an_attempt_when_the_reply_is_lost(server: SmtpStandIn) -> None:
    server.on("dot", accept_then_drop())
    attempt(server)
    assert (len(server.said("DATA")), len(server.copies), server.connections) == (1, 1, 1)


def test_it_does_not_know_when_the_dot_is_never_answered(server: SmtpStandIn) -> None:
    server.on("dot", stall(accepted=True))
    outcome = attempt(server, QUICK)
    assert (outcome.verdict, outcome.phase) == (Verdict.UNKNOWN, Phase.DOT)


def test_it_believes_a_real_500_line_too_long(server: SmtpStandIn) -> None:
    server.on("dot", say("500 Line too long"))
    assert attempt(server).verdict is Verdict.FAILED


def test_it_reads_replies_of_several_lines(server: SmtpStandIn) -> None:
    for phase in ("greeting", "mail", "rcpt", "dot"):
        code = 220 if phase == "greeting" else 250
        server.on(phase, say(f"{code}-2.0.0 thank you", f"{code}-", f"{code} 2.0.0 queued"))
    server.on("data", say("354-go", "354 on"))
    assert attempt(server).verdict is Verdict.SENT


def test_it_retries_the_channel_when_the_body_is_cut_off(server: SmtpStandIn) -> None:
    server.on("body", drop())
    big = b"x" * 76 + b"\r\n"
    outcome = attempt(server, data=big * 300_000)
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.BODY)


def test_it_stops_writing_a_body_that_is_not_read(server: SmtpStandIn) -> None:
    server.on("body", stall())
    outcome = attempt(server, QUICK, data=(b"x" * 76 + b"\r\n") * 300_000)
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.BODY)
    assert outcome.reason == "timed_out"


def test_it_sends_no_dot_after_an_answer_to_the_body(server: SmtpStandIn) -> None:
    server.on("body", say("451 4.3.0 early"))
    outcome = attempt(server, data=(b"x" * 76 + b"\r\n") * 300_000)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "early_reply")
    assert [copy for copy in server.copies if copy.accepted] == []


@pytest.mark.parametrize("early", ["451 4.3.0 early", "552 5.3.4 early", "421 4.3.2 closing"])
def test_it_takes_no_late_answer_to_the_body_for_the_dots(server: SmtpStandIn, early: str) -> None:
    server.on("dot", Act(f"{early}\r\n250 2.0.0 queued\r\n".encode(), accepted=True))
    outcome = attempt(server)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, "out_of_step")


@pytest.mark.parametrize(
    "act",
    [drop(), garbled(), stall(), say("500 what?"), say("552 5.3.4 too big", "221 bye")],
    ids=["drop", "garbled", "stall", "5xx", "twice"],
)
def test_it_believes_a_refusal_that_nothing_contradicts(server: SmtpStandIn, act: Act) -> None:
    server.on("dot", say("552 5.3.4 too big"))
    server.on("quit", act)
    assert attempt(server, QUICK).verdict is Verdict.FAILED


@pytest.mark.parametrize("phase", ["greeting", "ehlo"])
def test_it_begins_no_message_after_a_word_too_many(server: SmtpStandIn, phase: str) -> None:
    usual = b"220 ready\r\n" if phase == "greeting" else b"250-stand-in\r\n250 PIPELINING\r\n"
    server.on(phase, Act(usual + b"250 ok\r\n"))
    outcome = attempt(server)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "early_reply")
    assert server.said("MAIL") == []


@pytest.mark.parametrize("phase", ["mail", "rcpt"])
def test_it_never_sends_where_a_reply_too_many_came(server: SmtpStandIn, phase: str) -> None:
    server.on(phase, Act(b"250 2.1.0 ok\r\n250 2.1.0 ok\r\n"))
    outcome = attempt(server)
    assert outcome.verdict is Verdict.RETRY_CHANNEL
    assert server.copies == []


@pytest.mark.parametrize("phase", [*TALK, "dot"])
def test_it_retries_the_channel_at_a_421(server: SmtpStandIn, phase: str) -> None:
    server.on(phase, say_then_drop("421 4.3.2 bye"))
    outcome = attempt(server)
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase(phase))


def test_it_takes_no_reply_that_came_before_the_dot_for_the_dots(server: SmtpStandIn) -> None:
    server.on("data", Act(b"354 go on\r\n250 2.0.0 queued\r\n"))
    outcome = attempt(server)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "early_reply")
    assert [c for c in server.copies if c.accepted] == []


@pytest.mark.parametrize(
    ("phase", "reply", "verdict"),
    [
        ("greeting", "554 5.7.1 no", Verdict.PAUSE),
        ("greeting", "450 later", Verdict.RETRY_CHANNEL),
        ("mail", "550 5.7.1 no", Verdict.PAUSE),
        ("mail", "451 later", Verdict.RETRY_CHANNEL),
        ("rcpt", "450 4.2.0 greylisted", Verdict.RETRY_RECIPIENT),
        ("rcpt", "550 5.1.1 <bob@example.org> unknown", Verdict.FAILED),
        ("data", "451 later", Verdict.RETRY_CHANNEL),
        ("data", "554 5.7.1 no", Verdict.FAILED),
        ("dot", "451 later", Verdict.RETRY_CHANNEL),
        ("dot", "554 5.7.1 spam", Verdict.FAILED),
    ],
)
def test_it_judges_a_refusal_by_its_phase(
    server: SmtpStandIn, phase: str, reply: str, verdict: Verdict
) -> None:
    server.on(phase, say(reply))
    outcome = attempt(server)
    assert (outcome.verdict, outcome.phase) == (verdict, Phase(phase))
    assert "bob" not in outcome.reply


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
def test_it_keeps_the_connection_after_a_clean_refusal(server: SmtpStandIn, phase: str) -> None:
    server.on(phase, say("550 5.1.1 no"), times=1)
    connection = connect(server)
    connection.send(copy_for("alice"))
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT
    assert (server.connections, len(server.said("RSET"))) == (1, 1)


def test_it_says_what_it_can_in_one_write(pipelining: SmtpStandIn) -> None:
    connection = connect(pipelining)
    for name in ("alice", "bob"):
        assert connection.send(copy_for(name)).verdict is Verdict.SENT
    assert pipelining.ahead == 2  # RCPT and DATA behind MAIL, never the next message's


def test_it_goes_step_by_step_where_pipelining_is_not_announced() -> None:
    with SmtpStandIn(extensions=STEPWISE) as server:
        assert attempt(server).verdict is Verdict.SENT
        assert server.ahead == 0


@pytest.mark.parametrize("last", ["451 4.3.0 nobody to send it to", "554 5.5.1 no recipients"])
def test_it_ends_a_message_that_nobody_gets_with_a_lone_dot(
    pipelining: SmtpStandIn, last: str
) -> None:
    pipelining.on("rcpt", say("550 5.1.1 who?"), recipient="bob@example.org")
    pipelining.on("data", say("354 go on"), times=1)
    pipelining.on("dot", say(last), times=1)
    connection = connect(pipelining)
    outcome = connection.send(copy_for("bob"))
    assert (outcome.verdict, outcome.phase, outcome.suppress) == (Verdict.FAILED, Phase.RCPT, True)
    assert [(copy.data, copy.accepted) for copy in pipelining.copies] == [(b"", False)]
    assert connection.send(copy_for("alice")).verdict is Verdict.SENT
    assert pipelining.connections == 1


@pytest.mark.parametrize(
    "act",
    [say("250 taken"), say("399 odd"), say("421 bye"), drop(), garbled(), stall()],
    ids=["2xx", "3xx", "421", "drop", "garbled", "stall"],
)
def test_it_keeps_no_connection_that_does_not_refuse_the_lone_dot(
    pipelining: SmtpStandIn, act: Act
) -> None:
    pipelining.on("rcpt", say("450 4.2.1 later"), times=1)
    pipelining.on("data", say("354 go on"), times=1)
    pipelining.on("dot", act, times=1)
    connection = connect(pipelining, QUICK)
    assert connection.send(copy_for("bob")).verdict is Verdict.RETRY_RECIPIENT
    assert connection.send(copy_for("alice")).verdict is Verdict.SENT
    assert (pipelining.connections, pipelining.accepted()["bob@example.org"]) == (2, 0)


def test_it_says_no_dot_to_a_server_that_took_the_recipient_but_not_the_sender(
    pipelining: SmtpStandIn,
) -> None:
    pipelining.on("mail", say("550 5.7.1 not you"))
    pipelining.on("rcpt", say("250 ok"))
    connection = connect(pipelining)
    for _ in range(2):
        assert connection.send(copy_for("bob")).verdict is Verdict.PAUSE
    assert (pipelining.copies, pipelining.connections) == ([], 2)


@pytest.mark.parametrize("phase", ["rcpt", "data"])
def test_it_waits_no_longer_for_what_follows_a_refusal_than_for_the_step(
    pipelining: SmtpStandIn, phase: str
) -> None:
    pipelining.on("mail", say("451 later"), times=1)
    pipelining.on(phase, stall(), times=1)
    connection = connect(pipelining, QUICK)
    assert connection.send(copy_for("bob")).verdict is Verdict.RETRY_CHANNEL
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT


@pytest.mark.parametrize(
    ("stalled", "verdict"), [("data", Verdict.RETRY_CHANNEL), ("dot", Verdict.UNKNOWN)]
)
def test_it_bounds_the_whole_attempt_however_patient_the_steps_are(
    server: SmtpStandIn, stalled: str, verdict: Verdict
) -> None:
    for phase in ("greeting", "mail", "rcpt"):
        server.on(phase, Act(wait=0.1))
    server.on(stalled, stall())
    begun = time.monotonic()
    outcome = attempt(server, replace(PATIENT, whole=0.8))
    assert (outcome.verdict, outcome.reason) == (verdict, "timed_out")
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("act", [say("421 4.3.2 bye"), say_then_drop("421 bye"), garbled(), drop()])
def test_it_opens_anew_after_it_lost_its_step(server: SmtpStandIn, phase: str, act: Act) -> None:
    server.on(phase, act, times=1)
    connection = connect(server)
    connection.send(copy_for("alice"))
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT
    assert server.connections == 2


def test_it_opens_anew_when_the_reset_is_refused(server: SmtpStandIn) -> None:
    server.on("rcpt", say("550 no"), times=1)
    server.on("rset", say("500 what?"), times=1)
    connection = connect(server)
    connection.send(copy_for("alice"))
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT
    assert server.connections == 2


def test_it_reconnects_once_when_a_kept_connection_dies_at_mail(server: SmtpStandIn) -> None:
    connection = connect(server)
    connection.send(copy_for("alice"))
    server.on("mail", drop(), times=1)
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT
    assert server.connections == 2


def test_it_reconnects_only_once(server: SmtpStandIn) -> None:
    connection = connect(server)
    connection.send(copy_for("alice"))
    server.on("mail", drop())
    assert connection.send(copy_for("bob")).verdict is Verdict.RETRY_CHANNEL
    assert server.connections == 2


def test_it_notices_a_connection_that_was_closed_while_idle(server: SmtpStandIn) -> None:
    connection = connect(server)
    connection.send(copy_for("alice"))
    server.hang_up()
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT


def test_it_notices_a_421_that_came_while_idle(server: SmtpStandIn) -> None:
    server.on("dot", Act(b"250 ok\r\n421 4.4.2 idle\r\n", drop=True, accepted=True), times=1)
    connection = connect(server)
    assert connection.send(copy_for("alice")).verdict is Verdict.SENT
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT
    assert server.accepted().total() == 2


def test_it_never_takes_an_old_reply_for_a_new_one(server: SmtpStandIn) -> None:
    server.on("dot", Act(b"250 ok\r\n250 twice\r\n", accepted=True), times=1)
    server.on("rcpt", say("550 5.1.1 no"), recipient="bob@example.org")
    connection = connect(server)
    connection.send(copy_for("alice"))
    assert connection.send(copy_for("bob")).verdict is Verdict.FAILED


@pytest.mark.parametrize("act", [drop(), garbled(), long_line(), say("500 no"), stall()])
def test_it_stays_sent_whatever_quit_does(server: SmtpStandIn, act: Act) -> None:
    server.on("quit", act)
    assert attempt(server, QUICK).verdict is Verdict.SENT


def test_it_never_goes_on_with_a_dialogue_that_a_signal_cut_off(server: SmtpStandIn) -> None:
    server.on("dot", stall(accepted=True), times=1)
    connection = connect(server)
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(SystemExit):
        connection.send(copy_for("alice"))
    signal.signal(signal.SIGALRM, before)
    assert connection.send(copy_for("bob")).verdict is Verdict.SENT
    assert server.connections == 2


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_it_encrypts(security: str) -> None:
    with SmtpStandIn(security=security) as server:
        connection = connect(server, tls=trusting())
        for name in ("alice", "bob"):
            assert connection.send(copy_for(name)).verdict is Verdict.SENT
        assert server.connections == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_it_refuses_a_certificate_that_it_does_not_know(security: str) -> None:
    with SmtpStandIn(security=security) as server:
        outcome = attempt(server)
        assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.TLS)
        assert outcome.reason == "certificate_refused"
        assert server.said("MAIL") == []


def test_it_refuses_a_certificate_for_another_host() -> None:
    with SmtpStandIn(security="tls") as server:
        url = parse_smtp_url(server.url.replace("127.0.0.1", "127.1"))  # the same host
        transport = SmtpTransport(url, local_hostname="sender.test", tls_context=trusting())
        assert transport.connect().send(copy_for()).reason == "certificate_refused"


def test_it_sends_nothing_where_starttls_is_not_offered(server: SmtpStandIn) -> None:
    url = parse_smtp_url(server.url.replace("smtp://", "smtp+starttls://"))
    outcome = SmtpTransport(url, local_hostname="sender.test").connect().send(copy_for())
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "starttls_not_offered")
    assert server.said("MAIL") == []


def test_it_believes_nothing_that_was_said_before_tls() -> None:
    with SmtpStandIn(security="starttls") as server:
        server.on("starttls", Act(b"220 go ahead\r\n250 injected\r\n"))
        outcome = connect(server, tls=trusting()).send(copy_for())
        assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "early_reply")


def test_it_signs_in() -> None:
    with SmtpStandIn(security="starttls", auth=("news", "s3cret")) as server:
        assert connect(server, tls=trusting()).send(copy_for()).verdict is Verdict.SENT


def test_it_pauses_when_it_may_not_sign_in_and_tries_once() -> None:
    with SmtpStandIn(auth=("news", "s3cret")) as server:
        server.on("auth", say("535 5.7.8 AG5ld3MAczNjcmV0 s3cret is wrong"))
        outcome = attempt(server)
        assert (outcome.verdict, outcome.phase) == (Verdict.PAUSE, Phase.AUTH)
        assert len(server.said("AUTH")) == 1
        assert "s3cret" not in outcome.reply and "AG5ld3MAczNjcmV0" not in outcome.reply


@pytest.mark.parametrize("act", [say("454 4.7.0 later"), drop(), garbled(), say("334 a")])
def test_it_retries_the_channel_when_signing_in_breaks(act: Act) -> None:
    with SmtpStandIn(auth=("news", "s3cret")) as server:
        server.on("auth", act)
        assert attempt(server).verdict is Verdict.RETRY_CHANNEL


def test_it_pauses_when_signing_in_is_not_offered(server: SmtpStandIn) -> None:
    url = parse_smtp_url(server.url.replace("smtp://", "smtp://news:s3cret@"))
    outcome = SmtpTransport(url, local_hostname="sender.test").connect().send(copy_for())
    assert (outcome.verdict, outcome.reason) == (Verdict.PAUSE, "auth_not_offered")


def test_it_refuses_a_host_name_of_ours_that_would_smuggle(server: SmtpStandIn) -> None:
    with pytest.raises(ValueError, match="local host name"):
        SmtpTransport(parse_smtp_url(server.url), local_hostname="a\r\nMAIL")
