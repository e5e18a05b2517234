"""Compile an issue's MIME once, stamp it for each recipient: pure, and the bytes never vary.

The bodies are quoted-printable (RFC 2045 section 6.7). They are cut at the placeholders that
rendering left and each piece is encoded once; a recipient's value is encoded on lines of its own
between soft line breaks, so a stamp is a concatenation. The headers are written by `headers.py`.
"""

from __future__ import annotations

import binascii
import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from html import escape
from typing import Any

from delivery.headers import (
    MessageError,
    display_name,
    fold,
    one_line,
    require,
    wire_address,
)
from newsletter.rendering import Rendered
from newsletter.rendering.placeholders import split

_SOFT_BREAK = b"=\r\n"
_ROOM = 75  # 76 octets a line (RFC 2045 section 6.7) less the "=" of a soft break
_STORED_VERSION = 1
_NONCE = re.compile(r"[0-9a-f]{8,64}")
_LIST_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
# One line, never folded nor encoded: 998 octets (RFC 5322) less the header's name.
_URL = re.compile(r"https?://[!#-;=?-\[\]-~]{1,900}")


@dataclass(frozen=True)
class Mailbox:
    """Whom a mail is from: a display name, perhaps empty, and an address."""

    name: str
    address: str


@dataclass(frozen=True)
class Recipient:
    """What differs from copy to copy; `name` may be empty."""

    delivery_id: int
    address: str
    name: str
    unsubscribe_url: str


@dataclass(frozen=True)
class Piece:
    """A stretch of the message; where a recipient has a value for `slot` that replaces `data`."""

    slot: str
    data: bytes


