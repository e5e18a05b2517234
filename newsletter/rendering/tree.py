"""A small tree of sanitised HTML, for what reads it again: the text part and the warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"br", "hr", "img"})
_INLINE = frozenset({
    "a", "abbr", "b", "br", "code", "del", "em", "i", "img", "ins", "kbd", "mark", "q", "s", "samp",
    "small", "span", "strong", "sub", "sup", "u", "var",
})  # fmt: skip


@dataclass(eq=False)
class Node:
    """An element, its attributes (an absent value is "") and its children, text among them."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)
    parent: Node | None = None

    def is_block(self) -> bool:
        """Whether it stands in lines of its own; also an inline element that holds a block."""
        return self.tag not in _INLINE or any(
            isinstance(child, Node) and child.is_block() for child in self.children
        )

    def inside(self, tag: str) -> bool:
        """Whether an element of that name is around this one."""
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))

    def has(self, tag: str) -> bool:
        """Whether an element of that name is among the children."""
        return any(isinstance(child, Node) and child.tag == tag for child in self.children)

    def all(self, tag: str) -> Iterator[Node]:
        """Yield the elements of that name below this one, in the document's order."""
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag:
                    yield child
                yield from child.all(tag)

    def text(self) -> str:
        """Return all the words below this element, as they stand."""
        return "".join(
            child if isinstance(child, str) else "\n" if child.tag == "br" else child.text()
            for child in self.children
        )


def parse(html: str) -> Node:
    """Build the tree of sanitised, thus well-formed and shallow, HTML."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    return builder.root


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.current = Node("")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, parent=self.current)
        self.current.children.append(node)
        if tag not in _VOID:
            self.current = node

    def handle_endtag(self, tag: str) -> None:
        if self.current.parent is not None and tag not in _VOID:
            self.current = self.current.parent

    def handle_data(self, data: str) -> None:
        self.current.children.append(data)
