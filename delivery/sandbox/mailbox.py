"""The sandbox's directory: one ``.eml`` a message, the envelope as its first header lines.

Names sort by time and are never used again, files never change: what was read once can be kept.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.errors import MessageError
from email.header import decode_header
from email.message import Message as ParsedMessage
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path

HEAD_BYTES = 16 * 1024
_KEY = re.compile(r"\d{20}-\d{6}", re.ASCII)
_PREFIX = re.compile(
    rb"(?:X-Sandbox-(?:Mail-From|Rcpt-To):[^\n]*\n)*X-Sandbox-Received-At:([^\n]*)\n"
)
_RCPT = re.compile(rb"^X-Sandbox-Rcpt-To:([^\r\n]*)", re.MULTILINE)
_counter = itertools.count()


class NoSuchMessage(LookupError):
    """No message has this key."""


@dataclass(frozen=True)
class Summary:
    """One line of the list. ``size`` in bytes, without the envelope; ``received_at`` in UTC."""

    key: str
    rcpt_to: str
    subject: str
    sender: str
    received_at: datetime.datetime
    size: int


@dataclass(frozen=True)
class Page:
    """One page of summaries; ``total`` and ``pages`` (at least 1) count what the query found."""

    items: list[Summary]
    total: int
    pages: int
    number: int = 1


@dataclass(frozen=True)
class Message:
    """One message, decoded as far as it goes; ``html`` and ``text`` are "" where it has none."""

    summary: Summary
    headers: list[tuple[str, str]] = field(default_factory=list)
    html: str = ""
    text: str = ""
    source: str = ""


class Mailbox:
    """What the sandbox accepted, newest first. Malformed mail shows what it can."""

    def __init__(self, directory: Path | str) -> None:
        self._directory = Path(directory)

    def add(self, mail_from: str, rcpt_to: Iterable[str], data: bytes) -> str:
        """Store one message and return its key; the file appears complete or not at all."""
        now = time.time_ns()
        key = f"{now:020d}-{next(_counter) % 1_000_000:06d}"
        at = datetime.datetime.fromtimestamp(now / 1e9, datetime.UTC).isoformat()
        lines = [("Mail-From", mail_from), *(("Rcpt-To", to) for to in rcpt_to)]
        head = "".join(f"X-Sandbox-{name}: {value}\r\n" for name, value in lines)
        head += f"X-Sandbox-Received-At: {at}\r\n"
        unfinished = self._directory / f".{key}.{os.getpid()}.tmp"
        unfinished.write_bytes(head.encode("utf-8", "surrogateescape") + data)
        unfinished.rename(self._path(key))
        return key

    def summaries(self, page: int = 1, per_page: int = 50, query: str = "") -> Page:
        """Return one page; ``query`` is searched in recipient and subject, in any case."""
        keys: list[str] = self._keys()
        wanted = query.strip().casefold()
        if wanted:
            keys = [found.key for found in self._read(keys) if _matches(found, wanted)]
        pages = max(1, math.ceil(len(keys) / per_page))
        number = min(max(page, 1), pages)
        shown = keys[(number - 1) * per_page : number * per_page]
        return Page(list(self._read(shown)), len(keys), pages, number)

    def get(self, key: str) -> Message:
        """Return one message. Raises NoSuchMessage, also for a key that is none."""
        if not _KEY.fullmatch(key):
            raise NoSuchMessage("Sandbox: this is not the key of a message")
        try:
            summary, raw = _summary(str(self._path(key))), self._path(key).read_bytes()
        except OSError:
            raise NoSuchMessage("Sandbox: no message has this key") from None
        data = raw[_prefix_length(raw) :]
        source = data.decode("utf-8", "replace")
        try:
            parsed = BytesParser(policy=compat32).parsebytes(data)
            headers = [(name, _decoded(value)) for name, value in parsed.raw_items()]
            html, text = _bodies(parsed)
        except (ValueError, LookupError, MessageError, RecursionError):
            return Message(summary, source=source)
        return Message(summary, headers, html, text, source)

    def count(self) -> int:
        """Return the number of messages."""
        return len(self._keys())

    def recipients(self) -> Counter[str]:
        """Return how many copies each recipient has."""
        each = (summary.rcpt_to.split(", ") for summary in self._read(self._keys()))
        return Counter(itertools.chain.from_iterable(each))

    def _keys(self) -> list[str]:
        try:
            names = os.listdir(self._directory)  # noqa: PTH208  a Path for each of 10,000 is slow
        except FileNotFoundError:
            return []
        stems = (name.removesuffix(".eml") for name in names if name.endswith(".eml"))
        return sorted((stem for stem in stems if _KEY.fullmatch(stem)), reverse=True)

    def _read(self, keys: Iterable[str]) -> Iterable[Summary]:
        for key in keys:
            try:
                yield _summary(f"{self._directory}/{key}.eml")
            except FileNotFoundError:  # removed since it was listed
                continue

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.eml"


def _matches(summary: Summary, wanted: str) -> bool:
    return wanted in summary.rcpt_to.casefold() or wanted in summary.subject.casefold()


@functools.lru_cache(maxsize=50_000)
def _summary(path: str) -> Summary:
    with open(path, "rb") as file:  # noqa: PTH123  for the same reason
        raw = file.read(HEAD_BYTES)
        size = os.fstat(file.fileno()).st_size
    key = path.rpartition("/")[2].removesuffix(".eml")
    start = _prefix_length(raw)
    envelope, rest = raw[:start], raw[start:]
    head = re.split(rb"\r?\n\r?\n", rest, maxsplit=1)[0]
    return Summary(
        key=key,
        rcpt_to=", ".join(_utf8(value).strip() for value in _RCPT.findall(envelope)),
        subject=_header(head, b"subject"),
        sender=_header(head, b"from"),
        received_at=datetime.datetime.fromtimestamp(int(key[:20]) / 1e9, datetime.UTC),
        size=size - start,
    )


def _prefix_length(raw: bytes) -> int:
    found = _PREFIX.match(raw)
    return found.end() if found else 0


def _header(head: bytes, name: bytes) -> str:
    found = re.search(
        rb"^%s[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)" % name, head, re.MULTILINE | re.IGNORECASE
    )
    return _decoded(_utf8(found[1])) if found else ""


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _decoded(value: object) -> str:
    """Unfold a header's value and decode its encoded words (RFC 2047)."""
    text = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = re.sub(r"\r?\n(?=[ \t])", "", text).strip()
    if "=?" not in text:
        return text
    try:
        pieces = decode_header(text)
    except (ValueError, MessageError):
        return text
    return "".join(
        piece if isinstance(piece, str) else _charset(piece, charset or "latin-1")
        for piece, charset in pieces
    )


def _charset(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset, "replace")
    except (LookupError, ValueError):
        return _utf8(raw)


def _bodies(parsed: ParsedMessage) -> tuple[str, str]:
    """Return the first HTML and the first plain part."""
    found: dict[str, str] = {}
    for part in parsed.walk():
        kind = part.get_content_type()
        raw = None if part.is_multipart() else part.get_payload(decode=True)
        if isinstance(raw, bytes) and part.get_content_disposition() != "attachment":
            found.setdefault(kind, _charset(raw, part.get_content_charset("utf-8")))
    return found.get("text/html", ""), found.get("text/plain", "")
