from __future__ import annotations

import itertools

import pytest

from delivery.transports.outcomes import (
    Answer,
    Outcome,
    Phase,
    Reply,
    Verdict,
    clean,
    expected,
    judge,
    judge_http,
)

BEFORE_THE_DOT = [p for p in Phase if p not in (Phase.DOT, Phase.QUIT)]


def verdict_of(phase: Phase, code: int, text: str = "") -> Outcome:
    return judge(phase, Reply.parse(code, text.encode()))


@pytest.mark.parametrize("phase", BEFORE_THE_DOT)
def test_it_retries_the_channel_when_the_connection_breaks_before_the_dot(phase: Phase) -> None:
    assert judge(phase, None, "dropped").verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("error", ["dropped", "timed_out", "garbled_reply", "over_long_reply", ""])
def test_it_does_not_know_when_no_wellformed_reply_follows_the_dot(error: str) -> None:
    assert judge(Phase.DOT, None, error).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("code", [-1, 0, 199, 600])
def test_it_takes_an_impossible_code_after_the_dot_for_garbled(code: int) -> None:
    assert verdict_of(Phase.DOT, code).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("code", [-1, 0, 199, 600])
def test_it_never_fails_a_row_for_an_impossible_code_elsewhere(code: int) -> None:
    assert verdict_of(Phase.RCPT, code).verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("code", [250, 251, 200, 299])
def test_it_is_sent_with_any_2xx_after_the_dot(code: int) -> None:
    assert verdict_of(Phase.DOT, code).verdict is Verdict.SENT


@pytest.mark.parametrize("code", [300, 354, 399])
def test_it_does_not_know_after_a_3xx_to_the_dot(code: int) -> None:
    assert verdict_of(Phase.DOT, code).verdict is Verdict.UNKNOWN


def test_it_stays_sent_whatever_happens_at_quit() -> None:
    seen = [None, Reply(421), Reply(500), Reply(None)]
    assert {judge(Phase.QUIT, reply, "dropped").verdict for reply in seen} == {Verdict.SENT}


@pytest.mark.parametrize("phase", BEFORE_THE_DOT)
def test_it_retries_the_channel_at_421_anywhere(phase: Phase) -> None:
    assert verdict_of(phase, 421, "4.3.2 closing").verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("code", [421, 450, 451, 452])
def test_it_retries_the_channel_at_a_4xx_to_the_dot_and_counts_it(code: int) -> None:
    outcome = verdict_of(Phase.DOT, code, "4.7.1 later")
    assert (outcome.verdict, outcome.dot_tempfail) == (Verdict.RETRY_CHANNEL, True)


@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.EHLO, Phase.AUTH, Phase.MAIL, Phase.DATA])
def test_it_retries_the_channel_at_a_4xx_that_is_not_about_the_recipient(phase: Phase) -> None:
    assert verdict_of(phase, 451, "4.2.1 later").verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("text", ["4.7.1 too fast", "4.7.28 rate", "4.3.2 not accepting"])
def test_it_retries_the_channel_at_rcpt_when_the_server_means_the_channel(text: str) -> None:
    assert verdict_of(Phase.RCPT, 450, text).verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("text", ["4.2.2 full", "4.2.1 greylisted", "try later", "4.3.20 odd"])
def test_it_retries_the_recipient_at_other_4xx_at_rcpt(text: str) -> None:
    assert verdict_of(Phase.RCPT, 450, text).verdict is Verdict.RETRY_RECIPIENT


@pytest.mark.parametrize("text", ["5.1.1 who?", "5.1.2 no host", "5.1.10 null MX", "5.1.1"])
def test_it_suppresses_an_address_that_does_not_exist(text: str) -> None:
    outcome = verdict_of(Phase.RCPT, 550, text)
    assert (outcome.verdict, outcome.suppress) == (Verdict.FAILED, True)


@pytest.mark.parametrize("text", ["5.1.8 your domain", "5.1.7 your address"])
def test_it_suppresses_nobody_when_the_sender_is_refused_at_rcpt(text: str) -> None:
    outcome = verdict_of(Phase.RCPT, 550, text)
    assert (outcome.suppress, outcome.policy_refusal) == (False, True)


@pytest.mark.parametrize(
    "text", ["5.2.2 full", "5.7.1 policy", "user unknown", "5.1.1x", "4.1.1 ?"]
)
def test_it_fails_and_suppresses_nobody_at_other_5xx_at_rcpt(text: str) -> None:
    outcome = verdict_of(Phase.RCPT, 550, text)
    assert (outcome.verdict, outcome.suppress) == (Verdict.FAILED, False)


def test_it_counts_5_7_x_at_rcpt_for_the_pause_rule() -> None:
    assert verdict_of(Phase.RCPT, 550, "5.7.1 no").policy_refusal
    assert not verdict_of(Phase.RCPT, 550, "5.2.2 full").policy_refusal


def test_it_names_a_full_mailbox() -> None:
    assert verdict_of(Phase.RCPT, 552, "5.2.2 full").reason == "mailbox_full"


@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.AUTH, Phase.MAIL])
def test_it_pauses_at_a_5xx_that_is_about_us(phase: Phase) -> None:
    assert verdict_of(phase, 550, "5.1.1 no").verdict is Verdict.PAUSE


