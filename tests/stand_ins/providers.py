"""The send endpoints of Postmark, Resend and Amazon SES v2 on 127.0.0.1, which misbehave on command.

It shares no line with what it tests, and so can be an independent witness::

    with ProviderStandIn("resend") as api:
        settings.EMAIL_URL = api.url
        api.on(reply(503), times=1)
        api.on(drop(), accepted=True, recipient="bob@example.org")
        ...
        assert api.copies() == Counter({"alice@example.org": 1})

A message is recorded before its answer goes out. Connections are kept, as the providers do.
"""

from __future__ import annotations

import base64
import ssl
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler
from typing import Any, Self, cast

from tests.stand_ins.http import Reply, Request, TlsServer, json_reply

__all__ = ["Accepted", "ProviderStandIn"]


@dataclass(frozen=True)
class Accepted:
    """A message that was taken. ``headers`` are the custom ones, or for SES all."""

    id: str
    recipient: str
    delivery: str  # what the message's metadata name
    key: str
    subject: str
    text: str
    html: str
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""  # of SES


@dataclass
class _Order:
    reply: Reply
    recipient: str
    times: float
    accepted: bool


class ProviderStandIn:
    """``provider``: postmark, resend or ses. ``tls``: speak https with this context."""

    def __init__(self, provider: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.provider = provider
        self.requests: list[Request] = []
        self.accepted: list[Accepted] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._orders: list[_Order] = []
        self._answers: dict[str, tuple[bytes, Reply]] = {}
        self._lock = threading.Lock()
        self._server = _Server(self, tls)
        port = self._server.server_address[1]
        self.api = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        user = {"postmark": "token@", "resend": "re_key@", "ses": "AKID:s3cret@eu-west-1"}
        self.url = f"anymail+{provider}://{user[provider]}?api={self.api}"

    def on(
        self,
        reply: Reply,
        *,
        recipient: str = "",
        times: float = float("inf"),
        accepted: bool = False,
    ) -> None:
        """Answer so instead, for one recipient or all, so many times; ``accepted``: the message was taken."""
        with self._lock:
            self._orders.append(_Order(reply, recipient, times, accepted))

    def behave(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()

    def copies(self) -> Counter[str]:
        """How many accepted messages each recipient has."""
        with self._lock:
            return Counter(message.recipient for message in self.accepted)

    def answer(self, request: Request) -> Reply:
        """Record a request, take its message or not, and say what its answer is."""
        with self._lock:
            self.requests.append(request)
            if refusal := self._unauthorised(request):
                return refusal
            message = _READ[self.provider](request)
            order = self._order(message.recipient)
            if order and not order.accepted:
                return order.reply
            answer = self._take(message, request.body)
            return order.reply if order else answer

    def _take(self, message: Accepted, body: bytes) -> Reply:
        """Once for each key, as Resend documents it."""
        if message.key in self._answers:
            first_body, answer = self._answers[message.key]
            if first_body == body:
                return answer
            return json_reply({"statusCode": 409, "name": "invalid_idempotent_request"}, 409)
        self.accepted.append(message)
        answer = json_reply(_ANSWER[self.provider](message))
        if message.key:
            self._answers[message.key] = (body, answer)
        return answer

    def _order(self, recipient: str) -> _Order | None:
        for order in self._orders:
            if order.times > 0 and order.recipient in ("", recipient):
                order.times -= 1
                return order
        return None

    def _unauthorised(self, request: Request) -> Reply | None:
        headers = request.headers
        if self.provider == "postmark" and headers.get("x-postmark-server-token") != "token":
            return json_reply({"ErrorCode": 10, "Message": "Bad or missing API token."}, 401)
        if self.provider == "resend" and headers.get("authorization") != "Bearer re_key":
            return json_reply({"name": "invalid_api_key", "message": "API key is invalid"}, 403)
        signed = headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 Credential=AKID/")
        if self.provider == "ses" and not signed:
            return json_reply({"message": "The security token is invalid."}, 403)
        return None

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


def _read_postmark(request: Request) -> Accepted:
    assert request.path == "/email", request.path
    data = request.json()
    return Accepted(
        id=str(uuid.uuid4()),
        recipient=_bare(data["To"]),
        delivery=data.get("Metadata", {}).get("delivery", ""),
        key="",
        subject=data["Subject"],
        text=data.get("TextBody", ""),
        html=data.get("HtmlBody", ""),
        headers={header["Name"]: header["Value"] for header in data.get("Headers", [])},
    )


def _read_resend(request: Request) -> Accepted:
    assert request.path == "/emails", request.path
    data = request.json()
    (to,) = data["to"]
    return Accepted(
        id=str(uuid.uuid4()),
        recipient=_bare(to),
        delivery={tag["name"]: tag["value"] for tag in data.get("tags", [])}.get("delivery", ""),
        key=request.headers.get("idempotency-key", ""),
        subject=data["subject"],
        text=data.get("text", ""),
        html=data.get("html", ""),
        headers=data.get("headers", {}),
    )


def _read_ses(request: Request) -> Accepted:
    assert request.path == "/v2/email/outbound-emails", request.path
    data = request.json()
    raw = base64.b64decode(data["Content"]["Raw"]["Data"])
    mime = message_from_bytes(raw, policy=policy.default)
    (to,) = data["Destination"]["ToAddresses"]
    text, html = mime.get_body(("plain",)), mime.get_body(("html",))
    return Accepted(
        id=uuid.uuid4().hex,
        recipient=to,
        delivery={tag["Name"]: tag["Value"] for tag in data.get("EmailTags", [])}.get(
            "delivery", ""
        ),
        key="",
        subject=str(mime["Subject"]),
        text=text.get_content() if text else "",
        html=html.get_content() if html else "",
        headers={name: str(value) for name, value in mime.items()},
        raw=raw,
    )


_READ = {"postmark": _read_postmark, "resend": _read_resend, "ses": _read_ses}
_ANSWER: dict[str, Any] = {
    "postmark": lambda message: {
        "To": message.recipient,
        "SubmittedAt": "2026-11-23T07:00:00Z",
        "MessageID": message.id,
        "ErrorCode": 0,
        "Message": "OK",
    },
    "resend": lambda message: {"id": message.id},
    "ses": lambda message: {"MessageId": message.id},
}


def _bare(address: str) -> str:
    return address.rpartition("<")[2].removesuffix(">")


class _Server(TlsServer):
    def __init__(self, stand_in: ProviderStandIn, tls: ssl.SSLContext | None) -> None:
        self.stand_in = stand_in
        super().__init__(_Handler, tls)

    def get_request(self) -> tuple[Any, Any]:
        self.stand_in.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        stand_in = cast(_Server, self.server).stand_in
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = stand_in.answer(Request(self.command, self.path, headers, body))
        if stand_in.stopping.wait(answer.delay):
            return
        if answer.raw is not None:
            self.close_connection = True
            self._write(answer.raw, answer.drip)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self._write(answer.body, answer.drip)

    def _write(self, data: bytes, drip: float) -> None:
        if not drip:
            self.wfile.write(data)
            return
        for byte in data:
            self.wfile.write(bytes([byte]))
            if cast(_Server, self.server).stand_in.stopping.wait(drip):
                return

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
