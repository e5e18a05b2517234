"""The mail's bytes: what a mail program reads back, and what no input can break."""

from __future__ import annotations

import datetime
import email
import email.policy
import html
import json
import re
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.utils import parseaddr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.headers import MessageError
from delivery.message import (
    CompiledMessage,
    Mailbox,
    Recipient,
    compile_message,
    envelope_address,
    message_id,
    stamp,
    stamped,
)
from newsletter.rendering import NAME_BEGIN, NAME_END, SPACED_NAME, UNSUBSCRIBE_URL, Rendered

URL = "https://news.example.org/u/" + "t0ken" * 55 + "?a=1&b=2"
ANA = Recipient(42, "ana@example.org", "Ana", URL)
RENDERED = Rendered(
    subject="Issue 1",
    html=f'<p>Hi {NAME_BEGIN}there{NAME_END}{SPACED_NAME}</p><a href="{UNSUBSCRIBE_URL}">Out</a>\n',
    text=f"Hi {NAME_BEGIN}there{NAME_END}{SPACED_NAME}\nOut: {UNSUBSCRIBE_URL}\n",
)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=120)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PLACEHOLDERS = st.sampled_from([UNSUBSCRIBE_URL, SPACED_NAME, f"{NAME_BEGIN}there{NAME_END}"])
BODIES = st.lists(WORDS | PLACEHOLDERS, max_size=8).map("".join)


def compiled(rendered: Rendered = RENDERED, *, name: str = "Weekly") -> CompiledMessage:
    return compile_message(
        rendered,
        sender=Mailbox(name, "news@example.org"),
        list_id="weekly.example.org",
        date=datetime.datetime(2026, 6, 1, 7, 0, tzinfo=datetime.UTC),
        nonce="0123456789abcdef",
        page_url="https://news.example.org/issues/1",
    )


def read(data: bytes) -> EmailMessage:
    return email.message_from_bytes(data, policy=email.policy.default)


def part(message: EmailMessage, subtype: str) -> str:
    found = message.get_body((subtype,))
    assert isinstance(found, EmailMessage)
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


def one_line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def filled(body: str, name: str, url: str) -> str:
    """What a stamp should say, worked out the simple way."""
    body = body.replace(UNSUBSCRIBE_URL, url).replace(SPACED_NAME, f" {name}" if name else "")
    return body.replace(f"{NAME_BEGIN}there{NAME_END}", name or "there")


@given(BODIES, BODIES, NAMES)
@settings(max_examples=300, deadline=None)
def test_it_gives_back_the_bodies_with_the_values_in_them(text: str, page: str, name: str) -> None:
    copy = stamp(compiled(Rendered("S", page, text)), Recipient(1, "ana@example.org", name, URL))
    message, clean = read(copy), one_line(name)
    assert part(message, "plain") == filled(text, clean, URL)
    assert part(message, "html") == filled(page, html.escape(clean), html.escape(URL))


@given(BODIES, NAMES, NAMES)
@settings(max_examples=300, deadline=None)
def test_it_keeps_every_line_in_its_limits(text: str, name: str, title: str) -> None:
    copy = stamp(
        compiled(Rendered(title, text, text), name=title),
        Recipient(1, "ana@example.org", name, URL),
    )
    head, _, body = copy.partition(b"\r\n\r\n")
    assert all(len(line) <= 998 for line in head.split(b"\r\n"))
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))
    assert copy.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|[^\x00-\x7f]", copy)


@pytest.mark.parametrize("last", ["x", " ", "é", "=", "."])
@pytest.mark.parametrize("length", range(70, 80))
def test_it_leaves_room_for_a_soft_break_after_a_full_line(last: str, length: int) -> None:
    text = "x" * length + last + UNSUBSCRIBE_URL
    copy = stamp(compiled(Rendered("S", "", text)), ANA)
    assert all(len(line) <= 76 for line in copy.partition(b"\r\n\r\n")[2].split(b"\r\n"))
    assert part(read(copy), "plain") == filled(text, "Ana", URL)


