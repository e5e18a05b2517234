"""Why did this reader not get it? A search by address, and one recipient's timeline across all issues."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path
from django.views.decorators.http import require_safe

from delivery import timeline
from newsletter.models import Subscriber

from .operations import for_staff

MATCHES = 20
LAST_PAGE = 10_000


@require_safe
@for_staff("view_emaildelivery")
def search(request: HttpRequest) -> HttpResponse:
    """Who has this address goes to their timeline; else those whose address begins so."""
    typed = request.GET.get("q", "").replace("\0", "").strip()
    found: dict[str, Any] = {"typed": typed, "trouble": ""}
    if typed:
        try:
            key = timeline.key_of(typed)
        except ValueError as error:
            found["trouble"] = str(error)
        else:
            if (reader := timeline.read(key)).subscriber:
                return redirect("reader", reader.subscriber.pk)
            found |= _timeline(request, reader)
        matches = list(Subscriber.objects.beginning_with(typed)[: MATCHES + 1])
        found |= {"matches": matches[:MATCHES], "is_cut": len(matches) > MATCHES}
    return _show(request, "readers", "Why did this reader not get it?", found)


@require_safe
@for_staff("view_emaildelivery")
def story(request: HttpRequest, subscriber_id: int) -> HttpResponse:
    """One reader across issues, newest first; `?page=2` is older."""
    subscriber = get_object_or_404(Subscriber, pk=subscriber_id)
    found = _timeline(request, timeline.read(subscriber.address_key))
    return _show(request, "reader", str(subscriber), found)


urlpatterns = [
    path("", search, name="readers"),
    path("<int:subscriber_id>/", story, name="reader"),
]


def _timeline(request: HttpRequest, reader: timeline.Reader) -> dict[str, Any]:
    number = _page_number(request)
    return {
        "reader": reader,
        "standing": list(timeline.standing(reader)),
        "page": timeline.page(reader, number),
        "newer": number - 1,
        "older": number + 1,
    }


def _page_number(request: HttpRequest) -> int:
    number = request.GET.get("page", "1")
    if not number.isdecimal() or not 1 <= len(number) <= 5 or not 1 <= int(number) <= LAST_PAGE:
        raise Http404
    return int(number)


def _show(request: HttpRequest, name: str, title: str, found: dict[str, Any]) -> HttpResponse:
    context = {**admin.site.each_context(request), **found, "title": title}
    return render(request, f"admin/delivery/{name}.html", context)
