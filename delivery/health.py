"""How the house is doing: each number once, for /ready, the metrics, the alerts and the operations page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import Count, Min, Q, Sum

from newsletter.models import Issue, database_now
from newsletter.models.issue import IssueState

from .models import EmailDelivery, Heartbeat, House, Job, JobTally, LanePause, LedgerTally
from .models.heartbeat import TICK
from .models.job import Lane
from .models.job_tally import BOUNDS, BUCKETS, Ending

TICK_SECONDS = 150.0  # the tick comes each minute: two were missed
DUE_SECONDS = 120.0  # nothing that is due lies untouched for longer (P10)
RATE_SECONDS = 300.0
LEDGER_DAYS = 7
OK = "ok"

EXPECTED = (Ending.WAITING, Ending.DELAYED)  # the job is not over: neither a success nor a failure
FAILED = (Ending.RETRIED, Ending.DEGRADED, Ending.CRASHED, Ending.DEAD)
_RUNS = Sum("runs", filter=~Q(ending__in=EXPECTED), default=0)
_FAILURES = Sum("runs", filter=Q(ending__in=FAILED), default=0)
_MAILS = Sum("items", filter=Q(name="deliver"), default=0)


@dataclass(frozen=True)
class LaneHealth:
    """`depth` is what is due now, `oldest_seconds` for how long (0: nothing is); `works`: who beats, and when last."""

    lane: str
    depth: int
    oldest_seconds: float
    pause: LanePause | None
    works: list[tuple[str, datetime]]


class Hour(NamedTuple):
    """`at` is its beginning in UTC. Jobs that waited, or were delayed by a breaker, count when they are over."""

    at: datetime
    jobs: int
    failures: int
    mails: int


class Share(NamedTuple):
    """Of so many runs so many failed; runs that waited or were delayed are left out."""

    runs: int
    failures: int


def readiness() -> dict[str, str]:
    """A word for each check; all are `ok` where work gets done. Raises django.db.Error without a database."""
    now = database_now()
    found = lanes(now)
    silent = [lane.lane for lane in found if not lane.works]
    late = [lane.lane for lane in found if not lane.pause and lane.oldest_seconds > DUE_SECONDS]
    ticked = Heartbeat.objects.filter(lane=TICK, at__gt=now - timedelta(seconds=TICK_SECONDS))
    return {
        "database": OK,
        "workers": f"silent: {', '.join(silent)}" if silent else OK,
        "tick": OK if ticked.exists() else "late",
        "due": f"late: {', '.join(late)}" if late else OK,
        "held": OK if (standing := House.read().standing) == "open" else standing,
    }


def lanes(now: datetime) -> list[LaneHealth]:
    """Every lane, in the order of their urgency; `now` is database_now()."""
    due = _due(now)
    pauses = {pause.lane: pause for pause in LanePause.objects.all()}
    works: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
    for beat in Heartbeat.objects.fresh(now).order_by("work"):
        works[beat.lane].append((beat.work, beat.at))
    found = []
    for lane in Lane.values:
        depth, oldest = due.get(lane, (0, now))
        seconds = (now - oldest).total_seconds()
        found.append(LaneHealth(lane, depth, seconds, pauses.get(lane), works[lane]))
    return found


def percentiles(name: str, since: datetime) -> tuple[float | None, float | None]:
    """p50 and p95 of a job's runs in seconds, as exact as the tally's buckets; None where it did not run."""
    sums = {bucket: Sum(bucket, default=0) for bucket in BUCKETS}
    counts = JobTally.objects.filter(name=name, at__gte=since).aggregate(**sums)
    in_order = [counts[bucket] for bucket in BUCKETS]
    return _quantile(in_order, 0.5), _quantile(in_order, 0.95)


def throughput(now: datetime, hours: int) -> list[Hour]:
    """The last so many hours, oldest first; the last of them is the present one, not over yet."""
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    counted = {first + timedelta(hours=n): [0, 0, 0] for n in range(hours)}
    minutes = JobTally.objects.filter(at__gte=first, at__lte=now).values_list("at")
    for at, *numbers in minutes.annotate(a=_RUNS, b=_FAILURES, c=_MAILS).order_by():
        sums = counted[at.replace(minute=0)]
        sums[:] = [a + b for a, b in zip(sums, numbers, strict=True)]
    return [Hour(at, *sums) for at, sums in counted.items()]


def failures(since: datetime) -> dict[str, Share]:
    """By job name: how many of its runs since then failed."""
    rows = JobTally.objects.filter(at__gte=since).values_list("name")
    shares = rows.annotate(a=_RUNS, b=_FAILURES).order_by()
    return {name: Share(runs, failed) for name, runs, failed in shares}


def send_rate(now: datetime) -> float:
    """Mails a second over the last five minutes; a sender counts its mails at the end of its turn."""
    since = now.replace(second=0, microsecond=0) - timedelta(seconds=RATE_SECONDS)
    mails: int = JobTally.objects.filter(at__gte=since).aggregate(a=_MAILS)["a"]
    return mails / (now - since).total_seconds()


def deliveries(now: datetime) -> dict[str, int]:
    """By status, of the issues that are sending or were closed within a week: the whole ledger has no end."""
    closed = Q(closed_at__gt=now - timedelta(days=LEDGER_DAYS))
    open_or_closed = Issue.objects.filter(Q(state=IssueState.SENDING) | closed)
    issues = list(open_or_closed.values_list("pk", flat=True))
    told = LedgerTally.objects.figures_of(issues)
    untold = set(issues) - set(told)
    counted = EmailDelivery.objects.filter(issue_id__in=untold).count_by_status()
    return {
        status: n + sum(each[status] for each in told.values()) for status, n in counted.items()
    }


def _due(now: datetime) -> dict[str, tuple[int, datetime]]:
    """By lane: how many jobs are due, and since when the oldest is."""
    rows = Job.objects.due(now).values_list("lane").annotate(n=Count("*"), oldest=Min("due_at"))
    return {lane: (n, oldest) for lane, n, oldest in rows.order_by()}


def _quantile(counts: Sequence[int], share: float) -> float | None:
    """Along a straight line inside its bucket, as Prometheus does; beyond the last bound, that bound."""
    rank, seen, lower = share * sum(counts), 0, 0.0
    for count, upper in zip(counts, BOUNDS, strict=False):
        if count and seen + count >= rank:
            return lower + (upper - lower) * (rank - seen) / count
        seen, lower = seen + count, upper
    return BOUNDS[-1] if rank else None
