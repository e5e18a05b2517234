"""The sandbox's pages: what would have been mailed, for development and the demo."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_safe

from delivery.sandbox.mailbox import Mailbox, Message, NoSuchMessage

SHOWS = {"html": "HTML", "text": "Text", "headers": "Headers", "source": "Source"}
WIDTHS = {"desktop": "Desktop", "phone": "Phone"}
# The mail is a stranger here: no script, no form, no frame, nothing of this site.
BODY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: https: http:; "
BODY_POLICY += "sandbox allow-popups allow-popups-to-escape-sandbox"
BASE = '<base target="_blank">'


@require_safe
@never_cache
def mailbox(request: HttpRequest) -> HttpResponse:
    """List what was accepted, newest first; ``?q=`` searches, ``?page=`` turns the page."""
    box = _mailbox()
    query = request.GET.get("q", "")[:200]
    context = {
        "page": box.summaries(_number(request.GET.get("page", "1")), query=query),
        "query": query,
        "count": box.count(),
        "recipients": len(box.recipients()),
    }
    return render(request, "public/sandbox_list.html", context)


@require_safe
def message(request: HttpRequest, key: str) -> HttpResponse:
    """Show one message; ``?show=`` html, text, headers or source, ``?width=`` phone or desktop."""
    found = _message(key)
    show = request.GET.get("show", "")
    width = request.GET.get("width", "")
    context = {
        "message": found,
        "show": show if show in SHOWS else "html" if found.html else "text",
        "shows": SHOWS,
        "width": width if width in WIDTHS else "desktop",
        "widths": WIDTHS,
    }
    return render(request, "public/sandbox_message.html", context)


@require_safe
@xframe_options_sameorigin
def body(request: HttpRequest, key: str) -> HttpResponse:
    """Give the HTML part as it was sent, for the frame in ``message``."""
    html = _message(key).html
    if not html:
        raise Http404("This message has no HTML part")
    headers = {"Content-Security-Policy": BODY_POLICY, "Referrer-Policy": "no-referrer"}
    # A link opens a page of its own: in the frame its buttons would be dead.
    return HttpResponse(BASE + html, headers=headers)


def _mailbox() -> Mailbox:
    directory = getattr(settings, "SANDBOX_DIR", "")
    if not directory:
        raise Http404("There is no sandbox here: SANDBOX_DIR is not set")
    return Mailbox(directory)


def _message(key: str) -> Message:
    try:
        return _mailbox().get(key)
    except NoSuchMessage as error:
        raise Http404(str(error)) from None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1
