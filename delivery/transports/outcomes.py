"""The one verdict table: what was seen on the wire, and what it means for the row.

Design, section 5. SMTP's codes: RFC 5321 section 4.2; enhanced codes: RFC 2034 and RFC 3463.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

REPLY_LENGTH = 500


class Phase(enum.Enum):
    """Where in the dialogue something was seen."""

    CONNECT = "connect"
    TLS = "tls"
    GREETING = "greeting"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the reply to the DATA command
    BODY = "body"  # the body is being written, the end of DATA is not out
    DOT = "dot"  # the end of DATA has (perhaps) gone out
    QUIT = "quit"


class Verdict(enum.Enum):
    """What the row above has to do."""

    SENT = "sent"
    RETRY_RECIPIENT = "retry_recipient"  # certainly not accepted; this attempt is spent
    RETRY_CHANNEL = "retry_channel"  # certainly not accepted; the channel backs off, none spent
    FAILED = "failed"
    UNKNOWN = "unknown"
    PAUSE = "pause"  # it is ours: pause the issue and tell; the row goes back to pending


_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\S)")


class Reply(NamedTuple):
    """A server's reply. ``code`` is None when it was not well-formed."""

    code: int | None
    enhanced: str = ""
    text: str = ""

    @classmethod
    @lru_cache(maxsize=64)  # a server says the same to every message, but for the end of it
    def parse(cls, code: int, raw: bytes) -> Reply:
        """Read smtplib's (code, text) pair.

        An enhanced code whose class contradicts the reply's own is not believed (RFC 2034).
        """
        text = raw.decode("utf-8", "replace")
        if not 200 <= code <= 599:
            return cls(None, "", text)
        found = _ENHANCED.match(text)
        enhanced = found[1] if found and found[1][0] == str(code)[0] else ""
        return cls(code, enhanced, text)


class Outcome(NamedTuple):
    """What came of one attempt.

    ``reason`` is one of this page's words, or the transport's for what it did not get.
    ``reply`` is for people: printable, at most 500 characters, without e-mail addresses.
    ``suppress``: the address does not exist. ``policy_refusal``: counts for the pause rule.
    ``dot_tempfail``: a 4xx to the end of DATA; five of them fail a row. ``message_id``: a provider's
    name of what it took. ``retry_after``: seconds that it asked us to wait.
    """

    verdict: Verdict
    reason: str
    reply: str
    phase: Phase
    suppress: bool = False
    policy_refusal: bool = False
    dot_tempfail: bool = False
    message_id: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class _Rule:
    phases: frozenset[Phase]
    code: re.Pattern[str]
    enhanced: re.Pattern[str]
    verdict: Verdict
    reason: str
    flag: str = ""

    def fits(self, phase: Phase, code: int, enhanced: str) -> bool:
        return (
            phase in self.phases
            and self.code.fullmatch(str(code)) is not None
            and self.enhanced.fullmatch(enhanced) is not None
        )


def _rule(
    phases: str, code: str, enhanced: str, verdict: Verdict, reason: str, flag: str = ""
) -> _Rule:
    """``phases`` by name, ``code`` with dots for digits, ``enhanced`` with x for any number."""
    pattern = re.escape(enhanced).replace("x", r"\d+").replace(r"\|", "|") if enhanced else ".*"
    named = frozenset(Phase(name) for name in phases.split())
    return _Rule(named, re.compile(code), re.compile(pattern), verdict, reason, flag)


_RETRY, _CHANNEL = Verdict.RETRY_RECIPIENT, Verdict.RETRY_CHANNEL
_FAILED, _PAUSE = Verdict.FAILED, Verdict.PAUSE
_TALK = "greeting tls ehlo auth mail rcpt data"

# First fit wins. What fits nothing is a broken channel, or unknown once the dot is out.
_RULES = (
    _rule("dot", "2..", "", Verdict.SENT, "accepted"),
    _rule("dot", "421", "", _CHANNEL, "service_closing", "dot_tempfail"),
    _rule("dot", "4..", "", _CHANNEL, "message_deferred", "dot_tempfail"),
    _rule("dot", "5..", "", _FAILED, "message_refused", "policy_refusal"),
    _rule(_TALK, "421", "", _CHANNEL, "service_closing"),
    _rule(_TALK, "4..", "4.7.x", _CHANNEL, "policy_deferral"),
    _rule(_TALK, "4..", "4.3.2", _CHANNEL, "system_not_accepting"),
    _rule("rcpt", "4..", "", _RETRY, "recipient_deferred"),
    _rule("greeting", "4..", "", _CHANNEL, "greeting_deferred"),
    _rule("tls", "[45]..", "", _CHANNEL, "tls_refused"),
    _rule("ehlo", "[45]..", "", _CHANNEL, "ehlo_refused"),
    _rule("auth", "4..", "", _CHANNEL, "authentication_deferred"),
    _rule("mail", "4..", "", _CHANNEL, "sender_deferred"),
    _rule("data", "4..", "", _CHANNEL, "data_deferred"),
    _rule("rcpt", "5..", "5.1.7|5.1.8", _FAILED, "sender_address_refused", "policy_refusal"),
    _rule("rcpt", "5..", "5.1.x", _FAILED, "mailbox_unavailable", "suppress"),
    _rule("rcpt", "5..", "5.2.2", _FAILED, "mailbox_full"),
    _rule("rcpt", "5..", "5.7.x", _FAILED, "recipient_policy_refusal", "policy_refusal"),
    _rule("rcpt", "5..", "", _FAILED, "recipient_refused"),
    _rule("greeting", "5..", "", _PAUSE, "greeting_refused"),
    _rule("auth", "5..", "", _PAUSE, "authentication_refused"),
    _rule("mail", "5..", "", _PAUSE, "sender_refused"),
    _rule("data", "5..", "", _FAILED, "data_refused", "policy_refusal"),
)

# What a transport finds before anything was sent; every other word means a broken channel.
_FOUND: dict[str, tuple[Verdict, str]] = {
    "auth_not_offered": (_PAUSE, ""),
    "sender_unusable": (_PAUSE, ""),  # our own address: the recipients must not pay for it
    "sender_needs_smtputf8": (_PAUSE, ""),
    "recipient_unusable": (_FAILED, ""),
    "recipient_needs_smtputf8": (_FAILED, ""),
    "message_too_large": (_FAILED, "policy_refusal"),
    "message_unusable": (_FAILED, "policy_refusal"),
    "provider_unusable": (_PAUSE, ""),
}


_DATA, _AUTH = (
    Phase.DATA,
    Phase.AUTH,
)  # asked four times a message, and an enum's member takes its time


def expected(phase: Phase, reply: Reply) -> bool:
    """Whether the dialogue may go on after this reply."""
    if reply.code is None:
        return False
    if phase is _DATA:
        return reply.code == 354
    return reply.code in (235, 503) if phase is _AUTH else 200 <= reply.code <= 299


def judge(phase: Phase, reply: Reply | None, error: str = "", detail: str = "") -> Outcome:
    """Turn what ended an attempt into an outcome.

    ``reply`` None (or without a code) is a drop, a time-out, a garbled or an over-long reply:
    ``error`` is its machine word and ``detail`` what people may read about it. ``Phase.QUIT`` is
    only reached with an accepted message, and nothing that happens there changes that.
    """
    if phase is Phase.QUIT:
        return Outcome(Verdict.SENT, "accepted", clean(reply.text if reply else detail), phase)
    if reply is None or reply.code is None:
        return _judge_silence(phase, error or "no_reply", reply.text if reply else detail)
    verdict, reason, flag = _ruling(phase, reply.code, reply.enhanced)
    return _outcome(verdict, reason, clean(f"{reply.code} {reply.text}"), phase, flag)


@lru_cache(maxsize=256)
def _ruling(phase: Phase, code: int, enhanced: str) -> tuple[Verdict, str, str]:
    for rule in _RULES:
        if rule.fits(phase, code, enhanced):
            return rule.verdict, rule.reason, rule.flag
    return _broken(phase), "unexpected_reply", ""


def _judge_silence(phase: Phase, error: str, detail: str) -> Outcome:
    verdict, flag = _broken(phase), ""
    if phase is not Phase.DOT:
        verdict, flag = _FOUND.get(error, (verdict, flag))
    return _outcome(verdict, error, clean(detail), phase, flag)


def _broken(phase: Phase) -> Verdict:
    return Verdict.UNKNOWN if phase is Phase.DOT else Verdict.RETRY_CHANNEL


def _outcome(verdict: Verdict, reason: str, text: str, phase: Phase, flag: str = "") -> Outcome:
    flags: dict[str, Any] = {flag: True} if flag else {}
    return Outcome(verdict, reason, text, phase, **flags)


@dataclass(frozen=True)
class Answer:
    """What a provider's API answered.

    ``code`` and ``text`` are its own words for a refusal; ``message_id`` its name of what it took.
    ``retry_after`` in seconds. ``whole``: the answer was read to its end.
    """

    status: int
    code: str = ""
    text: str = ""
    message_id: str = ""
    retry_after: float | None = None
    whole: bool = True


