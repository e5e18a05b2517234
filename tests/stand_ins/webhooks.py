"""What the providers' webhooks send, signed as they sign: Resend by Svix, Postmark by basic auth, SES by SNS.

It shares no line with what it tests. Each function gives a body and its headers.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

SVIX_SECRET = "whsec_" + base64.b64encode(b"a secret of Resend's, 32 bytes..").decode()
BASIC_SECRET = "postmark:a password of 16 or more"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:carteiro"
SNS_HOST = "https://sns.eu-west-1.amazonaws.com"
CERTIFICATE_PATH = "/SimpleNotificationService-0123456789abcdef.pem"

Sent = tuple[bytes, dict[str, str]]


def svix(
    event: Any, *, id: str = "msg_1", at: float | None = None, secret: str = SVIX_SECRET
) -> Sent:
    """Resend's: https://docs.svix.com/receiving/verifying-payloads/how-manual"""
    body = json.dumps(event).encode()
    stamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(b'another').decode()} v1,{base64.b64encode(mac).decode()}"
    return body, {"svix-id": id, "svix-timestamp": stamp, "svix-signature": signature}


def basic(event: Any, *, secret: str = BASIC_SECRET) -> Sent:
    """Postmark's: the user and password stand in the webhook's address there."""
    encoded = base64.b64encode(secret.encode()).decode()
    return json.dumps(event).encode(), {"authorization": f"Basic {encoded}"}


def sns(event: Any, *, version: str = "2", host: str = SNS_HOST, **over: Any) -> Sent:
    """SES's, in a notification: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html"""
    message = {
        "Type": "Notification",
        "MessageId": str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(event))),
        "TopicArn": TOPIC,
        "Message": event if isinstance(event, str) else json.dumps(event),
        "Timestamp": "2026-06-01T07:00:00.000Z",
        "SignatureVersion": version,
        "SigningCertURL": host + CERTIFICATE_PATH,
        **over,
    }
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if message["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
    made = _key().sign(text.encode(), padding.PKCS1v15(), algorithm)
    message.setdefault("Signature", base64.b64encode(made).decode())
    kind = {"x-amz-sns-message-type": message["Type"]}
    return json.dumps(message).encode(), kind


def confirmation(kind: str = "SubscriptionConfirmation", **over: Any) -> Sent:
    """What SNS sends when somebody subscribes the webhook to a topic."""
    values = {"Type": kind, "Token": "t0ken", "SubscribeURL": "https://evil.example/?x", **over}
    return sns("You have chosen to subscribe.", **values)


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def sns_certificate(days: int = 30) -> bytes:
    """In PEM, valid for so many days from yesterday on."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .sign(_key(), hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
