from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from delivery import channel
from delivery.message import Mailbox, Recipient, compile_message, stamp
from delivery.models import EmailDelivery
from delivery.transports import Envelope
from delivery.transports.api import ApiConnection, ApiTransport, _storable
from delivery.transports.api_url import parse_api_url
from delivery.transports.outcomes import Outcome, Phase, Verdict
from delivery.transports.smtp import SmtpTransport, Timeouts
from newsletter.rendering import Rendered
from tests.drain import drain, frozen, statuses
from tests.stand_ins import certificate
from tests.stand_ins.http import Reply, cut_short, drop, json_reply, raw, redirect, reply
from tests.stand_ins.providers import ProviderStandIn

PROVIDERS = ["postmark", "resend", "ses"]
PATIENT = Timeouts(connect=5, dot=5, whole=20)
QUICK = Timeouts(connect=5, dot=0.4, whole=0.8)
BOB = "bob@example.org"
MEGABYTE = b'{"id": "1", "pad": "' + b"x" * 1_000_000 + b'"}'
COMPILED = compile_message(
    Rendered("Käse, 3 € & more", "<p>Grüße {{ name }}</p>", "Grüße\n.dot\n"),
    sender=Mailbox("Käse, täglich", "news@example.com"),
    list_id="weekly.example.com",
    date=datetime(2026, 11, 23, 7, tzinfo=UTC),
    nonce="0123456789abcdef",
    page_url="https://news.example.com/i/1/",
)
OPENED: list[ApiConnection] = []


def copy_for(address: str = BOB, *, name: str = "Bob, the 1st", key: str = "d1:0") -> Envelope:
    url = f"https://news.example.com/u/{'t' * 80}/"
    data = stamp(COMPILED, Recipient(7, address, name, url))
    return Envelope("news@example.com", address, data, key=key, delivery_id=7)


def connect(api: ProviderStandIn, timeouts: Timeouts = PATIENT, **more: str) -> ApiConnection:
    OPENED.append(ApiTransport(parse_api_url(api.url), timeouts=timeouts, **more).connect())
    return OPENED[-1]


def attempt(api: ProviderStandIn, timeouts: Timeouts = PATIENT, **more: str) -> Outcome:
    return connect(api, timeouts, **more).send(copy_for())


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(params=PROVIDERS)
def api(request: pytest.FixtureRequest) -> Iterator[ProviderStandIn]:
    with ProviderStandIn(request.param) as api:
        yield api


@pytest.fixture
def postmark() -> Iterator[ProviderStandIn]:
    with ProviderStandIn("postmark") as api:
        yield api


@pytest.fixture
def resend() -> Iterator[ProviderStandIn]:
    with ProviderStandIn("resend") as api:
        yield api


@pytest.fixture
def ses() -> Iterator[ProviderStandIn]:
    with ProviderStandIn("ses") as api:
        yield api


def test_it_hands_over_one_copy(api: ProviderStandIn) -> None:
    outcome = attempt(api)
    (taken,) = api.accepted
    assert (outcome.verdict, outcome.message_id) == (Verdict.SENT, taken.id)
    assert (taken.recipient, taken.delivery) == (BOB, "7")
    assert (taken.subject, len(api.requests)) == ("Käse, 3 € & more", 1)
    assert taken.text.replace("\r\n", "\n").strip() == "Grüße\n.dot"
    assert "<p>Grüße" in taken.html


def test_it_passes_the_headers_that_mailboxes_act_on(api: ProviderStandIn) -> None:
    attempt(api)
    headers = api.accepted[0].headers
    assert headers["List-Unsubscribe"] == f"<https://news.example.com/u/{'t' * 80}/>"
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert headers["List-Id"] == "<weekly.example.com>"
    assert headers["Archived-At"] == "<https://news.example.com/i/1/>"
    assert headers["Message-ID"] == "<7.0123456789abcdef@example.com>"
    assert headers["Date"] == "Mon, 23 Nov 2026 07:00:00 +0000"


@pytest.mark.parametrize("said", ["a\0b", "a\ud800b"], ids=["nul", "half-a-pair"])
def test_a_name_that_no_database_keeps_is_made_storable(said: str) -> None:
    assert _storable(said) == "ab"


