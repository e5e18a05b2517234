"""Amazon SNS, which brings the events of SES: its signatures, its certificate, its subscription.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from . import http
from .errors import EdgeError
from .pinned import Networks

NOTIFICATION = "Notification"
CONFIRMATIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")

_SIGNED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_CONFIRMATION = (
    "Message",
    "MessageId",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
)
_HASHES: dict[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303
_TOPIC = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z0-9-]+):\d{12}:[\w-]{1,256}", re.ASCII)
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9a-f]{1,64}\.pem", re.ASCII)


def is_topic(arn: str) -> bool:
    """Whether this is a standard topic's name; a FIFO topic takes no https subscriber."""
    return _TOPIC.fullmatch(arn) is not None


def endpoint(topic_arn: str) -> str:
    """SNS itself, in the region of the topic; ValueError for what is no topic."""
    found = _TOPIC.fullmatch(topic_arn)
    if not found:
        raise ValueError("is no SNS topic: arn:aws:sns:REGION:ACCOUNT:NAME")
    suffix = "amazonaws.com.cn" if found[1] == "aws-cn" else "amazonaws.com"
    return f"https://sns.{found[2]}.{suffix}"


def certificate_url(message: Mapping[str, Any], topic_arn: str) -> str:
    """Where the certificate lies that a message says it is signed with; empty where that is not Amazon's."""
    url = str(message.get("SigningCertURL", ""))
    base = endpoint(topic_arn)
    trusted = url.startswith(f"{base}/") and _CERTIFICATE.fullmatch(url.removeprefix(base))
    return url if trusted else ""


def is_genuine(message: Mapping[str, Any], certificate: bytes) -> bool:
    """Whether the certificate's key has signed the message, by either version of the signature."""
    kind = message.get("Type")
    names = _SIGNED_CONFIRMATION if kind in CONFIRMATIONS else _SIGNED
    algorithm = _HASHES.get(str(message.get("SignatureVersion")))
    if algorithm is None or (kind != NOTIFICATION and kind not in CONFIRMATIONS):
        return False
    fields = [(name, message[name]) for name in names if message.get(name) is not None]
    if not all(isinstance(value, str) for _, value in fields):
        return False
    try:
        signature = base64.b64decode(str(message.get("Signature", "")), validate=True)
        signed = "".join(f"{name}\n{value}\n" for name, value in fields).encode()
        _key(certificate).verify(signature, signed, PKCS1v15(), algorithm)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def fetch_certificate(url: str, *, allow_private: Networks = ()) -> bytes:
    """The certificate in PEM, as Amazon's host serves it over TLS; raises EdgeError."""
    limits = http.Limits(total_seconds=10.0, max_bytes=50_000, max_redirects=0)
    page = http.fetch(url, limits=limits, allow_private=allow_private)
    http.expect_success(page, "The certificate of SNS")
    try:
        _key(page.body)
    except ValueError as error:
        raise EdgeError(f"The certificate of SNS cannot be used: {error}") from None
    return page.body


def confirm(topic_arn: str, token: str, *, allow_private: Networks = ()) -> None:
    """Tell SNS that the subscription is wanted; raises EdgeError. The message's own link is not followed."""
    asked = {"Action": "ConfirmSubscription", "TopicArn": topic_arn, "Token": token}
    limits = http.Limits(total_seconds=20.0, max_bytes=50_000, max_redirects=0)
    url = f"{endpoint(topic_arn)}/?{urlencode(asked)}"
    page = http.fetch(url, limits=limits, allow_private=allow_private)
    http.expect_success(page, "SNS, asked to confirm the subscription,")


def _key(pem: bytes) -> RSAPublicKey:
    """ValueError where it is no certificate that holds today with a key of RSA."""
    certificate = x509.load_pem_x509_certificate(pem)
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ValueError("it is not valid today")
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("its key is not RSA")
    return key
