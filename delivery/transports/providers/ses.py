"""Amazon SES: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any

import boto3
import requests
from anymail.backends.amazon_ses import AmazonSESV2SendEmailPayload, EmailBackend
from anymail.message import AnymailMessage
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from delivery.transports import Envelope
from delivery.transports.api_url import ApiUrl
from delivery.transports.smtp import Timeouts

_lock = threading.Lock()  # botocore's sessions are not for several threads at once
_session = functools.cache(boto3.session.Session)  # one: it reads megabytes of descriptions


class RawPayload(AmazonSESV2SendEmailPayload):
    def generate_raw_message(self) -> bytes:
        data: bytes = self.message.data
        return data


class Backend(EmailBackend):
    """botocore writes and signs the request; our session sends it."""

    def __init__(
        self, session: requests.Session, timeout: tuple[float, float], **options: Any
    ) -> None:
        super().__init__(**options)
        self.client: Any = None
        self._ours = session
        self._timeout = timeout

    def open(self) -> bool:
        if self.client is not None:
            return False
        with _lock:
            self.client = _session().client("sesv2", **self.client_params)
        self.client.meta.events.register("before-send.sesv2.SendEmail", self._post)
        return True

    def close(self) -> None:
        self._ours.close()  # the client can stay: no connection is its own

    def build_message_payload(self, message: AnymailMessage, defaults: Any) -> RawPayload:
        return RawPayload(message, defaults, self)

    def _post(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        answer = self._ours.request(
            request.method,
            request.url,
            data=request.body,
            headers=dict(request.headers),
            timeout=self._timeout,
        )
        return AWSResponse(answer.url, answer.status_code, answer.headers, _Raw(answer.content))


class _Raw:
    """What botocore reads an answer's body from."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> list[bytes]:
        return [self._body]


def backend(url: ApiUrl, session: requests.Session, timeouts: Timeouts) -> Backend:
    client = {
        "region_name": url.region,
        "endpoint_url": url.api or None,
        "aws_access_key_id": url.user,
        "aws_secret_access_key": url.secret,
        # By default it sends a mail again by itself: after a drop, a time-out, a 500 or a 504.
        "config": {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "ignore_configured_endpoint_urls": True,
        },
    }
    return Backend(
        session,
        timeout=(timeouts.connect, timeouts.dot),
        client_params=client,
        configuration_set_name=url.configuration_set or None,
    )


def message(envelope: Envelope) -> AnymailMessage:
    """The bytes go as they are; the fields here only address them."""
    made = AnymailMessage(from_email=envelope.mail_from, to=[envelope.rcpt_to])
    made.data = envelope.data
    if envelope.delivery_id:
        tag = {"Name": "delivery", "Value": str(envelope.delivery_id)}
        made.esp_extra = {"EmailTags": [tag]}
    return made


def read(headers: Mapping[str, str], data: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The exception's name stands in a header or in the body (AWS's REST JSON protocol)."""
    name = headers.get("x-amzn-errortype") or data.get("__type") or data.get("code") or ""
    name = str(name).split(":")[0].rpartition("#")[2]
    return data.get("MessageId"), name, data.get("message") or data.get("Message")
