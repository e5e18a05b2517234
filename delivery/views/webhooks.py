"""Where the providers tell what became of a mail: verified, stored, answered at once."""

from __future__ import annotations

import structlog
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from delivery import webhooks

log = structlog.get_logger(__name__)

RETRY_SECONDS = "20"


@csrf_exempt
@never_cache
@require_POST
def receive(request: HttpRequest, provider: str) -> HttpResponse:
    """200 where it is stored, or was; 403 forged; 400 no event; 413 too long; 503 ask again; 404 not configured."""
    if not webhooks.is_configured(provider):
        raise Http404("this provider's webhook is not configured")
    body = request.read(webhooks.LONGEST_BODY + 1)
    if len(body) > webhooks.LONGEST_BODY:
        return _said("too long", 413)
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        webhooks.receive(provider, headers, body)
    except webhooks.Forged:
        log.warning("webhook.forged", provider=provider)
        return _said("not verified", 403)
    except webhooks.Malformed:
        log.warning("webhook.malformed", provider=provider)
        return _said("no event", 400)
    except webhooks.NotYet:
        answer = _said("not yet: send it again", 503)
        answer["Retry-After"] = RETRY_SECONDS
        return answer
    return _said("ok", 200)


def _said(words: str, status: int) -> HttpResponse:
    return HttpResponse(f"{words}\n", content_type="text/plain; charset=utf-8", status=status)
