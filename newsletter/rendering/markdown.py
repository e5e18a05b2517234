"""Markdown -> HTML that is safe to mail and to show."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from html import escape
from html.parser import HTMLParser
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from newsletter.rendering.document import RenderingError
from newsletter.rendering.placeholders import AUTHORS_NAME, NAME_BEGIN, NAME_END, SPACED_NAME

# css-inline 0.23 recurses: some 10,000 open elements kill the process with a stack overflow, and
# nh3 takes quadratic time. No newsletter needs a tenth of this.
MAX_DEPTH = 100
# Pygments takes seconds for what nobody reads in a mail.
_MAX_HIGHLIGHTED = 50_000

_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta",
                   "source", "track", "wbr"})  # fmt: skip
# HTML lets these end without a tag: an open one holds no more of its kind.
_SELF_CLOSING = frozenset({"p", "li", "dt", "dd", "td", "th", "tr", "thead", "tbody", "tfoot"})
_TAGS = {
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd",
    "li", "mark", "ol", "p", "pre", "q", "s", "samp", "section", "small", "span", "strong", "sub",
    "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
}  # fmt: skip
_ATTRIBUTES = {
    "*": {"dir", "lang"},
    "a": {"href", "id", "title"},
    "abbr": {"title"},
    "img": {"alt", "height", "src", "title", "width"},
    "li": {"id"},
    "ol": {"start"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan"},
}
_CLASSES = {
    "a": {"footnote-backref"},
    "ol": {"footnotes-list"},
    "pre": {"highlight"},
    "section": {"footnotes"},
    "span": {name for name in STANDARD_TYPES.values() if name},
    "sup": {"footnote-ref"},
}
# Only the plugin's own: an author's id could shadow one of the page around the issue.
_FOOTNOTE_ID = re.compile(r"fn(ref)?\d+(:\d+)?")


def to_html(markdown: str, *, keep_names: bool) -> str:
    """Render an author's Markdown as sanitised HTML; raw HTML in it is let in as far as harmless.

    `keep_names` says whether {{ name }} becomes a placeholder (a mail) or its fallback (a page).
    Raises RenderingError when elements are nested too deeply.
    """
    raw = _parser().render(markdown, {"keep_names": keep_names})
    _require_shallow(raw)
    clean = nh3.clean(
        raw,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        allowed_classes=_CLASSES,
        url_schemes={"http", "https", "mailto"},
        link_rel=None,
    )
    _require_shallow(clean)
    return clean


def prose(markdown: str) -> str:
    """Return the document's plain words, without its code: where a stray placeholder matters."""
    tokens = _parser().parse(markdown)
    return "\n".join(
        "".join(child.content if child.type == "text" else " " for child in token.children or ())
        for token in tokens
    )


def code_lines(markdown: str) -> set[int]:
    """Return the numbers, from 0, of the lines that are code blocks."""
    lines: set[int] = set()
    for token in _parser().parse(markdown):
        if token.type in ("fence", "code_block") and token.map:
            lines.update(range(*token.map))
    return lines


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True, "linkify": False, "highlight": _highlight})
    parser.enable(["table", "strikethrough"]).use(footnote_plugin)
    parser.inline.ruler.before("escape", "recipient_name", _parse_name)
    parser.core.ruler.push("cell_alignment", _align_cells)
    parser.add_render_rule("recipient_name", _render_name)
    return parser


def _highlight(code: str, language: str, _attributes: str) -> str:
    """Colour a code block with classes: style attributes would be refused by a page's CSP."""
    try:
        # "rust,ignore" and "python{1-3}" are what other tools understand too.
        lexer = get_lexer_by_name(re.split(r"\W", language)[0] if language else "text",
                                  stripnl=False, ensurenl=False)  # fmt: skip
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False, ensurenl=False)
    plain = len(code) > _MAX_HIGHLIGHTED
    inner = escape(code) if plain else highlight(code, lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="highlight"><code>{inner}</code></pre>'


def _parse_name(state: StateInline, silent: bool) -> bool:
    match = AUTHORS_NAME.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        _push_name(state, match["fallback"] or "")
    state.pos = match.end()
    return True


def _push_name(state: StateInline, fallback: str) -> None:
    """Without a fallback the space before belongs to the name: "Hello {{ name }}," -> "Hello,"."""
    spaced = not fallback and state.pending.endswith(" ")
    if spaced:
        state.pending = state.pending[:-1]
    token = state.push("recipient_name", "", 0)
    token.content = fallback
    token.meta = {"spaced": spaced}


def _render_name(
    _renderer: RendererProtocol,
    tokens: Sequence[Token],
    index: int,
    _options: Any,
    env: MutableMapping[str, Any],
) -> str:
    token = tokens[index]
    if not env.get("keep_names"):
        return escape(token.content)
    if token.meta["spaced"]:
        return SPACED_NAME
    return f"{NAME_BEGIN}{escape(token.content)}{NAME_END}"


def _align_cells(state: Any) -> None:
    """Say a column's alignment with an attribute: the sanitiser lets no style through."""
    for token in state.tokens:
        if token.type in ("td_open", "th_open") and "style" in token.attrs:
            token.attrs["align"] = str(token.attrs.pop("style")).removeprefix("text-align:")


def _attribute(_tag: str, name: str, value: str) -> str | None:
    if name == "id" and not _FOOTNOTE_ID.fullmatch(value):
        return None
    return value


def _require_shallow(html: str) -> None:
    counter = _DepthCounter(convert_charrefs=False)
    counter.feed(html)
    counter.close()


class _DepthCounter(HTMLParser):
    def __init__(self, *, convert_charrefs: bool) -> None:
        super().__init__(convert_charrefs=convert_charrefs)
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID or tag in _SELF_CLOSING:
            return
        self.open.append(tag)
        if len(self.open) > MAX_DEPTH:
            raise RenderingError(
                f"More than {MAX_DEPTH} elements are open inside one another, "
                f"the last is <{tag}>; close them where they end."
            )

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass
