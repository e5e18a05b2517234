"""Words that stand in a rendered issue for what differs from recipient to recipient.

They are lower-case letters only, so Markdown, the sanitiser, autoescape and css-inline leave them
alone. A document that contains their stem is refused (`rendering.problems`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

STEM = "carteiroxslotx"
UNSUBSCRIBE_URL = f"{STEM}unsubscribexurl"
# `{{ name|there }}`: the two words enclose what is said to somebody whose name is not known.
NAME_BEGIN = f"{STEM}namexbegin"
NAME_END = f"{STEM}namexend"
# `{{ name }}`: a space and the name, or nothing at all ("Hello Ana," or "Hello,").
SPACED_NAME = f"{STEM}spacedxname"

# What an author writes: {{ name }} or {{ name|there }}.
AUTHORS_NAME = re.compile(r"\{\{[ \t]*name[ \t]*(?:\|[ \t]*(?P<fallback>[^{}|\n]*?)[ \t]*)?\}\}")

Kind = Literal["text", "unsubscribe_url", "name", "spaced_name"]

_PLACEHOLDER = re.compile(
    f"(?P<url>{UNSUBSCRIBE_URL})|(?P<spaced>{SPACED_NAME})|{NAME_BEGIN}(?P<fallback>.*?){NAME_END}",
    re.DOTALL,
)
_ANY_STEM = re.compile(STEM, re.IGNORECASE)


def split(text: str) -> Iterator[tuple[Kind, str]]:
    """Cut `text` at its placeholders, in order: (kind, text); for "name" the text is the fallback.

    Of the other kinds only "text" has one.
    """
    position = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > position:
            yield "text", text[position : match.start()]
        yield _kind(match), match["fallback"] or ""
        position = match.end()
    if position < len(text):
        yield "text", text[position:]


def without(text: str) -> str:
    """Take the placeholders' words out of `text`: what stays is as long as the reader sees it."""
    return _PLACEHOLDER.sub(lambda match: match["fallback"] or "", text)


def defuse(text: str) -> str:
    """Take out of text from elsewhere (an episode's title, say) what looks like a placeholder."""
    return _ANY_STEM.sub("", text)


def occurs_in(text: str) -> bool:
    """Whether `text` holds anything that could be taken for a placeholder."""
    return _ANY_STEM.search(text) is not None


def _kind(match: re.Match[str]) -> Kind:
    if match["url"]:
        return "unsubscribe_url"
    return "spaced_name" if match["spaced"] else "name"
