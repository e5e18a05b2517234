"""The public pages of issues: quick, plain, in the newsletter's language."""

from __future__ import annotations

from django.core.cache import cache
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from newsletter.models import Issue, Newsletter
from newsletter.phrases import phrases
from newsletter.rendering import Document, Slots, render_fragment

SHOWN = 200


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The newsletters that are kept here."""
    return render(request, "public/home.html", {"newsletters": Newsletter.objects.all()[:SHOWN]})


@require_safe
def archive(request: HttpRequest, newsletter: str) -> HttpResponse:
    """A newsletter's published issues, newest first."""
    found = get_object_or_404(Newsletter, slug=newsletter)
    say = phrases(found.language).about(found.name)
    # Their own columns: nothing can be edited in these states without leaving them, so the snapshot says the same.
    rows = _public().filter(newsletter=found).order_by("-release_date", "-id")
    shown = rows.only("slug", "title", "release_date")[:SHOWN]
    issues = [(row, say.date(row.release_date)) for row in shown]
    context = {"newsletter": found, "say": say, "issues": issues}
    return render(request, "public/archive.html", context)


@require_safe
def issue(request: HttpRequest, newsletter: str, slug: str) -> HttpResponse:
    """One issue, as it was approved."""
    found = get_object_or_404(
        _public().select_related("newsletter", "podcast"), newsletter__slug=newsletter, slug=slug
    )
    document = found.approved_document()
    say = phrases(document.language).about(document.newsletter_name)
    context = {
        "newsletter": found.newsletter,
        "document": document,
        "say": say,
        "date": say.date(document.date),
        "body": _body(found, document),
    }
    return render(request, "public/issue.html", context)


def _public() -> QuerySet[Issue]:
    """What was published stands, also while it is corrected on the blog; a draft is nobody's business."""
    return Issue.objects.filter(
        Q(state__in=("published", "sending", "sent"))
        | Q(state="cancelled", audience_frozen_at__isnull=False)
    )


def _body(found: Issue, document: Document) -> str:
    podcast = getattr(found, "podcast", None)
    key = f"issue:{found.pk}:{found.approved_at}:{podcast.state if podcast else ''}".replace(
        " ", "_"
    )
    slots = Slots(podcast.slot if podcast else None, "")
    return cache.get_or_set(key, lambda: render_fragment(document, slots), 3600) or ""
