"""A stamped copy has the bytes that a build from scratch gives: the builder here shares no line with what it proves.

The rules that it follows, beside RFC 5322, 2047 and 2045: headers in a fixed order; words that are not plain ASCII, or
a name or word of more than 66 characters, as base64 in groups of up to 45 octets, none within a character; bodies in
quoted-printable, filled to 76 octets a line, and no line begins with a dot. A recipient's value, empty or not, begins a
line and ends with a soft break; so each stretch of text between two values is encoded on its own.
"""

from __future__ import annotations

import base64
import datetime
import email
import email.policy
import html
import re
import textwrap
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from delivery.headers import MessageError
from delivery.message import Mailbox, Recipient, compile_message, stamp
from newsletter.rendering import NAME_BEGIN, NAME_END, SPACED_NAME, UNSUBSCRIBE_URL, Rendered

ASK = settings(max_examples=150, deadline=None)
NONCE = "0123456789abcdef"
PAGE = "https://news.example.org/issues/1"
LONGEST_URL = 900  # characters after the scheme
SHORT = "https://news.example.org/u/t0ken/?a=1&b=2"
ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"


class Part(NamedTuple):
    """A stretch of a body: words, or the place of a value (`words` is what is said where there is none)."""

    kind: str
    words: str = ""


class Person(NamedTuple):
    local: str
    domain: str
    a_labels: str  # the domain on the wire
    name: str
    url: str


ANA = Person("ana", "example.org", "example.org", "Ana", SHORT)

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100
) | st.sampled_from(
    [
        ".",
        ".\n",
        "\n.\n",
        "..x\n",
        "." * 80,
        "." * 75,
        "." * 73 + "\n",
        "x" * 75 + ".y",
        "=",
        "=\n",
        " ",
        " \n",
        "\t\n",
        "\r",
        "\r\n",
        "\n",
        "-- \n",
    ]
    + ["x" * length for length in (72, 73, 74, 75, 76, 77, 200)]
    + ["é" * length for length in (12, 13, 25)]
    + [f"https://example.org/{'a' * 90}?b=c ", "x" * 73 + " \n", "x" * 75 + " \n"]
)
FALLBACKS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=20
)
PARTS = st.one_of(
    TEXTS.map(lambda words: Part("text", words)),
    FALLBACKS.map(lambda words: Part("name", words)),
    st.sampled_from([Part("url"), Part("spaced")]),
)
BODIES = st.lists(PARTS, max_size=9)
NAMES = st.text(max_size=80) | st.sampled_from(["", "Ana", "O'Neil, J.", "x" * 67, "日本" * 40])
URLS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"<>\\'),
    min_size=1,
    max_size=LONGEST_URL,
).map("https://".__add__)
DOMAINS = st.sampled_from(
    [
        ("example.org", "example.org"),
        ("straße.example", "xn--strae-oqa.example"),
        ("münchen.example", "xn--mnchen-3ya.example"),
    ]
)
PEOPLE = st.builds(
    lambda local, domain, name, url: Person(local, domain[0], domain[1], name, url),
    st.sampled_from(["ana", "joão", "a.b+c", "x" * 64]),
    DOMAINS,
    NAMES,
    URLS | st.just(SHORT),
)


@given(NAMES, NAMES, BODIES, BODIES, PEOPLE)
@example("S", "W", [Part("text", "x" * 73 + " \ny")], [Part("text", "x" * 75 + "\t\n")], ANA)
@example(
    "S", "W", [Part("text", "x" * 75 + "."), Part("url")], [Part("text", "."), Part("url")], ANA
)
@ASK
def test_a_stamped_copy_is_byte_for_byte_what_a_full_build_gives(
    subject: str, sender: str, text: list[Part], page: list[Part], person: Person
) -> None:
    assert stamped(subject, sender, text, page, person) == built(
        subject, sender, text, page, person
    )


@given(NAMES, NAMES, BODIES, BODIES, PEOPLE)
@ASK
def test_a_mail_program_reads_in_it_what_was_written(
    subject: str, sender: str, text: list[Part], page: list[Part], person: Person
) -> None:
    message = email.message_from_bytes(
        stamped(subject, sender, text, page, person), policy=email.policy.compat32
    )
    plain, rich = [part.get_payload(decode=True) for part in message.get_payload()]  # type: ignore[union-attr]
    assert isinstance(plain, bytes)
    assert isinstance(rich, bytes)
    assert plain.decode() == said(text, person, str).replace("\n", "\r\n")
    assert rich.decode() == said(page, person, html.escape).replace("\n", "\r\n")
    assert message["List-Unsubscribe"] == f"<{person.url}>"


@given(BODIES, PEOPLE)
@ASK
def test_no_line_of_a_body_is_longer_than_76_octets(body: list[Part], person: Person) -> None:
    copy = stamped("S", "W", body, body, person).partition(b"\r\n\r\n")[2]
    assert max(map(len, copy.split(b"\r\n"))) <= 76
    assert b"\n." not in copy


def test_list_unsubscribe_is_one_line_and_as_it_is_whatever_its_length() -> None:
    for length in range(1, LONGEST_URL + 1):
        url = "https://" + ("e=2%E9&" * LONGEST_URL)[:length]
        copy = stamped("S", "W", [], [], ANA._replace(url=url))
        head = copy.partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert f"List-Unsubscribe: <{url}>".encode() in head


def test_a_link_that_would_not_fit_in_a_line_is_refused() -> None:
    with pytest.raises(MessageError, match="unsubscribe link"):
        stamped("S", "W", [], [], ANA._replace(url="https://" + "x" * (LONGEST_URL + 1)))


