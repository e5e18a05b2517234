"""A document and its slots -> a mail, a blog post, a fragment of a page."""

from __future__ import annotations

import re
from typing import Any

import yaml
from markupsafe import Markup

from newsletter.phrases import Phrases, phrases
from newsletter.rendering import markdown, templates
from newsletter.rendering.code_colours import dark_rules
from newsletter.rendering.document import Document, PodcastSlot, Rendered, Slots
from newsletter.rendering.placeholders import AUTHORS_NAME, UNSUBSCRIBE_URL, defuse
from newsletter.rendering.plain import to_text

_RIGHT_TO_LEFT = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})
_CODE_OR_NAME = re.compile(
    r"(?<!`)(?P<ticks>`+)(?!`)[^\n]*?(?<!`)(?P=ticks)(?!`)"
    rf"|(?P<before> ?){AUTHORS_NAME.pattern}"
)
_MARKDOWN_SIGN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&%$])")


def render_email(document: Document, slots: Slots) -> Rendered:
    """Render an issue as a mail; what differs by recipient stays as words of `placeholders`.

    Raises RenderingError for a document that `problems` refuses for its nesting.
    """
    body = markdown.to_html(document.markdown, keep_names=True)
    values = _values(document, slots)
    html = templates.render(
        "issue.html.j2",
        body=Markup(body),  # noqa: S704  to_html sanitises
        dark_code=Markup(dark_rules(body)),  # noqa: S704  ours: Pygments' colours
        **values,
    )
    text = templates.render("issue.txt.j2", body=to_text(body), **values)
    subject = " ".join(document.title.split())
    return Rendered(subject=subject, html=templates.inline(html), text=text)


def render_fragment(document: Document, slots: Slots) -> str:
    """Render the podcast box and the body as sanitised HTML, without style attributes."""
    body = markdown.to_html(document.markdown, keep_names=False)
    box = templates.render_block("issue.html.j2", "podcast", **_values(document, slots))
    return f"{box}{body}"


def render_post(document: Document, slots: Slots) -> str:
    """Render a Hugo post: YAML front matter and the author's own Markdown, names taken out.

    The same document and slots give the same bytes: publishing compares them.
    """
    return templates.render(
        "post.md.j2",
        front_matter=_front_matter(document, slots.podcast),
        body=_without_names(document.markdown).strip("\n"),
        podcast_title=_escape_markdown(slots.podcast.title) if slots.podcast else "",
        **_values(document, slots),
    )


def _values(document: Document, slots: Slots) -> dict[str, Any]:
    say = phrases(document.language).about(document.newsletter_name)
    return {
        "document": document,
        "title": " ".join(document.title.split()),
        "summary": " ".join(document.summary.split()),
        "address_lines": [line.strip() for line in document.postal_address.splitlines()],
        "date": say.date(document.date),
        "dir": "rtl" if document.language.lower().split("-")[0] in _RIGHT_TO_LEFT else "ltr",
        "podcast": _podcast(slots.podcast, say),
        "say": say,
        "unsubscribe_url": UNSUBSCRIBE_URL,
        "web_url": slots.web_url,
    }


def _podcast(slot: PodcastSlot | None, say: Phrases) -> dict[str, str] | None:
    """Prepare the episode for the templates; its title comes from a feed: it is defused."""
    if slot is None:
        return None
    title = " ".join(defuse(slot.title).split())
    duration = "" if slot.duration_seconds is None else say.duration(slot.duration_seconds)
    return {"title": title, "url": _without_braces(slot.url), "duration": duration}


def _without_braces(url: str) -> str:
    """Percent-encoded: two of them open a shortcode of Hugo's, wherever they stand in a post."""
    return url.replace("{", "%7B").replace("}", "%7D")


class _Quoted(str):
    """A string that YAML must quote: Hugo's YAML reads 1e5, 0o17 or y otherwise than PyYAML."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def _front_matter(document: Document, podcast: PodcastSlot | None) -> str:
    fields: dict[str, Any] = {
        "title": _Quoted(document.title),
        "date": document.date,
        "slug": _Quoted(document.slug),
        "summary": _Quoted(document.summary),
        "author": _Quoted(document.author),
        "tags": [_Quoted(tag) for tag in document.tags],
    }
    if podcast is not None:
        fields["podcast"] = {
            "title": _Quoted(podcast.title),
            "url": _Quoted(_without_braces(podcast.url)),
        }
        if podcast.duration_seconds is not None:
            fields["podcast"]["duration"] = podcast.duration_seconds
    return yaml.dump(fields, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6)


def _escape_markdown(text: str) -> str:
    """Make a title plain text to Markdown, and no shortcode ({{<, {{%) to Hugo."""
    return _MARKDOWN_SIGN.sub(r"\\\1", " ".join(text.split()))


def _without_names(source: str) -> str:
    code = markdown.code_lines(source)
    lines = source.split("\n")
    return "\n".join(
        line if number in code else _without_names_in(line) for number, line in enumerate(lines)
    )


def _without_names_in(line: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match["ticks"]:
            return match[0]
        return f"{match['before']}{match['fallback']}" if match["fallback"] else ""

    return _CODE_OR_NAME.sub(replace, line)