@dataclass(frozen=True)
class _HttpRule:
    provider: str
    status: re.Pattern[str]
    code: re.Pattern[str]
    text: re.Pattern[str]
    verdict: Verdict
    reason: str
    flag: str = ""

    def fits(self, provider: str, answer: Answer) -> bool:
        return (
            self.provider in ("", provider)
            and self.status.fullmatch(str(answer.status)) is not None
            and self.code.fullmatch(answer.code) is not None
            and self.text.match(answer.text) is not None
        )


def _http(
    provider: str,
    status: str,
    code: str,
    text: str,
    verdict: Verdict,
    reason: str,
    flag: str = "",
) -> _HttpRule:
    """``status`` with dots for digits; ``code`` whole and ``text`` from its start, "" for any."""
    words = re.compile(text, re.IGNORECASE)
    return _HttpRule(
        provider, re.compile(status), re.compile(code or ".*"), words, verdict, reason, flag
    )


_OURS = "policy_refusal"  # one row's fault, or that of all: the pause rule finds out
_BAD_TO = r"(invalid|error parsing) .to. "
_BAD_SES = r"illegal address|(local address|domain) contains|missing (final|domain)"
_SLOW_SES = "(TooManyRequests|Throttling|LimitExceeded)(Exception)?"

# First fit wins. The providers' own pages: docs/providers.md.
_HTTP_RULES = (
    # Another request with this key is under way, or was another message: who knows what it came to.
    _http("", "409", "", "", Verdict.UNKNOWN, "key_in_use"),
    _http("", "408|425", "", "", Verdict.UNKNOWN, "unclear_answer"),
    _http("postmark", "4..", "406", "", _FAILED, "recipient_inactive", "suppress"),
    _http("postmark", "4..", "300", _BAD_TO, _FAILED, "recipient_refused", _OURS),
    _http("resend", "4..", "invalid_to_address", "", _FAILED, "recipient_refused", _OURS),
    _http("resend", "4..", "validation_error", _BAD_TO, _FAILED, "recipient_refused", _OURS),
    _http("ses", "4..", "BadRequestException", _BAD_SES, _FAILED, "recipient_refused", _OURS),
    _http("ses", "4..", _SLOW_SES, "", _CHANNEL, "rate_limited"),
    _http("", "429", "", "", _CHANNEL, "rate_limited"),
    _http("", "307|308", "", "", _PAUSE, "redirected"),
    _http("", "4..", "", "", _PAUSE, "request_refused"),
    _http("", "5..", "", "", Verdict.UNKNOWN, "server_error"),
)


def judge_http(
    provider: str, answer: Answer | None, *, out: bool, error: str = "", detail: str = ""
) -> Outcome:
    """Turn what came of one request to a provider's API into an outcome.

    ``answer`` None: there was none, ``error`` and ``detail`` say why as they do in `judge`, and
    ``out`` whether any byte of the request may have gone out before. An accepted message is one
    whose answer is a 2xx that names it.
    """
    if answer is None:
        return _judge_silence(Phase.DOT if out else Phase.CONNECT, error or "no_answer", detail)
    text = clean(f"{answer.status} {answer.code} {answer.text}")
    if answer.message_id and 200 <= answer.status <= 299:
        return Outcome(Verdict.SENT, "accepted", text, Phase.DOT, message_id=answer.message_id)
    if not answer.whole:
        refused = 400 <= answer.status <= 499 and answer.status not in (408, 409, 425)
        return _outcome(_CHANNEL if refused else Verdict.UNKNOWN, "cut_short", text, Phase.DOT)
    for rule in _HTTP_RULES:
        if rule.fits(provider, answer):
            found = _outcome(rule.verdict, rule.reason, text, Phase.DOT, rule.flag)
            slow = rule.verdict is _CHANNEL
            return found._replace(retry_after=answer.retry_after) if slow else found
    return _outcome(Verdict.UNKNOWN, "unreadable_answer", text, Phase.DOT)


_ADDRESS = re.compile(
    r"""<?(?:"[^"]*"|[^\s<>()\[\],;:"']+)(?:@|%40)(?:\[[^\]]*\]?|[^\s<>()\[\],;:"']+)>?""",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """Make a foreign text fit to be stored and shown: printable, short, without addresses."""
    shown = text[: 2 * REPLY_LENGTH]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else " " for char in shown)
    words = shown.split()
    if len(text) > 2 * REPLY_LENGTH:
        words = words[:-1]  # it may be half an address
    short = " ".join(words)
    if "@" in short or "%40" in short:
        short = _ADDRESS.sub("<address>", short)
    return short[:REPLY_LENGTH].rstrip()
