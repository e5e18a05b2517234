"""Compile an issue's MIME once, stamp it for each recipient: pure, and the bytes never vary.

The bodies are quoted-printable (RFC 2045 section 6.7). They are cut at the placeholders that
rendering left and each piece is encoded once; a recipient's value is encoded on lines of its own
between soft line breaks, so a stamp is a concatenation. The headers are written by `headers.py`.
"""

from __future__ import annotations

import binascii
import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from functools import cached_property
from html import escape
from typing import Any, NamedTuple

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

_SOFT_BREAK = b"=\n"  # CRLF comes last
_ROOM = 75  # 76 octets a line (RFC 2045 section 6.7) less the "=" of a soft break
# A space before a line's end: b2a_qp encodes it after it has measured the line, which grows to 78 octets.
_ENCODED_LATE = re.compile(rb"^(.{73,75})(=[0-9A-F]{2})$", re.MULTILINE)
_LEADING_DOT = re.compile(rb"^(\..*?)(=?)$", re.MULTILINE)
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


class Recipient(NamedTuple):
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

    @cached_property
    def is_wire_ready(self) -> bool:
        """Whether what is the same in all copies is; a copy is if its own values are too."""
        last = self.pieces[-1]
        ended = not last.slot and last.data.endswith(b"\r\n")
        return ended and _is_wire_ready(piece.data for piece in self.pieces)

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
    return stamped(compiled, recipient).data


class Stamped(NamedTuple):
    """A recipient's copy, and the address for RCPT TO. ``wire_ready`` is as in a transport's Envelope."""

    address: str
    data: bytes
    wire_ready: bool


def stamped(compiled: CompiledMessage, recipient: Recipient) -> Stamped:
    """Return `stamp` and `envelope_address` in one; raises as they do."""
    address = envelope_address(recipient)
    values = _values(compiled, recipient, address)
    data = b"".join([values.get(piece.slot, piece.data) for piece in compiled.pieces])
    return Stamped(address, data, compiled.is_wire_ready and _is_wire_ready(values.values()))


def message_id(compiled: CompiledMessage, delivery_id: int) -> str:
    """Return the Message-ID of a delivery's copy, in angle brackets."""
    return f"<{delivery_id}.{compiled.nonce}@{compiled.domain}>"


def envelope_address(recipient: Recipient) -> str:
    """Return the address for RCPT TO: the domain as A-labels, the local part as it is."""
    return wire_address(recipient.address, f"delivery {recipient.delivery_id}")


def _is_wire_ready(pieces: Iterable[bytes]) -> bool:
    """Whether no join of them has a bare CR or LF, nor a line that begins with a dot."""
    apart = b"\r\n".join([b"", *pieces, b""])
    ends = apart.count(b"\r\n")
    return ends == apart.count(b"\n") == apart.count(b"\r") and b"\r\n." not in apart


def _values(compiled: CompiledMessage, recipient: Recipient, address: str) -> dict[str, bytes]:
    url = recipient.unsubscribe_url
    if not _URL.fullmatch(url):
        whose = f"delivery {recipient.delivery_id}"
        raise MessageError(f"The unsubscribe link of {whose} is no plain http(s) URL.")
    name = one_line(recipient.name)
    values = {
        "to": f"{display_name(name)}<{address}>".encode(),
        "message_id": message_id(compiled, recipient.delivery_id).encode(),
        "url_header": url.encode(),
    }
    values["url_text"], values["url_html"] = _in_both(url)
    if name:
        values["name_text"], values["name_html"] = _in_both(name)
        values["spaced_name_text"], values["spaced_name_html"] = _in_both(f" {name}")
    return values


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
        if kind != "text":
            yield Piece(f"{slots[kind]}_{form}", _value(words))
        else:
            softly = index + 1 < len(pieces) and not words.endswith("\n")
            yield Piece("", _quoted_printable(words, softly=softly))


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


def _in_both(text: str) -> tuple[bytes, bytes]:
    """A value in the text and in the HTML."""
    value, escaped = _value(text), escape(text)
    return value, value if escaped == text else _value(escaped)


def _value(text: str) -> bytes:
    return _quoted_printable(text, softly=True)


def _quoted_printable(text: str, *, softly: bool) -> bytes:
    """Encode text with LF line ends in lines of at most 76 octets; none begins with a dot, which SMTP would double.

    `softly`: it ends with a soft break.
    """
    encoded = binascii.b2a_qp(text.encode("utf-8", "replace"), istext=True)
    if b"\n" in encoded:
        encoded = _ENCODED_LATE.sub(rb"\1=\n\2", encoded)
    if softly:
        encoded = _soft_broken(encoded)
    if b"\n." in encoded or encoded.startswith(b"."):
        encoded = _LEADING_DOT.sub(_without_dot, encoded)
    return encoded.replace(b"\n", b"\r\n")


def _soft_broken(encoded: bytes) -> bytes:
    """End with a soft break; b2a_qp fills a last line to 76 octets, where its "=" has no room."""
    if len(encoded) - encoded.rfind(b"\n") - 1 > _ROOM:
        cut = -3 if encoded[-3:-2] == b"=" else -1
        encoded = encoded[:cut] + _SOFT_BREAK + encoded[cut:]
    return encoded + _SOFT_BREAK


def _without_dot(line: re.Match[bytes]) -> bytes:
    """Encode the dot; where that makes the line too long, on a line of its own."""
    content, soft = line.groups()
    rows = []
    while content.startswith(b"."):
        content = b"=2E" + content[1:]
        if len(content) > _ROOM:
            rows.append(content[:3])
            content = content[3:]
    return _SOFT_BREAK.join([*rows, content]) + soft


def _static(text: str) -> Piece:
    return Piece("", text.encode("ascii"))