@pytest.mark.parametrize("phase", [Phase.DATA, Phase.DOT])
def test_it_fails_at_a_5xx_to_the_message_and_counts_it(phase: Phase) -> None:
    outcome = verdict_of(phase, 554, "5.6.0 no")
    assert (outcome.verdict, outcome.policy_refusal) == (Verdict.FAILED, True)
    assert not outcome.suppress


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.TLS, Phase.EHLO, Phase.BODY])
def test_it_never_fails_a_row_for_a_refusal_that_no_row_can_help(phase: Phase) -> None:
    assert verdict_of(phase, 550, "5.1.1 no").verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("phase", BEFORE_THE_DOT)
def test_it_takes_a_3xx_where_2xx_is_due_for_a_broken_channel(phase: Phase) -> None:
    assert verdict_of(phase, 399).verdict is Verdict.RETRY_CHANNEL


def test_it_does_not_go_on_at_data_without_354() -> None:
    assert not expected(Phase.DATA, Reply(250))
    assert expected(Phase.DATA, Reply(354))


def test_it_judges_everything_without_an_error_and_sends_only_at_the_dot() -> None:
    texts = [b"", b"5.1.1 x", b"4.7.0 x", b"\xff" * 900]
    phases = [p for p in Phase if p is not Phase.QUIT]
    for phase, code, text in itertools.product(phases, range(-1, 700, 7), texts):
        outcome = judge(phase, Reply.parse(code, text))
        assert (outcome.verdict is Verdict.SENT) == (phase is Phase.DOT and 200 <= code < 300)


def test_it_says_unknown_only_after_the_dot() -> None:
    for phase, code in itertools.product(BEFORE_THE_DOT, range(-1, 700)):
        assert verdict_of(phase, code).verdict is not Verdict.UNKNOWN


def test_it_pauses_when_our_own_address_cannot_be_sent() -> None:
    assert judge(Phase.MAIL, None, "sender_needs_smtputf8").verdict is Verdict.PAUSE


def test_it_believes_an_enhanced_code_only_in_its_own_class() -> None:
    assert Reply.parse(550, b"5.1.1 no").enhanced == "5.1.1"
    assert Reply.parse(550, b"4.1.1 no").enhanced == ""
    assert Reply.parse(550, b"no 5.1.1").enhanced == ""


@pytest.mark.parametrize(
    "address",
    ["bob@example.org", "<bob@example.org>", "bob+x@[127.0.0.1]", '"b o b"@example.org',
     "bob%40example.org", "bób@exämple.org", "b=alice%40x.org@example.org"],
)  # fmt: skip
def test_it_shows_no_address(address: str) -> None:
    shown = verdict_of(Phase.RCPT, 550, f"5.1.1 {address}: unknown").reply
    assert shown == "550 5.1.1 <address>: unknown"


def test_it_shows_no_half_of_an_address_where_a_long_reply_is_cut() -> None:
    text = ("x@y.org " * 124) + "secret-name@example.org"
    assert "secret" not in clean(text)


def test_it_keeps_a_reply_short_and_printable() -> None:
    shown = verdict_of(Phase.DOT, 250, "ok\n\x1b[31m\u202e" + "word " * 500).reply
    assert len(shown) <= 500 and shown.isprintable()


PROVIDERS = ["postmark", "resend", "ses"]


@pytest.mark.parametrize("error", ["dropped", "timed_out", "certificate_refused", ""])
def test_it_retries_the_channel_where_no_byte_of_a_request_went_out(error: str) -> None:
    assert judge_http("ses", None, out=False, error=error).verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("error", ["dropped", "timed_out", "message_unusable", ""])
def test_it_does_not_know_where_a_request_went_out_and_nothing_came_back(error: str) -> None:
    assert judge_http("ses", None, out=True, error=error).verdict is Verdict.UNKNOWN


def test_it_is_sent_only_with_a_2xx_that_names_the_message() -> None:
    for provider, status in itertools.product(PROVIDERS, range(-1, 700)):
        unnamed = judge_http(provider, Answer(status), out=True)
        named = judge_http(provider, Answer(status, message_id="m-1"), out=True)
        assert unnamed.verdict is not Verdict.SENT
        assert (named.verdict is Verdict.SENT) == (200 <= status <= 299)
        assert named.message_id == ("m-1" if named.verdict is Verdict.SENT else "")


def test_it_calls_nothing_refused_that_the_provider_may_have_taken() -> None:
    certain = {*range(400, 500), 307, 308} - {408, 409, 425}
    for provider, status, whole in itertools.product(PROVIDERS, range(-1, 700), (True, False)):
        outcome = judge_http(provider, Answer(status, "406", "Invalid 'To'", whole=whole), out=True)
        if status not in certain:
            assert outcome.verdict is Verdict.UNKNOWN
        elif whole:
            assert outcome.verdict is not Verdict.UNKNOWN


def test_it_believes_a_providers_word_only_from_that_provider() -> None:
    found = {name: judge_http(name, Answer(422, "406"), out=True) for name in PROVIDERS}
    assert [name for name in PROVIDERS if found[name].suppress] == ["postmark"]
    assert found["ses"].verdict is Verdict.PAUSE


def test_it_hands_on_how_long_the_channel_shall_wait() -> None:
    assert judge_http("resend", Answer(429, retry_after=7), out=True).retry_after == 7
    assert judge_http("resend", Answer(500, retry_after=7), out=True).retry_after is None