@given(NAMES, NAMES)
@settings(max_examples=300, deadline=None)
def test_it_lets_no_header_in_through_a_name_or_title(name: str, title: str) -> None:
    copy = stamp(
        compiled(Rendered(title, "", ""), name=name), Recipient(1, "ana@example.org", name, URL)
    )
    assert [line.split(b":")[0] for line in _header_lines(copy)] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"List-Id", b"List-Unsubscribe",
        b"List-Unsubscribe-Post", b"Archived-At", b"MIME-Version", b"Content-Type",
    ]  # fmt: skip


def _header_lines(copy: bytes) -> list[bytes]:
    lines = copy.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line for line in lines if not line.startswith(b" ")]


@pytest.mark.parametrize(
    "name",
    [
        "Ana",
        "Ana Sá",
        'Ana "Nina" Sá\\',
        "Sá, Ana",
        "J. R. (Bob)",
        "a@b",
        "x" * 300,
        "word " * 60,
        "\u65e5\u672c\u8a9e" * 30,
        "👩‍👩‍👧 family",
        "=?utf-8?q?=0D=0ABcc:_x@example.net?=",
    ],
)
def test_it_writes_names_that_a_mail_program_reads(name: str) -> None:
    copy = stamp(compiled(name=name), Recipient(1, "ana@example.org", name, URL))
    message = email.message_from_bytes(copy)
    assert decoded_names(message) == [" ".join(name.split())] * 2


def decoded_names(message: Message) -> list[str]:
    """Read From's and To's names as RFC 2047 says; 3.11's policy.default parts long ones."""
    raw = [parseaddr(re.sub(r"\r?\n", "", message[name]))[0] for name in ("From", "To")]
    return [str(make_header(decode_header(name))) for name in raw]


@pytest.mark.parametrize(
    "title",
    ["Plain", "Ação 🦀 à vista", "🦀" * 80, "word " * 39 + "end", "x" * 200, "=?utf-8?q?x?= y"],
)
def test_it_writes_subjects_that_a_mail_program_reads(title: str) -> None:
    assert read(stamp(compiled(Rendered(title, "", "")), ANA))["Subject"] == title


def test_it_turns_line_ends_in_names_and_titles_into_spaces() -> None:
    rendered = Rendered("Hi\r\nBcc: x@example.net", "", "")
    copy = stamp(compiled(rendered), Recipient(1, "ana@example.org", "A\r\nBcc: y@z", URL))
    message = read(copy)
    assert message["Subject"] == "Hi Bcc: x@example.net"
    assert message["To"].addresses[0].display_name == "A Bcc: y@z"
    assert "Bcc" not in message


def test_it_keeps_a_long_unsubscribe_link_whole_on_the_wire() -> None:
    assert len(URL) > 300
    lines = stamp(compiled(), ANA).split(b"\r\n")
    assert f"List-Unsubscribe: <{URL}>".encode() in lines
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines


def test_it_writes_the_headers_that_identify_a_copy() -> None:
    message = read(stamp(compiled(), ANA))
    assert message["Message-ID"] == "<42.0123456789abcdef@example.org>"
    assert message["Message-ID"] == message_id(compiled(), 42)
    assert message["List-Id"] == "<weekly.example.org>"
    assert message["Date"] == "Mon, 01 Jun 2026 07:00:00 +0000"
    assert message["Archived-At"] == "<https://news.example.org/issues/1>"
    assert [p.get_content_type() for p in message.iter_parts()] == ["text/plain", "text/html"]
    assert not message.defects


def test_it_says_the_fallback_to_somebody_without_a_name() -> None:
    message = read(stamp(compiled(), Recipient(1, "ana@example.org", "", URL)))
    assert part(message, "plain") == f"Hi there\nOut: {URL}\n"


def test_it_gives_the_same_bytes_twice_and_from_storage() -> None:
    stored = json.loads(json.dumps(compiled().to_json()))
    copies = {stamp(compiled(), ANA), stamp(CompiledMessage.from_json(stored), ANA)}
    assert len(copies) == 1


def test_it_refuses_a_stored_message_of_another_version() -> None:
    with pytest.raises(MessageError, match="compile the issue again"):
        CompiledMessage.from_json({**compiled().to_json(), "version": 2})


