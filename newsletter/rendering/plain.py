"""Sanitised HTML -> the text part of a mail.

It is made from the HTML and not from Markdown's tokens, so that an author's raw HTML reads as well
as the Markdown around it. Links stand under the paragraph or list item that they are in: with
hundreds of them nobody scrolls to the end and back.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from newsletter.rendering.placeholders import without
from newsletter.rendering.tree import Node, parse

WIDTH = 72
_UNDERLINES = {"h1": "=", "h2": "-", "h3": "~"}
_MARKS = {"em": "*", "i": "*", "strong": "*", "b": "*", "code": "`", "kbd": "`", "samp": "`"}
_SPACES = re.compile(r"[ \t\r\n]+")
_PUNCTUATION = re.compile(r"[\s.,;:!?)\]*_`]*")


def to_text(html: str) -> str:
    """Render sanitised HTML as text of at most 72 columns, in which no URL is broken."""
    return "\n\n".join(_Writer().blocks(parse(html).children, WIDTH))


def wrap(text: str, width: int = WIDTH) -> str:
    """Wrap each line of `text` at spaces; placeholders count as what they leave visible."""
    return "\n".join(line for part in text.split("\n") for line in _wrap_line(part, width))


def underline(text: str, sign: str = "=") -> str:
    """Wrap a heading and draw a line under it, as long as its longest line."""
    wrapped = wrap(text)
    return f"{wrapped}\n{sign * max(columns(line) for line in wrapped.split(chr(10)))}"


def columns(text: str) -> int:
    """Count the columns that a terminal gives `text`: wide characters take two."""
    return sum(
        0 if unicodedata.combining(char) else 2 if _is_wide(char) else 1 for char in without(text)
    )


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def _wrap_line(line: str, width: int) -> list[str]:
    lines: list[str] = []
    room = -1
    for word in [word for word in line.split(" ") if word] or [""]:
        length = columns(word)
        if length < room:
            lines[-1] += f" {word}"
            room -= length + 1
        else:
            lines.append(word)
            room = width - length
    return lines


@dataclass
class _Run:
    """A stretch of words and of references (a number is an index of `urls`)."""

    parts: list[str | int] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def refer(self, url: str) -> None:
        if url not in self.urls:
            self.urls.append(url)
        self.parts.append(self.urls.index(url))

    def has_one_link_at_its_end(self) -> bool:
        numbers = [i for i, part in enumerate(self.parts) if isinstance(part, int)]
        if len(numbers) != 1:
            return False
        rest = "".join(str(part) for part in self.parts[numbers[0] + 1 :])
        return _PUNCTUATION.fullmatch(rest) is not None


class _Writer:
    """Turns nodes into blocks of text and numbers the links through the whole document."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def blocks(self, children: list[Node | str], width: int) -> list[str]:
        """Render children: neighbouring words and inline elements are one paragraph."""
        found: list[str] = []
        run = _Run()
        for child in children:
            if isinstance(child, Node) and child.is_block():
                found.append(self._finish(run, width))
                run = _Run()
                found.extend(self._block(child, width))
            else:
                self._inline(child, run)
        found.append(self._finish(run, width))
        return [block for block in found if block.strip()]

    def _block(self, node: Node, width: int) -> list[str]:
        width = max(width, 20)
        if node.tag in ("ul", "ol"):
            return [self._list(node, width)]
        if node.tag == "pre":
            return [_prefix(node.text().strip("\n"), "    ")]
        if node.tag == "blockquote":
            return [_prefix("\n\n".join(self.blocks(node.children, width - 2)), "> ")]
        if node.tag == "table":
            return [self._table(node)]
        if node.tag == "hr":
            return ["* * *"]
        if re.fullmatch(r"h[1-6]", node.tag):
            return [self._heading(node)]
        return self.blocks(node.children, width)

    def _heading(self, node: Node) -> str:
        run = _Run()
        for child in node.children:
            self._inline(child, run)
        text, links = self._settle(run)
        if not text:
            return ""
        title = underline(text, _UNDERLINES[node.tag]) if node.tag in _UNDERLINES else wrap(text)
        return "\n".join([title, *links])

    def _list(self, node: Node, width: int) -> str:
        items = [child for child in node.children if isinstance(child, Node) and child.tag == "li"]
        start = _number(node.attributes.get("start"), 1)
        last = start + len(items) - 1
        lines = []
        for index, item in enumerate(items):
            mark = "*" if node.tag == "ul" else f"{start + index}.".rjust(len(str(last)) + 1)
            lines.append(self._item(item, mark, width))
        loose = any(item.has("p") for item in items)
        return ("\n\n" if loose else "\n").join(lines)

    def _item(self, item: Node, mark: str, width: int) -> str:
        indent = " " * (len(mark) + 1)
        between = "\n\n" if item.has("p") else "\n"
        body = between.join(self.blocks(item.children, width - len(indent)))
        return f"{mark} {_prefix(body, indent)[len(indent) :]}".rstrip()

    def _table(self, node: Node) -> str:
        run, rows = _Run(), []
        for row in node.all("tr"):
            cells = [child for child in row.children if isinstance(child, Node)]
            rows.append([self._cell(cell, run) for cell in cells])
        return "\n".join([*_grid(rows), *[f"[{self._number(url)}] {url}" for url in run.urls]])

    def _cell(self, cell: Node, run: _Run) -> str:
        own = _Run(urls=run.urls)
        for child in cell.children:
            self._inline(child, own)
        return " ".join(self._join(own).split())

    def _inline(self, child: Node | str, run: _Run) -> None:
        if isinstance(child, str):
            run.parts.append(_SPACES.sub(" ", child))
        elif child.tag == "br":
            run.parts.append("\n")
        elif child.tag == "img":
            run.parts.append(_image(child))
        elif child.tag == "a":
            self._link(child, run)
        else:
            self._marked(child, run)

    def _marked(self, node: Node, run: _Run) -> None:
        mark = "" if node.inside("a") else _MARKS.get(node.tag, "")
        run.parts.append(mark)
        for child in node.children:
            self._inline(child, run)
        run.parts.append(mark)

    def _link(self, node: Node, run: _Run) -> None:
        url = node.attributes.get("href", "")
        label = node.text().strip()
        if url.startswith("#fnref"):
            return
        if url.startswith("#"):
            run.parts.append(f"^{label.strip('[]')}" if url.startswith("#fn") else label)
            return
        for child in node.children:
            self._inline(child, run)
        if url and url.removeprefix("mailto:") != label:
            run.refer(url)

    def _finish(self, run: _Run, width: int) -> str:
        text, links = self._settle(run)
        return "\n".join([wrap(text, width), *links]) if text or links else ""

    def _settle(self, run: _Run) -> tuple[str, list[str]]:
        """Return a run's text and the lines of its links: one at the end needs no number."""
        if run.has_one_link_at_its_end():
            words = "".join(part for part in run.parts if isinstance(part, str))
            return _tidy(words), list(run.urls)
        links = [f"[{self._number(url)}] {url}" for url in run.urls]
        return _tidy(self._join(run)), links

    def _join(self, run: _Run) -> str:
        return "".join(
            part if isinstance(part, str) else f" [{self._number(run.urls[part])}]"
            for part in run.parts
        )

    def _number(self, url: str) -> int:
        return self.numbers.setdefault(url, len(self.numbers) + 1)


def _tidy(text: str) -> str:
    return re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text)).strip()


def _prefix(text: str, prefix: str) -> str:
    return "\n".join(f"{prefix}{line}".rstrip() for line in text.split("\n"))


def _image(node: Node) -> str:
    alt = _SPACES.sub(" ", node.attributes.get("alt", "")).strip()
    return f"[{alt}]" if alt else ""


def _number(text: str | None, default: int) -> int:
    return int(text) if text and re.fullmatch(r"\d{1,9}", text) else default


def _grid(rows: list[list[str]]) -> list[str]:
    """Draw a table in columns, or line by line where it would be wider than the page."""
    count = max((len(row) for row in rows), default=0)
    full = [row + [""] * (count - len(row)) for row in rows]
    widths = [max(columns(row[i]) for row in full) for i in range(count)]
    if sum(widths) + 3 * (count - 1) > WIDTH:
        return [wrap(" | ".join(row)) for row in full]
    lines = [
        " | ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in full
    ]
    return [*lines[:1], "-+-".join("-" * width for width in widths), *lines[1:]]


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - columns(cell))
