"""The page behind the link of a confirmation mail: whoever holds the token has read the mail."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from newsletter.models import Subscription
from newsletter.phrases import phrases


@csrf_exempt  # the token is the proof; a reader without cookies can confirm too
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows a button and changes nothing: link scanners open every link. POST confirms, as often as it comes."""
    subscription = Subscription.objects.select_related("newsletter").filter(token=token).first()
    if subscription is None:
        return render(request, "public/unknown_link.html", {"say": phrases("en")}, status=404)
    newsletter = subscription.newsletter
    say = phrases(newsletter.language).about(newsletter.name)
    if request.method == "POST":
        subscription.confirm(actor="reader")
    if subscription.state == "unsubscribed":  # a no outlives an earlier question
        return render(request, "public/unknown_link.html", {"say": say}, status=404)
    context = {"newsletter": newsletter, "say": say, "done": subscription.state == "confirmed"}
    return render(request, "public/confirm.html", context)
