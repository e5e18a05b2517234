"""The operations page: what the house does just now, and the buttons of those who keep it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_POST, require_safe

from delivery import health, holding, queue, schedules
from delivery.models import Alert, CircuitBreaker, Heartbeat, House, Job, Lease
from delivery.models.circuit_breaker import BreakerState
from delivery.models.heartbeat import TICK
from delivery.models.job import JobState, Lane
from delivery.redaction import redact_text
from newsletter.models import database_now

from . import dead_letters
from .charts import chart

FIRST = 50
COUNTED = 1000  # no further: beyond it the number is of no use, and its price grows
HOURS = 24

DIGITS = re.compile("[0-9]{1,18}")

View = Callable[..., HttpResponse]


@dataclass(frozen=True)
class Some:
    """The first rows of many, and how many there are in words."""

    rows: list[Job]
    number: str

    @property
    def is_cut(self) -> bool:
        return self.number != str(len(self.rows))


class Mark(NamedTuple):
    """What an operator should know first. `level` is warn or bad; `place` the section that tells more."""

    level: str
    place: str
    text: str


def for_staff(permission: str) -> Callable[[View], View]:
    """Signed in to the admin, and with this permission on jobs."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.has_perm(f"delivery.{permission}"):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        guarded: View = admin.site.admin_view(checked)
        return guarded

    return decorate


@require_safe
@for_staff("view_job")
def page(request: HttpRequest) -> HttpResponse:
    """All of it; with `?fragment`, the sections alone, for the page's own script."""
    template = "operations_sections" if "fragment" in request.GET else "operations"
    context = {
        **admin.site.each_context(request),
        **_context(database_now()),
        "title": "Operations",
        "may_change": request.user.has_perm("delivery.change_job"),
        "may_hold": request.user.has_perm("delivery.hold_house"),
    }
    return render(request, f"admin/delivery/{template}.html", context)


@require_POST
@for_staff("change_job")
def act_on_lane(request: HttpRequest, lane: str, action: str) -> HttpResponse:
    """Pause a lane, with a reason, or resume it."""
    if lane not in Lane.values or action not in ("pause", "resume"):
        raise Http404
    actor, reason = str(request.user), request.POST.get("reason", "").replace("\0", "").strip()
    if action == "pause" and not reason:
        messages.error(request, f"Say why {lane} is paused: others will ask.")
    elif action == "pause" and queue.pause_lane(lane, actor=actor, reason=reason):
        messages.success(request, f"{lane} is paused. What runs comes to its end.")
    elif action == "resume" and queue.resume_lane(lane, actor=actor):
        messages.success(request, f"{lane} goes on.")
    else:
        messages.error(
            request, f"{lane} {'is paused already' if action == 'pause' else 'is not paused'}."
        )
    return redirect("operations")


@require_POST
@for_staff("hold_house")
def act_on_house(request: HttpRequest, action: str) -> HttpResponse:
    """Pause everything, with a reason, or resume it."""
    if action not in ("pause", "resume"):
        raise Http404
    actor, reason = str(request.user), request.POST.get("reason", "").replace("\0", "").strip()
    if action == "pause" and not reason:
        messages.error(request, "Say why everything is paused: others will ask.")
    elif action == "pause" and holding.pause(actor=actor, reason=reason):
        messages.success(request, "Everything is paused. What is on the wire finishes.")
    elif action == "resume" and holding.resume(actor=actor, reason=reason):
        messages.success(request, "The pause of everything is lifted.")
    else:
        is_paused = "is paused already" if action == "pause" else "is not paused"
        messages.error(request, f"Everything {is_paused}.")
    return redirect("operations" if request.user.has_perm("delivery.view_job") else "admin:index")


