"""What machines ask: is it alive, does work get done, and the numbers."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import structlog
from django.conf import settings
from django.db import Error, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from delivery import health, metrics

log = structlog.get_logger(__name__)

PATIENCE = 3.0  # seconds that a probe waits for a database that does not answer
_asking = threading.Lock()  # one at a time: a database that hangs holds one thread, and no more


@never_cache
@require_safe
def alive(request: HttpRequest) -> HttpResponse:
    """This process answers. It asks nobody else."""
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """200 where work gets done, else 503; with a word for each check."""
    checks = _checks()
    is_ready = all(word == health.OK for word in checks.values())
    return JsonResponse({"ready": is_ready, "checks": checks}, status=200 if is_ready else 503)


@never_cache
@require_safe
def numbers(request: HttpRequest) -> HttpResponse:
    """Prometheus' text, for who knows METRICS_TOKEN; without that setting there is no such page."""
    if not settings.METRICS_TOKEN:
        raise Http404("METRICS_TOKEN is not set")
    if not _may_read(request):
        said = "Authorization: Bearer <METRICS_TOKEN> is needed here\n"
        headers = {"WWW-Authenticate": "Bearer"}
        return HttpResponse(said, content_type="text/plain", status=401, headers=headers)
    try:
        return HttpResponse(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
    except Error as error:
        log.warning("metrics.no_database", error=type(error).__name__)
        return HttpResponse("the database does not answer\n", "text/plain", status=503)


def _checks() -> dict[str, str]:
    """In a thread of its own: neither a connect nor a query that hangs can be ended from outside."""
    answer: Future[dict[str, str]] = Future()
    try:
        if not _asking.acquire(timeout=PATIENCE):
            raise TimeoutError
        threading.Thread(target=_ask, args=[answer], daemon=True, name="ready").start()
        return answer.result(PATIENCE)
    except (Error, TimeoutError) as error:
        log.warning("ready.no_database", error=type(error).__name__)
        return {"database": "unreachable"}


def _ask(answer: Future[dict[str, str]]) -> None:
    try:
        answer.set_result(health.readiness())
    except Exception as error:  # noqa: BLE001 - raised again where it is awaited
        answer.set_exception(error)
    finally:
        connection.close()
        _asking.release()


def _may_read(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and constant_time_compare(
        token.strip(), settings.METRICS_TOKEN
    )
