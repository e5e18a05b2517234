"""An issue's file: YAML front matter between two lines of ---, then Markdown.

Values are taken as the words that the author wrote (`title: 12:30` is a title, not 750 seconds);
aliases, anchors and tags are refused, so no file expands into more than it is.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from django.utils.text import slugify

MAX_FILE = 2_000_000
MAX_FRONT_MATTER = 64_000
MAX_TITLE, MAX_SLUG, MAX_SUMMARY, MAX_AUTHOR = 200, 100, 500, 100
MAX_TAGS, MAX_TAG = 30, 50
KEYS = ("title", "slug", "date", "summary", "author", "tags")

_EXAMPLE = 'start the file with "---", "title: ...", "date: 2026-06-03", "---", each on its line'
_MAX_DEPTH = 3
# What YAML refuses, and with it what no mail client shows.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_LINE_END = re.compile("[\n\x85\u2028\u2029]")
_SLUG = re.compile(r"(?!\d+$)[a-z0-9]+(-[a-z0-9]+)*")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken,
            yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)  # fmt: skip
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_EXPANDING = (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)


class DocumentError(ValueError):
    """A file is no issue; `message` says what is wrong and what to do, `line` where (from 1)."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.message = message
        self.line = line


@dataclass(frozen=True)
class Problem:
    """Something to look at that does not stop an import; `line` counts from 1."""

    line: int | None
    message: str


@dataclass(frozen=True)
class ParsedIssue:
    """What a file says; `markdown` has LF line ends and no empty lines around it."""

    title: str
    slug: str
    date: datetime.date
    summary: str
    author: str
    tags: tuple[str, ...]
    markdown: str
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Value:
    line: int
    value: Any


def parse(data: bytes) -> ParsedIssue:
    """Read an issue's file: UTF-8, with or without a byte order mark, any line ends.

    Raises DocumentError for the first thing that is wrong.
    """
    front, markdown, body_line = _split(_decode(data))
    values = _read_front_matter(front)
    warnings = _unknown_keys(values)
    title = _title(values)
    date = _date(values, warnings)
    if not markdown.strip():
        raise DocumentError("There is nothing after the front matter; write the issue.", body_line)
    return ParsedIssue(
        title=title,
        slug=_slug(values, title, date),
        date=date,
        summary=_text(values, "summary", MAX_SUMMARY),
        author=_text(values, "author", MAX_AUTHOR),
        tags=_tags(values),
        markdown=markdown,
        warnings=tuple(warnings),
    )


def dump(
    *,
    title: str,
    slug: str,
    date: datetime.date,
    summary: str = "",
    author: str = "",
    tags: tuple[str, ...] = (),
    markdown: str,
) -> str:
    """Write an issue's file; `parse` gives the same fields back."""
    fields: dict[str, Any] = {"title": title, "slug": slug, "date": date}
    optional = {"summary": summary, "author": author, "tags": list(tags)}
    fields |= {name: value for name, value in optional.items() if value}
    front = yaml.safe_dump(fields, allow_unicode=True, sort_keys=False, width=10**6)
    return f"---\n{front}---\n\n{markdown.strip(chr(10))}\n"