def test_it_gives_ses_the_very_bytes(ses: ProviderStandIn) -> None:
    attempt(ses)
    assert ses.accepted[0].raw == copy_for().data


def test_it_asks_postmark_to_keep_our_message_id(postmark: ProviderStandIn) -> None:
    attempt(postmark)
    assert postmark.accepted[0].headers["X-PM-KeepID"] == "true"


def test_it_names_people_as_the_message_does(postmark: ProviderStandIn) -> None:
    attempt(postmark)
    data = postmark.requests[0].json()
    assert data["From"] == '"Käse, täglich" <news@example.com>'
    assert data["To"] == f'"Bob, the 1st" <{BOB}>'


def test_it_names_the_stream_and_the_configuration_set() -> None:
    for provider, option, shown in (
        ("postmark", "stream=broadcast", b'"MessageStream": "broadcast"'),
        ("ses", "configuration_set=events", b'"ConfigurationSetName": "events"'),
    ):
        with ProviderStandIn(provider) as api:
            api.url += f"&{option}"
            attempt(api)
            assert shown in api.requests[0].body


def test_it_hands_over_a_notice_of_plain_text(api: ProviderStandIn) -> None:
    data = (
        b"From: news@example.com\r\nTo: ana@example.org\r\nSubject: hello\r\n"
        b"Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: text/plain; charset="utf-8"\r\n\r\nhello\r\n'
    )
    outcome = connect(api).send(Envelope("news@example.com", "ana@example.org", data))
    (taken,) = api.accepted
    assert (outcome.verdict, taken.text.strip(), taken.html) == (Verdict.SENT, "hello", "")
    assert (taken.headers["Auto-Submitted"], taken.delivery) == ("auto-generated", "")


def test_it_keeps_its_connection_between_messages(api: ProviderStandIn) -> None:
    connection = connect(api)
    for name in ("alice", "bob", "charlie"):
        copy = copy_for(f"{name}@example.org", key=name)
        assert connection.send(copy).verdict is Verdict.SENT
    assert (api.connections, len(api.requests)) == (1, 3)


def test_it_opens_anew_after_it_was_idle(
    api: ProviderStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delivery.transports.api._IDLE_SECONDS", 0)
    connection = connect(api)
    for name in ("alice", "bob"):
        copy = copy_for(f"{name}@example.org", key=name)
        assert connection.send(copy).verdict is Verdict.SENT
    assert api.connections == 2


def test_it_opens_nothing_before_the_first_send(api: ProviderStandIn) -> None:
    connect(api).close()
    assert api.connections == 0


UNKNOWN = {
    "drop": drop(),
    "500": reply(500),
    "502 in html": reply(502, b"<html>bad gateway</html>"),
    "503 with a time": reply(503, headers={"Retry-After": "1"}),
    "504": reply(504),
    "303": redirect("/emails", 303),
    "408": reply(408),
    "409": json_reply({"name": "concurrent_idempotent_requests"}, 409),
    "2xx of garbage": reply(200, b"\xff\x00 nonsense"),
    "2xx without a word": reply(200),
    "2xx without a name": json_reply({"ErrorCode": 0, "Message": "OK"}),
    "2xx of a list": json_reply([1, 2]),
    "2xx of a number": json_reply(7),
    "2xx with an odd name": json_reply({"id": 7, "MessageID": [], "MessageId": {}}),
    "2xx cut short": cut_short(b'{"id": "1", "MessageID": "1", "MessageId": "1"}'),
    "2xx of 1 MB": reply(200, MEGABYTE),
    "2xx packed badly": reply(200, b"nonsense", {"Content-Encoding": "gzip"}),
    "2xx nested too deep": reply(200, b"[" * 60_000),
    "no http": raw(b"220 stand-in.test ESMTP\r\n"),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "a long head": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("answer", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_it_does_not_know_and_asks_once(api: ProviderStandIn, answer: Reply) -> None:
    api.on(answer, accepted=True)
    outcome = attempt(api)
    assert (outcome.verdict, outcome.phase) == (Verdict.UNKNOWN, Phase.DOT)
    assert len(api.requests) == 1
    assert BOB not in outcome.reply


def test_it_does_not_take_a_name_beside_a_refusal_for_an_acceptance(
    postmark: ProviderStandIn,
) -> None:
    postmark.on(json_reply({"ErrorCode": 405, "Message": "no", "MessageID": "1"}))
    assert attempt(postmark).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "answer",
    [reply(delay=30), Reply(raw=b"HTTP/1.1 200 OK\r\n" * 50, drip=0.1),
     Reply(body=b'{"id": "1"}' * 9, drip=0.1)],
    ids=["stall", "slow head", "slow body"],
)  # fmt: skip
def test_it_waits_for_no_answer_longer_than_the_whole(api: ProviderStandIn, answer: Reply) -> None:
    api.on(answer, accepted=True)
    begun = time.monotonic()
    outcome = attempt(api, QUICK)
    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.reason in ("timed_out", "cut_short")
    assert (time.monotonic() - begun < 5, len(api.requests)) == (True, 1)


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (reply(429), None),
        (reply(429, headers={"Retry-After": "7"}), 7),
        (reply(429, headers={"Retry-After": "999999999"}), 3600),
        (reply(429, headers={"Retry-After": "soon"}), None),
        (reply(429, headers={"Retry-After": "-3"}), None),
    ],
    ids=["bare", "seconds", "too many", "words", "negative"],
)
def test_it_lets_the_channel_wait_as_long_as_it_was_asked_to(
    api: ProviderStandIn, answer: Reply, wait: float | None
) -> None:
    api.on(answer)
    outcome = attempt(api)
    assert (outcome.verdict, outcome.retry_after) == (Verdict.RETRY_CHANNEL, wait)
    assert (outcome.reason, len(api.requests)) == ("rate_limited", 1)


