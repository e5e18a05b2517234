"""The one-click endpoint of RFC 8058: the POST of a mail client has no cookie, gets no redirect, and may come twice."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from newsletter.models import Subscription
from newsletter.phrases import phrases
from newsletter.tokens import TEST_TOKEN


@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows a button and changes nothing: link scanners open every link. POST unsubscribes, and answers 200."""
    subscription = (
        Subscription.objects.select_related("newsletter").filter(token=token).first()
        if token != TEST_TOKEN
        else None
    )
    if subscription is None:
        status = 200 if token == TEST_TOKEN else 404
        context = {"say": phrases("en"), "is_test": token == TEST_TOKEN}
        return render(request, "public/unknown_link.html", context, status=status)
    if request.method == "POST":
        subscription.unsubscribe(actor="reader", reason="the reader's own wish")
    newsletter = subscription.newsletter
    context = {
        "newsletter": newsletter,
        "say": phrases(newsletter.language).about(newsletter.name),
        "done": subscription.state == "unsubscribed",
    }
    return render(request, "public/unsubscribe.html", context)
