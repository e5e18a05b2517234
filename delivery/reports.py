"""The report of an issue: every number that its ledger, its history and the providers' events hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, Sum

from newsletter.models import Issue, Transition, database_now
from newsletter.models.issue import IssueState
from newsletter.models.transition import Subject

from .models import EmailDelivery, IssueReport, LedgerTally, ProviderEvent
from .models.email_delivery import DeliveryStatus as D
from .words import reason_in_words, when

ORDER = (D.SENT, D.FAILED, D.UNKNOWN, D.SKIPPED, D.SENDING, D.PENDING)
RECOUNT = timedelta(hours=1)
EVENT_DAYS = 7  # after the close; later events change no report
EXPLAINED = (D.FAILED, D.UNKNOWN, D.SKIPPED)


class Share(NamedTuple):
    """So many of the audience, and their percentage."""

    status: str
    number: int
    percent: float


class Why(NamedTuple):
    status: str
    reason: str
    number: int

    @property
    def words(self) -> str:
        return reason_in_words(self.reason) if self.reason else "no reason was noted"


class Settled(NamedTuple):
    """So many unknown rows became `new`, by evidence or by somebody's word."""

    new: str
    by: str
    number: int

    @property
    def words(self) -> str:
        return "sent again" if self.new == D.PENDING else f"settled as {self.new}"


@dataclass(frozen=True)
class Books:
    """By status: what is cheap at any time. `counted`: by a fresh count, which alone can say that they balance."""

    audience: int
    shares: tuple[Share, ...]
    counted: bool = True

    @property
    def balanced(self) -> bool:
        return sum(share.number for share in self.shares) == self.audience

    def number(self, status: str) -> int:
        return next(share.number for share in self.shares if share.status == status)


@dataclass(frozen=True)
class Report:
    """Every row of the issue was looked at.

    `in_time` rows were accepted before the close: the `first` and the `last` of them are aware times, `seconds` from
    the freeze to the last. What was settled or sent again after the close is in no pace.
    """

    books: Books
    reasons: tuple[Why, ...]
    attempts: int
    retried: int  # rows that took more than one attempt
    resends: int
    became_unknown: int
    settled: tuple[Settled, ...]
    events: dict[str, int]  # kind -> deliveries that a provider told it of
    in_time: int
    first: datetime | None
    last: datetime | None
    seconds: float
    closed_after: float | None  # seconds from the freeze to the close

    @property
    def per_minute(self) -> float:
        """Mails accepted a minute, from the freeze to the last of them."""
        return 60 * self.in_time / self.seconds if self.seconds > 0 else 0.0

    @property
    def pace(self) -> str:
        """The same in words: `1,204 a minute`, `2.5 a minute`."""
        number = self.per_minute
        return f"{number:,.0f} a minute" if number >= 10 else f"{number:.1f} a minute"


def books(issue: Issue) -> Books:
    """As each move has kept them: a page that refreshes counts nothing. A fresh count where there is no tally."""
    figures = LedgerTally.objects.figures(issue.pk)
    return counted(issue) if figures is None else _books(issue, figures, is_counted=False)


def counted(issue: Issue) -> Books:
    """A fresh count, by an index; of 1,000,000 rows a tenth of a second."""
    return _books(issue, EmailDelivery.objects.of(issue.pk).count_by_status(), is_counted=True)


def _books(issue: Issue, figures: dict[str, int], *, is_counted: bool) -> Books:
    audience = issue.audience or 0
    whole = audience or 1
    shares = (Share(status, figures[status], 100 * figures[status] / whole) for status in ORDER)
    return Books(audience, tuple(shares), is_counted)


def report(issue: Issue) -> Report:
    """Of an issue whose audience is frozen. It reads each of its rows: not while it is sending."""
    rows = EmailDelivery.objects.of(issue.pk)
    until = Q(settled_at__lte=issue.closed_at) if issue.closed_at else Q()
    in_time = Q(until, status=D.SENT)
    sums = rows.aggregate(
        attempts=Sum("attempt", default=0),
        retried=Count("id", filter=Q(attempt__gt=1)),
        resends=Sum("resend_no", default=0),
        in_time=Count("id", filter=in_time),
        first=Min("settled_at", filter=in_time),
        last=Max("settled_at", filter=in_time),
        ids_from=Min("id"),
        ids_to=Max("id"),
    )
    ids = (sums.pop("ids_from") or 0, sums.pop("ids_to") or 0)
    became, settled = _unknowns(issue, ids)
    return Report(
        books=counted(issue),
        reasons=_reasons(issue),
        became_unknown=became,
        settled=settled,
        events=_events(issue, ids),
        seconds=_seconds(issue.audience_frozen_at, sums["last"]) or 0.0,
        closed_after=_seconds(issue.audience_frozen_at, issue.closed_at),
        **sums,
    )


def latest(issue: Issue) -> tuple[Report, datetime]:
    """The report that was counted last, and when; counted anew where it may have changed.

    A closed issue changes only by what its tally shows, or a provider tells within days. So a count stands while the
    tally is what it was, for `RECOUNT`, and for good where it was made `EVENT_DAYS` after the close. The close
    itself stores the first.
    """
    row = IssueReport.objects.filter(pk=issue.pk).first()
    stored = _from_json(row.figures) if row else None
    if row and stored and _stands(issue, stored, row.counted_at):
        return stored, row.counted_at
    return (found := report(issue)), store(issue, found)


def store(issue: Issue, found: Report) -> datetime:
    """Keep it for the pages; when it was counted."""
    now = database_now()
    values = {"figures": _to_json(found), "counted_at": now}
    IssueReport.objects.update_or_create(issue=issue, defaults=values)
    return now