def test_it_waits_until_the_hour_that_was_named(resend: ProviderStandIn) -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)
    resend.on(reply(429, headers={"Retry-After": format_datetime(at, usegmt=True)}))
    wait = attempt(resend).retry_after
    assert wait is not None and 60 < wait <= 90


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_it_pauses_where_the_request_is_ours_to_mend(api: ProviderStandIn, status: int) -> None:
    api.on(json_reply({"ErrorCode": 405, "Message": "not allowed", "name": "no"}, status))
    outcome = attempt(api)
    assert (outcome.verdict, outcome.reason) == (Verdict.PAUSE, "request_refused")
    assert (outcome.suppress, len(api.requests)) == (False, 1)


def test_it_follows_no_redirect(api: ProviderStandIn) -> None:
    with ProviderStandIn(api.provider) as elsewhere:
        api.on(redirect(f"{elsewhere.api}/emails", 307))
        outcome = attempt(api)
        assert (outcome.verdict, outcome.reason) == (Verdict.PAUSE, "redirected")
        assert (len(api.requests), elsewhere.connections) == (1, 0)


def test_it_pauses_where_it_may_not_send_and_shows_no_secret(ses: ProviderStandIn) -> None:
    ses.on(json_reply({"message": "AKID with s3cret is wrong for bob@example.org"}, 403))
    outcome = attempt(ses)
    assert outcome.verdict is Verdict.PAUSE
    assert not any(word in outcome.reply for word in ("s3cret", "AKID", BOB))


@pytest.mark.parametrize(
    ("provider", "answer", "reason", "suppress"),
    [
        ("postmark", json_reply({"ErrorCode": 406, "Message": "You tried to send to inactive "
         "recipients.\nFound inactive addresses: bob@example.org."}, 422), "recipient_inactive", True),
        ("postmark", json_reply({"ErrorCode": 300, "Message": "Invalid 'To' address: 'b'."}, 422),
         "recipient_refused", False),
        ("resend", json_reply({"name": "validation_error", "message": "Invalid `to` field. The "
         "email address needs to follow the format."}, 422), "recipient_refused", False),
        ("resend", json_reply({"name": "invalid_to_address", "message": "no"}, 403),
         "recipient_refused", False),
        ("ses", json_reply({"__type": "BadRequestException",
         "message": "Local address contains control or whitespace"}, 400), "recipient_refused", False),
        ("ses", reply(400, b'{"message": "Illegal address"}',
         {"x-amzn-ErrorType": "BadRequestException:http://internal/"}), "recipient_refused", False),
    ],
    ids=["inactive", "postmark to", "resend to", "resend address", "ses body", "ses header"],
)  # fmt: skip
def test_it_fails_one_recipient_where_the_provider_means_that_one(
    provider: str, answer: Reply, reason: str, suppress: bool
) -> None:
    with ProviderStandIn(provider) as api:
        api.on(answer)
        outcome = attempt(api)
        assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, reason)
        assert (outcome.suppress, outcome.policy_refusal) == (suppress, not suppress)
        assert BOB not in outcome.reply


