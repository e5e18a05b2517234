"""The providers' webhooks: verified, stored as they came in, and applied later by a job.

SES comes through SNS, signed by Amazon for one topic; Postmark with HTTP basic auth; Resend with a signature of Svix
(https://docs.svix.com/receiving/verifying-payloads/how-manual). What is not configured does not exist.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.utils.crypto import constant_time_compare

from newsletter.models import database_now

from . import breakers, provider_events, queue, sns
from .errors import EdgeError
from .models import ProviderEvent
from .models.provider_event import EventKind
from .outcome import Discard, Done, Outcome
from .retries import Backoff, On

log = structlog.get_logger(__name__)

LONGEST_BODY = 256 * 1024
MOST_EVENTS = 500  # of one body: each is a row and a job, in one transaction
SVIX_SECONDS = 300  # between the signature and its arrival
SVIX_PREFIX = "whsec_"
CERTIFICATES = "sns"  # the provider under which SNS's certificates are kept
SNS = (On(EdgeError, Backoff(first=2, cap=60), times=5, within=600),)

Headers = Mapping[str, str]


class Forged(Exception):
    """It is not from the provider, or not meant for us. Nothing of it is kept."""


class Malformed(Exception):
    """It is from the provider, and no event."""


class NotYet(Exception):
    """It cannot be verified before a certificate is fetched: the provider sends it again."""


def is_configured(provider: str) -> bool:
    """Whether there is something to verify this provider's events with."""
    if provider == "ses":
        return bool(settings.SNS_TOPIC_ARN)
    by_signature: bool = settings.WEBHOOK_SECRET.startswith(SVIX_PREFIX)
    if provider == "resend":
        return by_signature
    return provider == "postmark" and bool(settings.WEBHOOK_SECRET) and not by_signature


def receive(provider: str, headers: Headers, body: bytes) -> int:
    """Verify and store; how many events were new. `provider` is configured.

    Raises Forged, Malformed or NotYet: then nothing is stored.
    """
    return _DOORS[provider](headers, body)


def fetch_certificate(url: str) -> Outcome:
    """The certificate that SNS's messages say they are signed with, kept for all hosts."""
    if not settings.SNS_TOPIC_ARN:
        return Discard("SNS_TOPIC_ARN is not set")
    if not sns.certificate_url({"SigningCertURL": url}, settings.SNS_TOPIC_ARN):
        return Discard("it does not lie with Amazon")
    try:
        with breakers.guard("sns"):
            pem = sns.fetch_certificate(url, allow_private=settings.ALLOW_PRIVATE_URLS)
    except EdgeError as error:
        if error.permanent:
            return Discard(error.message)
        raise
    ProviderEvent.objects.get_or_create(
        provider=CERTIFICATES,
        event_key=_hash(url.encode()),
        defaults={
            "kind": EventKind.OTHER,
            "raw": pem.decode(),
            "applied_at": database_now(),
            "note": "a certificate that SNS signs with",
        },
    )
    return Done("the certificate is kept")


def confirm_subscription(event_id: int) -> Outcome:
    """Tell SNS that the subscription of our own topic is wanted."""
    event = ProviderEvent.objects.filter(pk=event_id).first()
    message = _json(event.raw.encode()) if event else {}
    if not settings.SNS_TOPIC_ARN or message.get("TopicArn") != settings.SNS_TOPIC_ARN:
        return Discard("it is not for SNS_TOPIC_ARN")
    with breakers.guard("sns"):
        private = settings.ALLOW_PRIVATE_URLS
        sns.confirm(settings.SNS_TOPIC_ARN, str(message.get("Token", "")), allow_private=private)
    ProviderEvent.objects.filter(pk=event_id).update(note="the subscription was confirmed")
    return Done("the subscription was confirmed")


