"""An issue as it will look: the mail's HTML and text, and the blog's post."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpResponse

from delivery import publishing
from newsletter.models import Issue
from newsletter.rendering import RenderingError, Slots, placeholders, render_email, render_post
from newsletter.tokens import TEST_TOKEN

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: https: http:; sandbox"


def show(issue: Issue, what: str) -> HttpResponse:
    """`html`, `text` or `post`: of what was approved, or of the draft. Never a script of the author's."""
    document = issue.approved_document() if issue.snapshot else issue.document()
    podcast = getattr(issue, "podcast", None)
    slots = Slots(podcast.slot if podcast else None, issue.web_url or publishing.page_url(issue))
    try:
        if what == "post":
            return _answer(render_post(document, slots), "text/plain")
        rendered = render_email(document, slots)
    except RenderingError as error:
        return _answer(f"This cannot be shown yet: {error}", "text/plain")
    if what == "text":
        return _answer(_sample(rendered.text), "text/plain")
    if what == "html":
        return _answer(_sample(rendered.html), "text/html")
    raise Http404


def _sample(rendered: str) -> str:
    """As a reader without a name gets it; its link unsubscribes nobody."""
    url = f"{settings.PUBLIC_URL}/u/{TEST_TOKEN}/"
    return placeholders.without(rendered.replace(placeholders.UNSUBSCRIBE_URL, url))


def _answer(body: str, content_type: str) -> HttpResponse:
    return HttpResponse(
        body,
        content_type=f"{content_type}; charset=utf-8",
        headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"},
    )