@require_POST
@for_staff("change_job")
def act_on_dead(request: HttpRequest) -> HttpResponse:
    """Retry or discard one dead letter (`retry=ID`) or those that are ticked (`retry=ticked`, `job=ID` for each)."""
    action = next((name for name in dead_letters.ACTS if name in request.POST), "")
    if not action:
        raise Http404
    which = request.POST[action]
    ids = request.POST.getlist("job") if which == "ticked" else [which]
    rows = Job.objects.filter(pk__in=[int(id) for id in ids if DIGITS.fullmatch(id)][:FIRST])
    handled = dead_letters.ACTS[action](rows, actor=str(request.user))
    if not handled.done and not handled.refused:
        messages.warning(request, f"There was nothing to {action}: tick the jobs first.")
    dead_letters.tell(request, handled)
    if "from_job" in request.POST and DIGITS.fullmatch(which):
        return redirect(reverse("admin:delivery_job_change", args=[which]))
    return redirect("operations")


urlpatterns = [
    path("", page, name="operations"),
    path("lanes/<str:lane>/<str:action>/", act_on_lane, name="operations_lane"),
    path("house/<str:action>/", act_on_house, name="operations_house"),
    path("dead/", act_on_dead, name="operations_dead"),
]


def _context(now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {
        "house": House.read(),
        "lanes": health.lanes(now),
        "dead": _some(Job.objects.filter(state=JobState.DEAD).order_by("-id")),
        "running": Job.objects.filter(state=JobState.RUNNING).order_by("lease_until")[:FIRST],
        "retries": _retries(now),
        "breakers": CircuitBreaker.objects.order_by("name"),
        "leases": Lease.objects.held().order_by("name")[:FIRST],
        "upcoming": schedules.upcoming(now),
        "ticks": Heartbeat.objects.filter(lane=TICK).order_by("work"),
        "throughput": (hours := health.throughput(now, HOURS)),
        "charts": [
            chart("Jobs", [(hour.at, hour.jobs) for hour in hours]),
            chart("Failures", [(hour.at, hour.failures) for hour in hours]),
            chart("Mails", [(hour.at, hour.mails) for hour in hours]),
        ],
        "jobs": _by_name(now - timedelta(hours=1)),
    }
    return {"now": now, "marks": list(_marks(**found)), **found}


def _marks(
    house: House,
    lanes: list[health.LaneHealth],
    dead: Some,
    breakers: Iterable[CircuitBreaker],
    **_: Any,
) -> Iterator[Mark]:
    if house.doubt:
        yield Mark("bad", "everything", "the database is not believed: nothing leaves")
    if house.paused_at:
        yield Mark("warn", "everything", "everything is paused")
    for alert in Alert.objects.exclude(raised_at=None).order_by("raised_at"):
        since = f"since {alert.raised_at:%Y-%m-%d %H:%M} UTC"
        yield Mark("bad", "throughput", f"{alert.name}: {redact_text(alert.detail)} ({since})")
    for lane in lanes:
        if not lane.works:
            yield Mark("bad", "lanes", f"{lane.lane} has no worker")
        if lane.pause:
            yield Mark("warn", "lanes", f"{lane.lane} is paused")
    if dead.rows:
        letters = "letter" if dead.number == "1" else "letters"
        yield Mark("bad", "dead", f"{dead.number} dead {letters}")
    for breaker in breakers:
        if breaker.state != BreakerState.CLOSED:
            yield Mark("warn", "breakers", f"{breaker.name}: its breaker is {breaker.state}")


def _retries(now: datetime) -> Some:
    """What is due later, the next first; before it, what failed and is due, among the oldest of the due."""
    due = Job.objects.due(now).order_by("due_at")[: 2 * FIRST]
    late = [row for row in due if row.troubles]
    later = _some(
        Job.objects.filter(state=JobState.QUEUED, due_at__gt=now).order_by("due_at"), len(late)
    )
    return Some([*late, *later.rows][:FIRST], later.number)


def _some(rows: QuerySet[Job], more: int = 0) -> Some:
    number = rows[: COUNTED + 1].count()
    words = f"more than {COUNTED}" if number > COUNTED else str(number + more)
    return Some(list(rows[:FIRST]), words)


def _by_name(since: datetime) -> list[tuple[str, health.Share, float | None, float | None]]:
    """(name, runs and failures, p50, p95 in seconds) of each job that came to an end since then."""
    shares = sorted(health.failures(since).items())
    return [(name, share, *health.percentiles(name, since)) for name, share in shares if share.runs]
