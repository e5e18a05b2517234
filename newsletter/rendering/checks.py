"""What stands in the way of an issue's approval, and what its author should look at."""

from __future__ import annotations

import re
from collections.abc import Iterator

from newsletter.rendering import markdown, placeholders, plain, tree
from newsletter.rendering.document import Document, RenderingError, Slots
from newsletter.rendering.emails import render_email

MAX_HTML = 2_000_000
# Gmail shows the first 102 kB and hides the rest, the unsubscribe link among it.
GMAIL_CLIPS = 100_000

_ABSOLUTE = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)
_CURLY = re.compile(r"\{\{[^{}\n]*\}\}")
_FILLED = "{{ name }} or {{ name|there }}"
_NOWHERE = Slots(podcast=None, web_url="https://example.org/")


def problems(document: Document) -> tuple[str, ...]:
    """Say what forbids approval, one sentence each; an empty tuple means that it may go out."""
    try:
        return (*_missing(document), *_reserved(document), *_too_large(document))
    except RenderingError as error:
        return (str(error),)


def warnings(document: Document) -> tuple[str, ...]:
    """Say what an author should look at before approving: nothing here forbids it."""
    try:
        html = markdown.to_html(document.markdown, keep_names=False)
    except RenderingError:
        return ()
    root = tree.parse(html)
    found = [*_relative(root), *_without_alt(root), *_strange_names(document.markdown)]
    size = _size(document)
    if size > GMAIL_CLIPS:
        found.append(f"The mail's HTML has {size // 1000} kB; Gmail hides what is after 102 kB.")
    return tuple(dict.fromkeys(found))


def _missing(document: Document) -> Iterator[str]:
    if not document.title.strip():
        yield "The title is empty; give the issue one."
    if not document.sender_name.strip():
        yield "The newsletter has no sender name; give it one."
    if not document.postal_address.strip():
        yield "The newsletter has no postal address, which the law asks for; give it one."
    html = markdown.to_html(document.markdown, keep_names=False)
    if not plain.to_text(html).strip() and "<img" not in html:
        yield "The body is empty; write something."


def _reserved(document: Document) -> Iterator[str]:
    """Look at the rendered body too: Markdown can put a reserved word together from pieces."""
    html = markdown.to_html(document.markdown, keep_names=False)
    texts = [str(value) for value in document.to_json().values()]
    if any(map(placeholders.occurs_in, [*texts, html, plain.to_text(html)])):
        yield (
            f"The word {placeholders.STEM} is reserved for links that differ by recipient; "
            "take it out."
        )


def _too_large(document: Document) -> Iterator[str]:
    size = _size(document)
    if size > MAX_HTML:
        yield f"The mail's HTML has {size} bytes, more than {MAX_HTML}; shorten the issue."


def _size(document: Document) -> int:
    return len(render_email(document, _NOWHERE).html.encode())


def _relative(root: tree.Node) -> Iterator[str]:
    for tag, name in (("a", "href"), ("img", "src")):
        for node in root.all(tag):
            url = node.attributes.get(name, "")
            if url and not _ABSOLUTE.match(url):
                kind = "link" if tag == "a" else "image"
                yield f"The {kind} to {url} is relative: it leads nowhere from a mail."


def _without_alt(root: tree.Node) -> Iterator[str]:
    for image in root.all("img"):
        if not image.attributes.get("alt", "").strip():
            where = image.attributes.get("src") or "nowhere"
            yield f"The image {where} has no description for readers who do not see it."


def _strange_names(source: str) -> Iterator[str]:
    for word in _CURLY.findall(markdown.prose(source)):
        yield f"{word} is sent as it stands; what is filled is {_FILLED}."