@pytest.mark.parametrize(
    ("provider", "data"),
    [
        ("postmark", {"ErrorCode": 300, "Message": "Invalid 'From' address: 'x'."}),
        ("postmark", {"ErrorCode": 412, "Message": "Account is pending."}),
        ("resend", {"name": "validation_error", "message": "Invalid `from` field."}),
        ("ses", {"__type": "MessageRejected", "message": "Email address is not verified."}),
        ("ses", {"__type": "AccountSuspendedException", "message": "no"}),
    ],
    ids=["from", "pending", "resend from", "unverified", "suspended"],
)
def test_it_blames_no_recipient_for_what_is_ours(provider: str, data: dict[str, object]) -> None:
    with ProviderStandIn(provider) as api:
        api.on(json_reply(data, 400 if provider == "ses" else 422))
        assert attempt(api).verdict is Verdict.PAUSE


def test_it_lets_the_channel_wait_where_amazon_is_slow_in_its_own_words(
    ses: ProviderStandIn,
) -> None:
    ses.on(json_reply({"__type": "com.amazon#TooManyRequestsException", "message": "slow"}, 400))
    assert attempt(ses).verdict is Verdict.RETRY_CHANNEL


def test_it_knows_a_refusal_that_was_cut_short_for_one(api: ProviderStandIn) -> None:
    api.on(raw(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 90\r\n\r\n{"))
    outcome = attempt(api)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY_CHANNEL, "cut_short")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_retries_the_channel_when_nobody_listens(provider: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    user = "AKID:s3cret@eu-west-1" if provider == "ses" else "token@"
    url = parse_api_url(f"anymail+{provider}://{user}?api=http://127.0.0.1:{port}")
    outcome = ApiTransport(url, timeouts=PATIENT).connect().send(copy_for())
    assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.CONNECT)
    assert outcome.reason == "connect_failed"


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    file.write_bytes(certificate._pem()[0])
    return str(file)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_speaks_tls_and_does_not_know_when_the_answer_is_dropped(
    provider: str, ca_file: str
) -> None:
    with ProviderStandIn(provider, tls=certificate.server_context()) as api:
        assert attempt(api, ca_file=ca_file).verdict is Verdict.SENT
        api.on(drop(), accepted=True)
        copy = copy_for()._replace(key="another")
        assert connect(api, ca_file=ca_file).send(copy).verdict is Verdict.UNKNOWN
        assert len(api.requests) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_hands_nothing_to_a_server_with_a_certificate_that_it_does_not_know(
    provider: str,
) -> None:
    with ProviderStandIn(provider, tls=certificate.server_context()) as api:
        outcome = attempt(api)
        assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.CONNECT)
        assert (outcome.reason, api.requests) == ("certificate_refused", [])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_retries_the_channel_when_tls_breaks(provider: str, ca_file: str) -> None:
    with ProviderStandIn(provider) as api:  # which speaks plain http
        api.url = api.url.replace("http://", "https://")
        outcome = attempt(api, ca_file=ca_file)
        assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.CONNECT)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_is_not_held_by_a_tls_handshake_that_never_comes(provider: str, ca_file: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ProviderStandIn(provider) as api:
        api.url = api.url.replace(api.api, f"https://127.0.0.1:{silent.getsockname()[1]}")
        outcome = attempt(api, replace(QUICK, connect=0.4), ca_file=ca_file)
        assert (outcome.verdict, outcome.phase) == (Verdict.RETRY_CHANNEL, Phase.CONNECT)
        assert outcome.reason == "timed_out"


def test_it_makes_one_message_of_two_requests_with_a_key(resend: ProviderStandIn) -> None:
    resend.on(drop(), accepted=True, times=1)
    connection = connect(resend)
    assert connection.send(copy_for()).verdict is Verdict.UNKNOWN
    again = connection.send(copy_for())
    assert (again.verdict, again.message_id) == (Verdict.SENT, resend.accepted[0].id)
    assert resend.copies() == {BOB: 1}


def test_it_does_not_know_what_became_of_a_key_that_named_another_message(
    resend: ProviderStandIn,
) -> None:
    connection = connect(resend)
    connection.send(copy_for())
    outcome = connection.send(copy_for(name="Robert"))
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, "key_in_use")


