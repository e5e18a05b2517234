"""What every answer of ours carries, and what is no fault of ours."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.views.defaults import bad_request

log = structlog.get_logger(__name__)

# Pictures of an issue live where its author put them; everything else is ours.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' https: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Set the Content-Security-Policy where a view did not set its own."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware


class ValuesNoDatabaseHolds:
    """400 where one of Django's lists is asked for a NUL, or for a number of 40 digits.

    They hand what stands in their address to the database. Elsewhere such an error is a fault of ours.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        match = request.resolver_match
        if not (match and match.app_name == "admin" and request.GET):
            return None
        # SQLite's driver says OverflowError.
        is_value = isinstance(exception, (DataError, OverflowError))
        if not (is_value and str(match.url_name).endswith("_changelist")):
            return None
        log.warning("list.value_refused", path=request.path, error=type(exception).__name__)
        return bad_request(request, exception)
