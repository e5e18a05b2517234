"""An issue's file: what is read, what is refused and what the refusal says."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.documents import DocumentError, ParsedIssue, dump, parse

GOOD = """---
title: "Spring: what's new"
slug: spring
date: 2026-06-01
summary: In short
author: Ana
tags: [rust, news]
---

Hello *there*.
"""


def front(*lines: str, body: str = "Hello.") -> bytes:
    return "\n".join(["---", *lines, "---", body]).encode()


def refusal(data: bytes) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        parse(data)
    return caught.value


def test_it_reads_every_field() -> None:
    assert parse(GOOD.encode()) == ParsedIssue(
        title="Spring: what's new",
        slug="spring",
        date=datetime.date(2026, 6, 1),
        summary="In short",
        author="Ana",
        tags=("rust", "news"),
        markdown="Hello *there*.",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_it_accepts_any_line_end(end: str) -> None:
    assert parse(GOOD.replace("\n", end).encode()) == parse(GOOD.encode())


def test_it_accepts_a_byte_order_mark() -> None:
    assert parse(b"\xef\xbb\xbf" + GOOD.encode()) == parse(GOOD.encode())


def test_it_says_which_byte_is_not_utf8() -> None:
    data = GOOD.encode().replace(b"there", b"\xe9")
    error = refusal(data)
    assert error.line == 10
    assert f"byte {data.index(0xE9)} " in error.message
    assert "UTF-8" in error.message


def test_it_says_where_a_control_character_is() -> None:
    error = refusal(GOOD.replace("there", "\x00").encode())
    assert error.line == 10
    assert "U+0000 in column 8" in error.message


def test_it_shows_what_front_matter_looks_like() -> None:
    error = refusal(b"Title: This Week in Rust 654\n\nHello")
    assert error.line == 1
    assert "no front matter" in error.message
    assert "title: ..." in error.message


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", 1, "no front matter"),
        (b"---\ntitle: a\n\nHello", 1, "never closed"),
        (front("title: a: b"), 2, "is no YAML"),
        (front("title: a", "tags: [a"), 3, "is no YAML"),
        (front("- a", "- b"), 2, "has no keys"),
        (front(), 2, "has no keys"),
        (front("title: &a x", "author: *a"), 2, "not allowed"),
        (front("title: !!python/object:os.system x"), 2, "not allowed"),
        (front("tags: " + "[" * 20_000), 2, "nested too deeply"),
        (front("title: a", "title: b"), 3, "twice, first on line 2"),
        (front("[a]: b"), 2, "must be a word"),
        (front("date: 2026-06-01"), 1, "no title"),
        (front("title: ''", "date: 2026-06-01"), 2, "no title"),
        (front("title: ~", "date: 2026-06-01"), 2, "no title"),
        (front("title: " + "x" * 201, "date: 2026-06-01"), 2, "201 characters, more than 200"),
        (front('title: "a\\nb"', "date: 2026-06-01"), 2, "on one line"),
        (front('title: "a\\u2028b"', "date: 2026-06-01"), 2, "on one line"),
        (front("title: [a]", "date: 2026-06-01"), 2, "must be text"),
        (front("title: a"), 1, "no date"),
        (front("title: a", "date: tomorrow"), 3, "'tomorrow' is no day"),
        (front("title: a", "date: 2026-02-30"), 3, "is no day"),
        (front("title: a", "date: 2026-06-01", "slug: Not-Good"), 4, "a to z"),
        (front("title: a", "date: 2026-06-01", "slug: 654"), 4, "not only digits"),
        (front("title: a", "date: 2026-06-01", "slug: ../a"), 4, "a to z"),
        (front("title: a", "date: 2026-06-01", "slug: " + "x" * 101), 4, "more than 100"),
        (front("title: a", "date: 2026-06-01", "tags: {a: b}"), 4, "list of words"),
        (front("title: a", "date: 2026-06-01", "tags: [[a]]"), 4, "list of words"),
        (front("title: a", "date: 2026-06-01", body=" \n\n"), 4, "nothing after"),
        (front("title: a", "author: " + "x" * 70_000), 1, "64000 bytes"),
        (b"x" * 2_000_001, None, "2000001 bytes"),
    ],
)
def test_it_refuses_and_says_where(data: bytes, line: int | None, words: str) -> None:
    error = refusal(data)
    assert (error.line, words in error.message) == (line, True), error


@pytest.mark.parametrize(
    ("written", "title"),
    [("12:30", "12:30"), ("yes", "yes"), ("1_000", "1_000"), ("2026-06-01", "2026-06-01")],
)
def test_it_takes_a_title_as_the_author_wrote_it(written: str, title: str) -> None:
    assert parse(front(f"title: {written}", "date: 2026-06-01")).title == title


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Hello, World", "hello-world"),
        ("Ação à vista", "acao-a-vista"),
        ("654", "issue-654"),
        ("🦀", "issue-2026-06-01"),
        ("snake_case", "snake-case"),
    ],
)
def test_it_makes_a_slug_from_the_title(title: str, slug: str) -> None:
    assert parse(front(f"title: {title}", "date: 2026-06-01")).slug == slug


def test_it_takes_the_day_of_a_time_with_a_warning() -> None:
    issue = parse(front("title: a", "date: 2026-06-01 10:30:00"))
    assert issue.date == datetime.date(2026, 6, 1)
    assert [(w.line, "ignored" in w.message) for w in issue.warnings] == [(3, True)]


def test_it_names_the_key_that_an_unknown_one_is_near_to() -> None:
    issue = parse(front("title: a", "date: 2026-06-01", "sumary: b"))
    assert [w.line for w in issue.warnings] == [4]
    assert "did you mean summary?" in issue.warnings[0].message


def test_it_reads_keys_whatever_their_case() -> None:
    assert parse(front("Title: a", "Date: 2026-06-01")).title == "a"


@pytest.mark.parametrize("tags", ["tags: a, b ,a", "tags: [a, b, a]", "tags:\n- a\n- b"])
def test_it_reads_tags_as_a_list_or_with_commas(tags: str) -> None:
    assert parse(front("title: a", "date: 2026-06-01", tags)).tags == ("a", "b")


LINE = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn")), min_size=1, max_size=40
).map(str.strip)
TAG = LINE.filter(lambda text: text and "," not in text)


@settings(deadline=None)
@given(
    title=LINE.filter(bool),
    slug=st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9})?", fullmatch=True),
    date=st.dates(min_value=datetime.date(1000, 1, 1)),
    summary=LINE,
    author=LINE,
    tags=st.lists(TAG, max_size=4, unique=True).map(tuple),
    markdown=st.lists(LINE.filter(bool), min_size=1, max_size=4).map("\n".join),
)
def test_it_reads_back_what_it_dumps(**fields: object) -> None:
    issue = parse(dump(**fields).encode())  # type: ignore[arg-type]
    assert issue == ParsedIssue(**fields)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: front(text)))
def test_it_never_fails_but_with_its_own_error(data: bytes) -> None:
    try:
        parse(data)
    except DocumentError as error:
        assert error.message