@pytest.mark.parametrize("address", ["zoë@example.org", "bob>\r\nX: y@example.org", ""])
def test_it_hands_over_no_address_that_cannot_go(api: ProviderStandIn, address: str) -> None:
    outcome = connect(api).send(copy_for()._replace(rcpt_to=address))
    assert (outcome.verdict, outcome.suppress) == (Verdict.FAILED, False)
    assert api.connections == 0


@pytest.mark.parametrize("provider", ["postmark", "resend"])
def test_it_hands_over_no_header_that_hides_a_line_break(provider: str) -> None:
    hidden = b"Subject: =?utf-8?q?a=0AX-Evil:_b?=\r\n\r\nhello\r\n"
    with ProviderStandIn(provider) as api:
        outcome = connect(api).send(copy_for()._replace(data=hidden))
        assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "message_unusable")
        assert api.connections == 0


def test_it_sends_on_after_every_fault(api: ProviderStandIn) -> None:
    connection = connect(api)
    for number, answer in enumerate((drop(), reply(500), cut_short(b"{}"), reply(200, MEGABYTE))):
        api.on(answer, times=1)
        assert connection.send(copy_for(key=f"a{number}")).verdict is Verdict.UNKNOWN
        assert connection.send(copy_for(key=f"b{number}")).verdict is Verdict.SENT


def test_the_environment_chooses_the_way_out(settings: Any, resend: ProviderStandIn) -> None:
    settings.EMAIL_URL = "smtp://127.0.0.1:1"
    assert isinstance(channel.transport(), SmtpTransport)
    assert channel.replays() == 0
    settings.EMAIL_URL = resend.url
    connection = channel.transport(2).connect()
    assert connection.send(copy_for()).verdict is Verdict.SENT
    connection.close()
    assert channel.replays() == 24 * 3600


@pytest.mark.django_db
def test_an_issue_goes_out_once_to_each_and_the_rows_know_by_what_name(
    settings: Any, api: ProviderStandIn
) -> None:
    settings.EMAIL_URL = api.url
    api.on(drop(), accepted=True, recipient="carla@example.org")
    frozen(3)
    drain()
    assert statuses() == {"bob": "sent", "carla": "unknown", "davi": "sent"}
    rows = {str(row.pk): row for row in EmailDelivery.objects.all()}
    for taken in api.accepted:
        row = rows[taken.delivery]
        assert row.address == taken.recipient
        assert row.provider_message_id == (taken.id if row.status == "sent" else "")
    assert (len(api.requests), set(api.copies().values())) == (3, {1})


def test_an_attempt_at_the_end_of_a_turn_ends_before_its_job(settings: Any) -> None:
    settings.SENDER_SECONDS, settings.JOB_TIMEOUT_SECONDS = 60, 180
    assert channel.timeouts(60).whole == 115
    settings.SENDER_SECONDS = 170
    assert channel.timeouts(60).whole == 60


def test_an_smtp_house_pays_for_no_provider() -> None:
    program = (
        "import django, sys; django.setup(); import delivery.channel, delivery.sender;"
        "delivery.channel.transport().connect();"
        "print(delivery.channel.CHANNEL);"
        "print([name for name in ('anymail', 'boto3', 'botocore') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["smtp", "[]"]
