"""Resend: https://resend.com/docs/api-reference/emails/send-email"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from anymail.backends.resend import EmailBackend
from anymail.message import AnymailMessage

from delivery.transports import Envelope
from delivery.transports.api_url import ApiUrl
from delivery.transports.mime import in_parts
from delivery.transports.smtp import Timeouts


class Backend(EmailBackend):
    def __init__(self, session: requests.Session, **options: Any) -> None:
        super().__init__(**options)
        self._ours = session

    def create_session(self) -> requests.Session:
        return self._ours

    def build_message_payload(self, message: AnymailMessage, defaults: Any) -> Any:
        payload = super().build_message_payload(message, defaults)
        if message.key:
            payload.headers["Idempotency-Key"] = message.key
        return payload


def backend(url: ApiUrl, session: requests.Session, timeouts: Timeouts) -> Backend:
    options = {"api_url": url.api} if url.api else {}
    timeout = (timeouts.connect, timeouts.dot)
    return Backend(session, api_key=url.user, timeout=timeout, **options)


def message(envelope: Envelope) -> AnymailMessage:
    made = in_parts(envelope)
    made.key = envelope.key
    if envelope.delivery_id:
        delivery = str(envelope.delivery_id)
        made.metadata = {"delivery": delivery}  # a header
        made.esp_extra = {"tags": [{"name": "delivery", "value": delivery}]}
    return made


def read(headers: Mapping[str, str], data: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return data.get("id"), data.get("name"), data.get("message")