def _resend(headers: Headers, body: bytes) -> int:
    name, at = headers.get("svix-id", ""), headers.get("svix-timestamp", "")
    if not at.isascii() or not at.isdigit() or abs(time.time() - int(at[:12])) > SVIX_SECONDS:
        raise Forged
    try:
        key = base64.b64decode(settings.WEBHOOK_SECRET.removeprefix(SVIX_PREFIX))
    except binascii.Error:
        raise Forged from None
    signed = f"{name}.{at}.".encode() + body
    right = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    given = headers.get("svix-signature", "").split(" ")[:10]
    matches = [constant_time_compare(f"v1,{right}", one) for one in given]
    if not name or not any(matches):
        raise Forged
    return _store("resend", body, name)


def _postmark(headers: Headers, body: bytes) -> int:
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        given = b""
    right = settings.WEBHOOK_SECRET.encode()
    if scheme.lower() != "basic" or not constant_time_compare(given, right):
        raise Forged
    return _store("postmark", body)


def _ses(headers: Headers, body: bytes) -> int:
    """What SNS signed for our topic. Nobody else's topic is listened to, although Amazon signs that as well."""
    try:
        message = _json(body)
    except Malformed:
        raise Forged from None
    topic = settings.SNS_TOPIC_ARN
    url = sns.certificate_url(message, topic)
    if message.get("TopicArn") != topic or not url:
        raise Forged
    certificate = _certificate(url)
    if certificate is None:
        queue.ensure("fetch_certificate", key="fetch_certificate", url=url)
        raise NotYet
    if not sns.is_genuine(message, certificate):
        raise Forged
    name = str(message.get("MessageId", ""))
    if message["Type"] == sns.NOTIFICATION:
        return _store("ses", body, name)
    with transaction.atomic():
        event = _keep("ses", name, body.decode(), provider_events.Told(EventKind.OTHER))
        if event and message["Type"] == "SubscriptionConfirmation":
            key = f"confirm_subscription:{event.pk}"
            queue.enqueue("confirm_subscription", key=key, event_id=event.pk)
    return int(event is not None)


_DOORS: dict[str, Callable[[Headers, bytes], int]] = {
    "ses": _ses,
    "postmark": _postmark,
    "resend": _resend,
}


def _certificate(url: str) -> bytes | None:
    rows = ProviderEvent.objects.filter(provider=CERTIFICATES, event_key=_hash(url.encode()))
    pem = rows.values_list("raw", flat=True).first()
    return pem.encode() if pem else None


def _store(provider: str, body: bytes, name: str = "") -> int:
    """Each event of the body once: by the provider's name of it, else by all that it says."""
    found = _parse(body)
    many = isinstance(found, list)
    events = found if many else [found]
    if len(events) > MOST_EVENTS or not all(isinstance(event, dict) for event in events):
        raise Malformed
    kept = 0
    with transaction.atomic():
        for number, event in enumerate(events):
            raw = json.dumps(event) if many else body.decode()
            key = f"{name} {number}" if name and many else name or json.dumps(event, sort_keys=True)
            told = provider_events.read(provider, event)
            row = _keep(provider, key, raw, told)
            kept += row is not None
            if row and not row.applied_at:
                queue.enqueue("apply_event", key=f"apply_event:{row.pk}", event_id=row.pk)
    return kept


def _keep(provider: str, key: str, raw: str, told: provider_events.Told) -> ProviderEvent | None:
    """The new row; None where it was told before."""
    done = told.kind == EventKind.OTHER
    row, created = ProviderEvent.objects.get_or_create(
        provider=provider,
        event_key=_hash(key.encode("utf-8", "replace")),
        defaults={
            "kind": told.kind,
            "provider_message_id": told.message_id[:200],
            "raw": raw,
            "occurred_at": told.occurred_at,
            "applied_at": database_now() if done else None,
            "note": "kept, and changes nothing" if done else "",
        },
    )
    log.info("webhook.event", provider=provider, kind=told.kind, row=row.pk, new=created)
    return row if created else None


def _json(body: bytes) -> dict[str, Any]:
    found = _parse(body)
    if not isinstance(found, dict):
        raise Malformed
    return found


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise Malformed from None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
