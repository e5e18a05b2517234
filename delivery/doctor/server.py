"""The mail server: how far it is, what it announces, how many connections it lets in. Nothing is mailed."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings

from delivery import channel
from delivery.redaction import redact_text
from delivery.transports.api_url import ApiUrl, parse_email_url
from delivery.transports.probe import Probe
from delivery.transports.smtp_url import SmtpUrl, is_loopback

from . import tuning
from .findings import Finding, ok, warn, wrong

SUBJECT = "mail server"
MISSING = {
    "PIPELINING": "a message takes four round trips instead of two",
    "SMTPUTF8": "readers whose address is not ASCII before the @ cannot be reached",
    "SIZE": "a message that is too large is refused only after it was sent",
}


def probe() -> Probe | None:
    """None for a provider's API. Raises EdgeError where the server lets nobody in."""
    plan = tuning.present()
    wanted = min(plan.connections * plan.workers, tuning.MOST_CONNECTIONS)
    return channel.probe(wanted)


def examine(found: Probe | None) -> Iterator[Finding]:
    """What a probe means for the sends."""
    url = parse_email_url(settings.EMAIL_URL)
    if found is None or isinstance(url, ApiUrl):
        yield _provider()
        return
    times = f"a round trip takes {_ms(found.round_trip)}, opening a connection {_ms(found.opening)}"
    yield ok(SUBJECT, f"it answers and lets us in; {times}")
    yield from _announced(found, url)
    yield _let_in(found)


def unreachable(message: str) -> Finding:
    """For an EdgeError of the probe."""
    todo = "look at EMAIL_URL, and at the server's log"
    return wrong(SUBJECT, f"it does not let us in: {redact_text(message)}", todo)


def is_local() -> bool:
    url = parse_email_url(settings.EMAIL_URL)
    return isinstance(url, SmtpUrl) and is_loopback(url.host)


def _provider() -> Finding:
    rate = f"{settings.DELIVERY_RATE:g}" if settings.DELIVERY_RATE else "none"
    return ok(
        SUBJECT,
        f"{channel.CHANNEL}'s API: how fast it goes is the account's rate (DELIVERY_RATE: {rate}); as many "
        "connections and rows in the window as that needs, and no more. Whether the key is right tells send_test",
    )


def _announced(found: Probe, url: SmtpUrl) -> Iterator[Finding]:
    there = sorted(found.extensions & {*MISSING, "STARTTLS", "8BITMIME", "ENHANCEDSTATUSCODES"})
    limit = f"; messages up to {found.size / 1e6:.1f} MB" if found.size else ""
    yield ok(SUBJECT, f"announced: {', '.join(there) or 'nothing'}{limit}")
    for name, cost in MISSING.items():
        if name not in found.extensions:
            yield warn(SUBJECT, f"{name} is not announced: {cost}", "ask the server's operator")
    if url.security == "plain" and "STARTTLS" in found.extensions and not is_loopback(url.host):
        yield warn(SUBJECT, "mail goes there in the clear", "write smtp+starttls:// in EMAIL_URL")


def _let_in(found: Probe) -> Finding:
    plan = tuning.present()
    wanted = plan.connections * plan.workers
    what = f"of {wanted} connections ({plan.workers} senders with {plan.connections})"
    if found.refusal:
        said = f"it let in {found.admitted} {what}, then: {redact_text(found.refusal)}"
        return warn(SUBJECT, said, "take the settings below, or ask for more connections")
    if found.admitted < wanted:
        return ok(SUBJECT, f"it let in {found.admitted} {what}; no more were tried")
    return ok(SUBJECT, f"it let in all {what}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
