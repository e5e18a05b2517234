"""Issue -> subject, html, text, blog post, public page: pure, with no query, clock or setting."""

from newsletter.rendering.checks import problems, warnings
from newsletter.rendering.code_colours import code_css
from newsletter.rendering.document import Document, PodcastSlot, Rendered, RenderingError, Slots
from newsletter.rendering.emails import render_email, render_fragment, render_post
from newsletter.rendering.placeholders import NAME_BEGIN, NAME_END, SPACED_NAME, UNSUBSCRIBE_URL

__all__ = [
    "NAME_BEGIN",
    "NAME_END",
    "SPACED_NAME",
    "UNSUBSCRIBE_URL",
    "Document",
    "PodcastSlot",
    "Rendered",
    "RenderingError",
    "Slots",
    "code_css",
    "problems",
    "render_email",
    "render_fragment",
    "render_post",
    "warnings",
]
