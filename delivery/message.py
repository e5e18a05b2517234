"""Compile an issue's MIME once, stamp it for each recipient: pure, and the bytes never vary.

The bodies are quoted-printable (RFC 2045 section 6.7). They are cut at the placeholders that
rendering left and each piece is encoded once; a recipient's value is encoded on lines of its own
between soft line breaks, so a stamp is a concatenation. The headers are written here and not by
Python's email package, which encodes a long List-Unsubscribe (mailbox providers then ignore it) and
in 3.11.7 lets a header be injected through an encoded word (CVE-2024-6923).
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from html import escape
from typing import Any

import idna

from newsletter.rendering import Rendered
from newsletter.rendering.placeholders import split

_SOFT_BREAK = b"=\r\n"
_ROOM = 75  # 76 octets a line (RFC 2045 section 6.7) less the "=" of a soft break
_STORED_VERSION = 1
_NONCE = re.compile(r"[0-9a-f]{8,64}")
_LIST_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
# One line, never folded nor encoded: 998 octets (RFC 5322) less the header's name.
_URL = re.compile(r"https?://[!#-;=?-\[\]-~]{1,900}")

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+( [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# A dot-atom, or anything beyond ASCII (RFC 6531); quoted local parts are refused at sign-up.
_LOCAL = re.compile(r"(?!.*\s)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u00a1-\ud7ff\ue000-\U0010ffff-]{1,64}")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LINE = 66
# 45 octets are 60 of base64: with =?utf-8?b??= 72, less than the 75 that RFC 2047 allows.
_CHUNK = 45


class MessageError(ValueError):
    """A message cannot be compiled or stamped; says why without showing an address."""


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
    _require(_NONCE.fullmatch(nonce), "The nonce must be 8 to 64 lower-case hex digits.")
    _require(_LIST_ID.fullmatch(list_id), "The list id must be ASCII words joined by dots.")
    _require(date.tzinfo, "The date of a message must have a time zone.")
    address = _wire_address(sender.address, "the sender")
    _require(address.isascii(), "The sender's address must be ASCII.")
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
    return _wire_address(recipient.address, f"delivery {recipient.delivery_id}")


def needs_smtputf8(recipient: Recipient) -> bool:
    """Whether the local part is not ASCII: the server must then offer SMTPUTF8 (RFC 6531)."""
    return not recipient.address.rpartition("@")[0].isascii()


def _values(compiled: CompiledMessage, recipient: Recipient) -> dict[str, bytes]:
    url = recipient.unsubscribe_url
    whose = f"delivery {recipient.delivery_id}"
    _require(_URL.fullmatch(url), f"The unsubscribe link of {whose} is no plain http(s) URL.")
    address = _wire_address(recipient.address, whose)
    name = _one_line(recipient.name)
    values = {
        "to": f"{_display_name(name)}<{address}>".encode(),
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
    _require(not page_url or _URL.fullmatch(page_url), "The page's address is no plain URL.")
    yield _static(f"From: {_display_name(_one_line(sender_name))}<{address}>\r\nTo: ")
    yield Piece("to", b"")
    yield _static(f"\r\nSubject: {_fold(_one_line(subject))}\r\n")
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


def _require(condition: object, message: str) -> None:
    if not condition:
        raise MessageError(message)


def _one_line(text: str) -> str:
    """Make control characters, line ends and lone surrogates spaces, and runs of spaces one."""
    harmless = text if text.isprintable() else "".join(map(_harmless, text))
    return " ".join(harmless.split())


def _fold(text: str) -> str:
    """Write unstructured text (a Subject) of one line: plain if it can be, else encoded words."""
    words = text.split(" ")
    if not _is_plain(text) or max(map(len, words)) > _LINE:
        return _encoded_words(text)
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) >= _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines).removeprefix(" ")


def _display_name(name: str) -> str:
    """Write a mailbox's display name with the space after it; nothing for an empty one."""
    if not name:
        return ""
    if not _is_plain(name) or len(name) > _LINE:
        return f"{_encoded_words(name)}\r\n "
    if _ATOMS.fullmatch(name):
        return f"{name} "
    quoted = name.replace("\\", r"\\").replace('"', r"\"")
    return f'"{quoted}" '


def _encoded_words(text: str) -> str:
    """Encode text as RFC 2047 words, folded; none of them cuts a character in two."""
    chunks, current = [], b""
    for char in text:
        octets = char.encode("utf-8")
        if len(current) + len(octets) > _CHUNK:
            chunks.append(current)
            current = b""
        current += octets
    chunks.append(current)
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(chunk).decode()}?=" for chunk in chunks)


def _wire_address(address: str, whose: str) -> str:
    """Return an address with its domain as A-labels; raises MessageError, naming only `whose`."""
    local, _, domain = address.rpartition("@")
    try:
        ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        ascii_domain = ""
    if not (_LOCAL.fullmatch(local) and _DOMAIN.fullmatch(ascii_domain)):
        raise MessageError(f"The address of {whose} cannot be written in a mail; correct it.")
    return f"{local}@{ascii_domain}"


def _is_plain(text: str) -> bool:
    # "=?" would be read as the start of an encoded word that somebody else wrote.
    return text.isascii() and "=?" not in text


def _harmless(char: str) -> str:
    return " " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char