def _decode(data: bytes) -> str:
    if len(data) > MAX_FILE:
        raise DocumentError(f"The file has {len(data)} bytes, more than {MAX_FILE}; shorten it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(
            f"The file is not UTF-8: byte {error.start} is no part of a character; "
            "save it as UTF-8.",
            line,
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    _refuse_control_characters(text)
    return text


def _refuse_control_characters(text: str) -> None:
    found = _FORBIDDEN.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        raise DocumentError(
            f"The control character U+{ord(found[0]):04X} in column {column} is not allowed; "
            "delete it.",
            line,
        )


def _split(text: str) -> tuple[str, str, int]:
    """Return the front matter, the Markdown and the number of the line that closes the former."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise DocumentError(f"The file has no front matter: {_EXAMPLE}.", 1)
    closing = next((i for i, line in enumerate(lines) if i and line.rstrip() == "---"), None)
    if closing is None:
        raise DocumentError(
            'The front matter is never closed: put a line of only "---" after its last key.', 1
        )
    front = "\n".join(lines[1:closing])
    if len(front.encode()) > MAX_FRONT_MATTER:
        raise DocumentError(f"The front matter has more than {MAX_FRONT_MATTER} bytes.", 1)
    return front, "\n".join(lines[closing + 1 :]).strip("\n"), closing + 1


def _read_front_matter(front: str) -> dict[str, _Value]:
    try:
        _refuse_what_expands(front)
        node = yaml.compose(front, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(
            f"The front matter is no YAML: {error.problem or error.context}; "
            'a value that holds ": " or " #" must stand in quotes.',
            mark.line + 2 if mark else None,
        ) from None
    except yaml.YAMLError:
        raise DocumentError("The front matter is no YAML; write it anew.", 2) from None
    if not isinstance(node, yaml.MappingNode):
        raise DocumentError(f"The front matter has no keys: {_EXAMPLE}.", 2)
    return _mapping(node)


def _refuse_what_expands(front: str) -> None:
    depth = 0
    for token in yaml.scan(front, Loader=yaml.SafeLoader):
        line = token.start_mark.line + 2
        if isinstance(token, _EXPANDING):
            raise DocumentError(
                "YAML's &anchors, *aliases and !tags are not allowed; put the value in quotes.",
                line,
            )
        depth += isinstance(token, _OPENING)
        depth -= isinstance(token, _CLOSING)
        if depth > _MAX_DEPTH:
            raise DocumentError("The front matter is nested too deeply.", line)


def _mapping(node: yaml.MappingNode) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for key, value in node.value:
        line = key.start_mark.line + 2
        if not isinstance(key, yaml.ScalarNode):
            raise DocumentError("A key of the front matter must be a word.", line)
        name = key.value.strip().lower()
        if name in values:
            raise DocumentError(f"{name} is given twice, first on line {values[name].line}.", line)
        values[name] = _Value(line, _plain(value))
    return values


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        return "" if node.tag.endswith(":null") else node.value.strip()
    return {}


def _unknown_keys(values: Mapping[str, _Value]) -> list[Problem]:
    warnings = []
    for name, value in values.items():
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYS)}."
            warnings.append(Problem(value.line, f"The key {name[:50]!r} is ignored: {hint}"))
    return warnings


def _text(values: Mapping[str, _Value], name: str, limit: int) -> str:
    found = values.get(name)
    if found is None:
        return ""
    if not isinstance(found.value, str):
        raise DocumentError(f"The {name} must be text.", found.line)
    if _LINE_END.search(found.value):
        raise DocumentError(f"The {name} must be on one line.", found.line)
    if len(found.value) > limit:
        raise DocumentError(
            f"The {name} has {len(found.value)} characters, more than {limit}; shorten it.",
            found.line,
        )
    return found.value


def _title(values: Mapping[str, _Value]) -> str:
    title = _text(values, "title", MAX_TITLE)
    if not title:
        line = values["title"].line if "title" in values else 1
        raise DocumentError('The issue has no title: add "title: ..." to the front matter.', line)
    return title


def _date(values: Mapping[str, _Value], warnings: list[Problem]) -> datetime.date:
    text = _text(values, "date", 100)
    line = values["date"].line if "date" in values else 1
    if not text:
        raise DocumentError('The issue has no date: add "date: 2026-06-03" with its day.', line)
    try:
        if _DAY.fullmatch(text):
            return datetime.date.fromisoformat(text)
        day = datetime.datetime.fromisoformat(text).date() if _DAY.match(text) else None
    except ValueError:
        day = None
    if day is None:
        raise DocumentError(f"{text!r} is no day: write it as 2026-06-03.", line)
    warnings.append(Problem(line, "The date has a time, which is ignored: the newsletter has one."))
    return day


def _slug(values: Mapping[str, _Value], title: str, date: datetime.date) -> str:
    slug = _text(values, "slug", MAX_SLUG)
    if not slug:
        return _slug_of(title, date)
    if not _SLUG.fullmatch(slug):
        raise DocumentError(
            f"The slug {slug!r} may have only a to z, 0 to 9 and single - between them, "
            "and not only digits.",
            values["slug"].line,
        )
    return slug


def _slug_of(title: str, date: datetime.date) -> str:
    slug = re.sub("[-_]+", "-", slugify(title))[:MAX_SLUG].strip("-")
    if not slug:
        return f"issue-{date.isoformat()}"
    return slug if _SLUG.fullmatch(slug) else f"issue-{slug}"[:MAX_SLUG]


def _tags(values: Mapping[str, _Value]) -> tuple[str, ...]:
    found = values.get("tags")
    if found is None:
        return ()
    given = found.value.split(",") if isinstance(found.value, str) else found.value
    if not isinstance(given, list) or not all(isinstance(tag, str) for tag in given):
        raise DocumentError("The tags must be a list of words, or words with commas.", found.line)
    tags = tuple(dict.fromkeys(tag.strip() for tag in given if tag.strip()))
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG or _LINE_END.search(tag) for tag in tags):
        raise DocumentError(
            f"There may be {MAX_TAGS} tags of {MAX_TAG} characters, each on one line.", found.line
        )
    return tags