def test_it_writes_an_international_domain_as_a_labels() -> None:
    recipient = Recipient(1, "ana@straße.example", "", URL)
    assert envelope_address(recipient) == "ana@xn--strae-oqa.example"
    assert b"<ana@xn--strae-oqa.example>" in stamp(compiled(), recipient)


def test_it_passes_an_international_local_part_as_utf8() -> None:
    recipient = Recipient(1, "joão@example.org", "", URL)
    assert "To: <joão@example.org>\r\n".encode() in stamp(compiled(), recipient)


@pytest.mark.parametrize(
    "address",
    ["", "ana", "a b@example.org", "ana@example.org\r\nBcc: x@y", "a>b@example.org", "ana@..",
     "ana@exa mple.org", "a,b@example.org", "ana@[127.0.0.1]", "ana\u2028@example.org"],
)  # fmt: skip
def test_it_refuses_an_address_without_showing_it(address: str) -> None:
    with pytest.raises(MessageError) as caught:
        stamp(compiled(), Recipient(7, address, "", URL))
    assert str(caught.value) == (
        "The address of delivery 7 cannot be written in a mail; correct it."
    )


@pytest.mark.parametrize(
    "url", ["", "mailto:x@y", "https://a b", "https://a>,<b", "https://é", "https://a\r\nX: y"]
)
def test_it_refuses_an_unsubscribe_link_that_breaks_the_header(url: str) -> None:
    with pytest.raises(MessageError, match="unsubscribe link of delivery 7"):
        stamp(compiled(), Recipient(7, "ana@example.org", "", url))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonce": "x"}, "nonce"),
        ({"list_id": "a b"}, "list id"),
        ({"date": datetime.datetime(2026, 6, 1)}, "time zone"),
        ({"sender": Mailbox("", "é@example.org")}, "ASCII"),
        ({"page_url": "https://a b"}, "page"),
    ],
)
def test_it_refuses_to_compile_what_it_cannot_write(change: dict[str, object], words: str) -> None:
    given = {
        "sender": Mailbox("", "news@example.org"),
        "list_id": "a.b",
        "date": datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC),
        "nonce": "0" * 16,
    }
    with pytest.raises(MessageError, match=words):
        compile_message(RENDERED, **{**given, **change})  # type: ignore[arg-type]


BARE_OR_DOT = re.compile(rb"\r(?!\n)|(?<!\r)\n|^\.|\n\.")


@given(text=BODIES, name=NAMES, local=st.sampled_from(["ana", ".ana", "a.b"]))
@settings(max_examples=150, deadline=None)
def test_a_copy_is_wire_ready_only_where_it_goes_out_as_it_is(
    text: str, name: str, local: str
) -> None:
    recipient = Recipient(42, f"{local}@example.org", name, URL)
    found = stamped(compiled(Rendered("S", text, text)), recipient)
    assert found.data == stamp(compiled(Rendered("S", text, text)), recipient)
    assert found.address == envelope_address(recipient)
    assert not found.wire_ready or (
        BARE_OR_DOT.search(found.data) is None and found.data.endswith(b"\r\n")
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (RENDERED.text, "Ana"),
        (RENDERED.text, ".Ana"),
        (f"Hi{SPACED_NAME}. You are", "Ana"),
        ("Hi\n.net\n", "Ana"),
    ],
)
def test_no_line_begins_with_a_dot(text: str, name: str) -> None:
    found = stamped(compiled(Rendered("S", "", text)), Recipient(1, "ana@example.org", name, URL))
    assert b"\n." not in found.data
    assert found.wire_ready


def test_it_knows_a_dot_in_what_was_compiled_before() -> None:
    stored = compiled(Rendered("S", "", "Hi\nnet\n")).to_json()
    stored["pieces"] = [[slot, data.replace("net", ".net")] for slot, data in stored["pieces"]]
    old = CompiledMessage.from_json(stored)
    assert not stamped(old, Recipient(1, "ana@example.org", "Ana", URL)).wire_ready