def _stands(issue: Issue, stored: Report, counted_at: datetime) -> bool:
    told = LedgerTally.objects.figures(issue.pk)
    if told != {share.status: share.number for share in stored.books.shares}:
        return False
    is_final = issue.closed_at and counted_at > issue.closed_at + timedelta(days=EVENT_DAYS)
    return bool(is_final) or counted_at > database_now() - RECOUNT


def _to_json(found: Report) -> dict[str, Any]:
    times = {
        name: at and at.isoformat() for name, at in (("first", found.first), ("last", found.last))
    }
    return asdict(found) | times


def _from_json(figures: dict[str, Any]) -> Report | None:
    """As it was; None where another version stored it."""
    try:
        books = Books(
            figures["books"]["audience"], tuple(Share(*s) for s in figures["books"]["shares"])
        )
        times = {
            name: figures[name] and datetime.fromisoformat(figures[name])
            for name in ("first", "last")
        }
        whys = tuple(Why(*each) for each in figures["reasons"])
        settled = tuple(Settled(*each) for each in figures["settled"])
        return Report(**{**figures, **times, "books": books, "reasons": whys, "settled": settled})
    except (KeyError, TypeError, ValueError):
        return None


def sentences(issue: Issue, found: Report) -> Iterator[str]:
    """The report for a notice: a line for each subject that there is something to say about."""
    b = found.books
    counted = ", ".join(f"{b.number(s)} {s}" for s in (D.SENT, D.FAILED, D.UNKNOWN, D.SKIPPED))
    balance = "the books balance" if b.balanced else "the books do not balance"
    yield f"Audience {b.audience}: {counted}; {balance}."
    yield f"It took {(found.closed_after or 0) / 60:.1f} minutes. {issue.web_url}"
    yield from _pace(issue, found)
    yield from _explained(found)
    yield from _retries(found)
    yield from _about_unknowns(issue, found)
    if told := ", ".join(f"{n} {kind}" for kind, n in sorted(found.events.items())):
        yield f"The provider told: {told}."


def _pace(issue: Issue, found: Report) -> Iterator[str]:
    if found.first and found.last:
        zone = ZoneInfo(issue.newsletter.zone)
        first, last = when(found.first, zone), when(found.last, zone)
        share = found.books.shares[0].percent
        yield (
            f"{share:.1f} % were accepted, {found.pace}: the first at {first}, the last at {last}."
        )


def _explained(found: Report) -> Iterator[str]:
    for status in EXPLAINED:
        whys = [f"{why.number} × {why.words}" for why in found.reasons if why.status == status]
        if whys:
            yield f"{status.capitalize()}: {'; '.join(whys)}."


def _retries(found: Report) -> Iterator[str]:
    if found.retried:
        rows = f"{found.retried} took more than one attempt"
        yield f"{found.attempts} attempts: {rows}."
    if found.resends:
        yield f"{found.resends} were sent again by an operator's word."


def _about_unknowns(issue: Issue, found: Report) -> Iterator[str]:
    if not found.became_unknown:
        return
    settled = [f"{each.number} {each.words} by {each.by}" for each in found.settled]
    left = found.books.number(D.UNKNOWN)
    yield f"{found.became_unknown} became unknown: {', '.join([*settled, f'{left} left'])}."
    if left:
        yield f"Settle them: {settings.PUBLIC_URL}/admin/unknown/{issue.pk}/"


def _reasons(issue: Issue) -> tuple[Why, ...]:
    rows = EmailDelivery.objects.of(issue.pk).filter(status__in=EXPLAINED)
    found = (
        rows.values_list("status", "reason")
        .annotate(n=Count("*"))
        .order_by("-n", "status", "reason")
    )
    return tuple(Why(*each) for each in found)


def _unknowns(issue: Issue, ids: tuple[int, int]) -> tuple[int, tuple[Settled, ...]]:
    """The freeze gave the rows one stretch of ids, perhaps with another issue's in between."""
    theirs = EmailDelivery.objects.of(issue.pk).filter(pk=OuterRef("subject_id"))
    rows = Transition.objects.filter(subject=Subject.DELIVERY, subject_id__range=ids)
    unknown = Q(old=D.UNKNOWN) | Q(new=D.UNKNOWN)
    moved = rows.filter(unknown, Exists(theirs)).exclude(old=F("new"))
    found = moved.values_list("old", "new", "actor").annotate(n=Count("*")).order_by()
    became = sum(n for _, new, _, n in found if new == D.UNKNOWN)
    settled: Counter[tuple[str, str]] = Counter()
    for old, new, actor, n in found:
        if old == D.UNKNOWN:
            settled[new, _by(actor)] += n
    return became, tuple(Settled(*which, n) for which, n in sorted(settled.items()))


def _by(actor: str) -> str:
    return "a late result" if actor.startswith("attempt ") else actor


def _events(issue: Issue, ids: tuple[int, int]) -> dict[str, int]:
    first, last = ids
    theirs = {"delivery_id__gte": first, "delivery_id__lte": last, "delivery__issue_id": issue.pk}
    rows = ProviderEvent.objects.filter(**theirs).values_list("kind")
    counted: Any = rows.annotate(n=Count("delivery_id", distinct=True))
    return dict(counted.order_by())


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return (until - since).total_seconds() if since and until else None


def is_at_rest(issue: Issue) -> bool:
    """Nothing is being sent: a query that reads every row is in nobody's way."""
    return issue.state != IssueState.SENDING