def stamped(subject: str, sender: str, text: list[Part], page: list[Part], person: Person) -> bytes:
    """What is proved."""
    compiled = compile_message(
        Rendered(subject, html=with_placeholders(page), text=with_placeholders(text)),
        sender=Mailbox(sender, "news@example.org"),
        list_id="weekly.example.org",
        date=datetime.datetime(2026, 6, 1, 7, 0, tzinfo=datetime.UTC),
        nonce=NONCE,
        page_url=PAGE,
    )
    address = f"{person.local}@{person.domain}"
    return stamp(compiled, Recipient(42, address, person.name, person.url))


def with_placeholders(body: list[Part]) -> str:
    marks = {"url": UNSUBSCRIBE_URL, "spaced": SPACED_NAME}
    return "".join(
        f"{NAME_BEGIN}{words}{NAME_END}" if kind == "name" else marks.get(kind, words)
        for kind, words in body
    )


def built(subject: str, sender: str, text: list[Part], page: list[Part], person: Person) -> bytes:
    """The same mail from scratch, for this person alone."""
    head = [
        f"From: {mailbox(one_line(sender), 'news@example.org')}",
        f"To: {mailbox(one_line(person.name), f'{person.local}@{person.a_labels}')}",
        f"Subject: {unstructured(one_line(subject))}",
        "Date: Mon, 01 Jun 2026 07:00:00 +0000",
        f"Message-ID: <42.{NONCE}@example.org>",
        "List-Id: <weekly.example.org>",
        f"List-Unsubscribe: <{person.url}>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        f"Archived-At: <{PAGE}>",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative;\r\n boundary="=_{NONCE}"',
    ]
    parts = [
        f"--=_{NONCE}\r\nContent-Type: text/{subtype}; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: quoted-printable\r\n\r\n{encoded}\r\n"
        for subtype, encoded in (
            ("plain", encoded_body(values(text, person, str))),
            ("html", encoded_body(values(page, person, html.escape))),
        )
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + "".join(parts) + f"--=_{NONCE}--\r\n").encode()


def one_line(text: str) -> str:
    return " ".join(re.sub(UNPRINTABLE, " ", text).split())


def mailbox(name: str, address: str) -> str:
    if not name:
        return f"<{address}>"
    if not is_plain(name) or len(name) > 66:
        return f"{in_words(name)}\r\n <{address}>"
    if all(re.fullmatch(ATOM, word, re.ASCII) for word in name.split(" ")):
        return f"{name} <{address}>"
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + f'" <{address}>'


def unstructured(text: str) -> str:
    if not is_plain(text) or any(len(word) > 66 for word in text.split(" ")):
        return in_words(text)
    lines = textwrap.wrap(text, 65, break_long_words=False, break_on_hyphens=False)
    if lines and len(lines[0]) > 65:
        lines.insert(0, "")
    return "\r\n ".join(lines)


def is_plain(text: str) -> bool:
    return text.isascii() and "=?" not in text


def in_words(text: str) -> str:
    """RFC 2047's encoded words: as many whole characters as 45 octets hold."""
    groups = [""]
    for char in text:
        if len((groups[-1] + char).encode()) > 45:
            groups.append("")
        groups[-1] += char
    return "\r\n ".join(
        f"=?utf-8?b?{base64.b64encode(group.encode()).decode()}?=" for group in groups
    )


def values(body: list[Part], person: Person, escape: Callable[[str], str]) -> Iterator[Part]:
    """The body with this person's values; neighbouring words are one stretch."""
    name = escape(one_line(person.name))
    for is_text, stretch in groupby(body, key=lambda part: part.kind == "text"):
        if is_text:
            words = "".join(part.words for part in stretch)
            if words:
                yield Part("text", words.replace("\r\n", "\n").replace("\r", "\n"))
            continue
        for part in stretch:
            said = {"url": escape(person.url), "spaced": f" {name}" if name else ""}
            yield Part("value", said.get(part.kind, name or part.words))


def said(body: list[Part], person: Person, escape: Callable[[str], str]) -> str:
    return "".join(part.words for part in values(body, person, escape))


def encoded_body(stretches: Iterator[Part]) -> str:
    found = [part for part in stretches if part.words or part.kind == "value"]
    lines: list[str] = []
    for at, part in enumerate(found, 1):
        own = part.words.split("\n")
        softly = part.kind == "value" or (at < len(found) and own[-1] != "")
        lines += [encoded_line(line) + "\r\n" for line in own[:-1]]
        lines.append(encoded_line(own[-1], softly) + ("=\r\n" if softly else ""))
    return "".join(lines)


def encoded_line(line: str, softly: bool = False) -> str:
    """RFC 2045 section 6.7, rules 1 to 3 and 5; `softly`: another "=" is to follow."""
    octets = line.encode()
    rows = [""]
    for at, octet in enumerate(octets, 1):
        is_last = at == len(octets)
        literal = 33 <= octet <= 126 and octet != ord("=") and octets != b"."
        literal = literal or (octet in b" \t" and not is_last)
        sign = chr(octet) if literal else f"={octet:02X}"
        # The last sign of a hard line needs no room for a "=" behind it; an escape always leaves some.
        room = 76 if is_last and literal and not softly else 75
        if len(rows[-1]) + len(sign) > room:
            rows.append("")
        rows[-1] += sign
    return "=\r\n".join(dotless for row in rows for dotless in without_dot(row))


def without_dot(row: str) -> Iterator[str]:
    """None begins with a dot: it is encoded, on a row of its own where both do not fit."""
    while row.startswith("."):
        if len(row) + 2 <= 75:
            row = f"=2E{row[1:]}"
        else:
            yield "=2E"
            row = row[1:]
    yield row
