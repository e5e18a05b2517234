"""Postmark: https://postmarkapp.com/developer/api/email-api"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from anymail.backends.postmark import EmailBackend
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


def backend(url: ApiUrl, session: requests.Session, timeouts: Timeouts) -> Backend:
    options = {"api_url": url.api} if url.api else {}
    return Backend(
        session,
        server_token=url.user,
        message_stream=url.stream or None,
        timeout=(timeouts.connect, timeouts.dot),
        **options,
    )


def message(envelope: Envelope) -> AnymailMessage:
    made = in_parts(envelope)
    made.extra_headers["X-PM-KeepID"] = "true"  # or it writes a Message-ID of its own
    if envelope.delivery_id:
        made.metadata = {"delivery": str(envelope.delivery_id)}
    return made


def read(headers: Mapping[str, str], data: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    code = data.get("ErrorCode", 0)  # it may be missing for a message that is taken late
    return data.get("MessageID") if code == 0 else "", code, data.get("Message")