@dataclass(frozen=True)
class CompiledMessage:
    """An issue's mail for everybody; ASCII throughout, so that it fits in a JSONField."""

    nonce: str
    domain: str
    pieces: tuple[Piece, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, after a deploy and in another process too."""
        return {
            "version": _STORED_VERSION,
            "nonce": self.nonce,
            "domain": self.domain,
            "pieces": [[piece.slot, piece.data.decode("ascii")] for piece in self.pieces],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> CompiledMessage:
        """Read a stored message; raises MessageError for one that this version does not know."""
        if stored.get("version") != _STORED_VERSION:
            raise MessageError("The stored message is of another version; compile the issue again.")
        pieces = tuple(Piece(slot, data.encode("ascii")) for slot, data in stored["pieces"])
        return cls(nonce=stored["nonce"], domain=stored["domain"], pieces=pieces)


def compile_message(
    rendered: Rendered,
    *,
    sender: Mailbox,
    list_id: str,
    date: datetime.datetime,
    nonce: str,
    page_url: str = "",
) -> CompiledMessage:
    """Make an issue's MIME, with gaps for what `stamp` puts in.

    `nonce` is 8 to 64 random hex digits that the caller keeps: Message-ID and boundary come from
    it. `list_id` is ASCII with a dot (RFC 2919). `page_url`, if given, is where the issue is on the
    web (Archived-At, RFC 5064). Raises MessageError where one of them cannot be used.
    """
    require(_NONCE.fullmatch(nonce), "The nonce must be 8 to 64 lower-case hex digits.")
    require(_LIST_ID.fullmatch(list_id), "The list id must be ASCII words joined by dots.")
    require(date.tzinfo, "The date of a message must have a time zone.")
    address = wire_address(sender.address, "the sender")
    require(address.isascii(), "The sender's address must be ASCII.")
    domain = address.rpartition("@")[2]
    head = _head(rendered.subject, sender.name, address, list_id, date, page_url)
    boundary = f"=_{nonce}"  # "=_" never occurs in quoted-printable (RFC 2045 section 6.7)
    body = _multipart(rendered, boundary)
    return CompiledMessage(nonce=nonce, domain=domain, pieces=tuple(_merge([*head, *body])))


def stamp(compiled: CompiledMessage, recipient: Recipient) -> bytes:
    """Return one recipient's copy: CRLF throughout, at the end too, dots not stuffed.

    Raises MessageError, without the address, where the recipient cannot be written in a header.
    """
    values = _values(compiled, recipient)
    return b"".join([values.get(piece.slot, piece.data) for piece in compiled.pieces])


def message_id(compiled: CompiledMessage, delivery_id: int) -> str:
    """Return the Message-ID of a delivery's copy, in angle brackets."""
    return f"<{delivery_id}.{compiled.nonce}@{compiled.domain}>"


def envelope_address(recipient: Recipient) -> str:
    """Return the address for RCPT TO: the domain as A-labels, the local part as it is."""
    return wire_address(recipient.address, f"delivery {recipient.delivery_id}")


def _values(compiled: CompiledMessage, recipient: Recipient) -> dict[str, bytes]:
    url = recipient.unsubscribe_url
    whose = f"delivery {recipient.delivery_id}"
    require(_URL.fullmatch(url), f"The unsubscribe link of {whose} is no plain http(s) URL.")
    address = wire_address(recipient.address, whose)
    name = one_line(recipient.name)
    values = {
        "to": f"{display_name(name)}<{address}>".encode(),
        "message_id": message_id(compiled, recipient.delivery_id).encode(),
        "url_header": url.encode(),
        "url_text": _value(url),
        "url_html": _value(escape(url)),
    }
    return values | _names(name) if name else values


def _names(name: str) -> dict[str, bytes]:
    """Only somebody with a name has these: for others the compiled fallbacks stay."""
    return {
        "name_text": _value(name),
        "name_html": _value(escape(name)),
        "spaced_name_text": _value(f" {name}"),
        "spaced_name_html": _value(f" {escape(name)}"),
    }


def _head(
    subject: str,
    sender_name: str,
    address: str,
    list_id: str,
    date: datetime.datetime,
    page_url: str,
) -> Iterator[Piece]:
    require(not page_url or _URL.fullmatch(page_url), "The page's address is no plain URL.")
    yield _static(f"From: {display_name(one_line(sender_name))}<{address}>\r\nTo: ")
    yield Piece("to", b"")
    yield _static(f"\r\nSubject: {fold(one_line(subject))}\r\n")
    yield _static(f"Date: {format_datetime(date)}\r\nMessage-ID: ")
    yield Piece("message_id", b"")
    yield _static(f"\r\nList-Id: <{list_id}>\r\nList-Unsubscribe: <")
    yield Piece("url_header", b"")
    yield _static(">\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
    if page_url:
        yield _static(f"Archived-At: <{page_url}>\r\n")


def _multipart(rendered: Rendered, boundary: str) -> Iterator[Piece]:
    yield _static(
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'
    )
    for subtype, body in (("plain", rendered.text), ("html", rendered.html)):
        yield _static(
            f"--{boundary}\r\n"
            f"Content-Type: text/{subtype}; charset=utf-8\r\n"
            "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        )
        yield from _body(body, "html" if subtype == "html" else "text")
        yield _static("\r\n")
    yield _static(f"--{boundary}--\r\n")


def _body(text: str, form: str) -> Iterator[Piece]:
    slots = {"unsubscribe_url": "url", "name": "name", "spaced_name": "spaced_name"}
    pieces = list(split(text.replace("\r\n", "\n").replace("\r", "\n")))
    for index, (kind, words) in enumerate(pieces):
        encoded = _quoted_printable(words)
        if kind != "text":
            yield Piece(f"{slots[kind]}_{form}", _soft_broken(encoded))
        elif index + 1 < len(pieces) and not encoded.endswith(b"\n"):
            yield Piece("", _soft_broken(encoded))
        else:
            yield Piece("", encoded)


def _merge(pieces: list[Piece]) -> Iterator[Piece]:
    """Join static neighbours: a stamp touches some twenty pieces."""
    static = b""
    for piece in pieces:
        if piece.slot:
            yield from [Piece("", static)] if static else []
            yield piece
            static = b""
        else:
            static += piece.data
    yield Piece("", static)


def _value(text: str) -> bytes:
    return _soft_broken(_quoted_printable(text))


def _soft_broken(encoded: bytes) -> bytes:
    """End with a soft break; b2a_qp fills a last line to 76 octets, where its "=" has no room."""
    if len(encoded) - encoded.rfind(b"\n") - 1 > _ROOM:
        cut = -3 if encoded[-3:-2] == b"=" else -1
        encoded = encoded[:cut] + _SOFT_BREAK + encoded[cut:]
    return encoded + _SOFT_BREAK


def _quoted_printable(text: str) -> bytes:
    """Encode text with LF line ends in lines of at most 76 octets."""
    encoded = binascii.b2a_qp(text.encode("utf-8", "replace"), istext=True)
    return encoded.replace(b"\n", b"\r\n")


def _static(text: str) -> Piece:
    return Piece("", text.encode("ascii"))
