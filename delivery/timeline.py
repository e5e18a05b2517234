"""Why did this reader not get it? One recipient across issues, in words: from the audience rule to the last reply."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet, Window
from django.db.models.functions import Coalesce, RowNumber
from django.db.models.lookups import LessThanOrEqual

from newsletter.models import (
    Issue,
    Newsletter,
    Subscriber,
    Subscription,
    Suppression,
    Transition,
    address_key,
    database_now,
    normalise_address,
)
from newsletter.models.issue import IssueState
from newsletter.models.subscription import SubscriptionState
from newsletter.models.transition import Subject

from .channel import CHANNEL
from .models import CircuitBreaker, EmailDelivery, House, LanePause, ProviderEvent
from .models.circuit_breaker import BreakerState
from .models.email_delivery import DeliveryStatus
from .models.job import Lane
from .words import EVENTS, STATUSES, SUPPRESSIONS, and_reason, when

ISSUES = 20  # a page
# Lines of one row's history, or of its events: nobody has so many, and memory has an end.
MOST = 100
UTC = ZoneInfo("UTC")

LEVELS = {
    DeliveryStatus.SENT: "good",
    DeliveryStatus.FAILED: "bad",
    DeliveryStatus.UNKNOWN: "bad",
    DeliveryStatus.SKIPPED: "warn",
}
SETTLED = (SubscriptionState.CONFIRMED, SubscriptionState.UNSUBSCRIBED)
LEFT_OUT = "left out"  # a consent that stands for all before it
BAD_EVENTS = ("bounced", "rejected", "complained")


class Line(NamedTuple):
    """One thing that happened; `level` is good, warn, bad or nothing, `by` whoever did it."""

    at: datetime
    text: str
    by: str = ""
    level: str = ""


@dataclass(frozen=True)
class Entry:
    """An issue, or an event of the reader's own.

    `lines` are in the order of time, `said` the server's last words, `next` what happens now.
    """

    at: datetime
    zone: ZoneInfo
    title: str
    level: str = ""
    text: str = ""
    issue: Issue | None = None
    row: EmailDelivery | None = None
    lines: tuple[Line, ...] = ()
    said: str = ""
    next: str = ""


@dataclass(frozen=True)
class Consent:
    """What a reader said about one newsletter, or was asked."""

    at: datetime
    state: str
    reason: str
    by: str = ""


@dataclass(frozen=True)
class Reader:
    """Who is looked for. An address that was erased, or never subscribed, is known by its key alone."""

    key: str
    subscriber: Subscriber | None
    suppression: Suppression | None
    subscriptions: tuple[Subscription, ...]
    consents: dict[int, list[Consent]]  # by newsletter, in the order of time

    @property
    def is_known(self) -> bool:
        return self.subscriber is not None or self.suppression is not None


@dataclass(frozen=True)
class Page:
    """The newest first. `is_last`: nothing is older."""

    entries: list[Entry]
    is_last: bool


@dataclass(frozen=True)
class Held:
    """What keeps all rows waiting, whoever they are for."""

    now: datetime
    house: House
    lane: LanePause | None
    breaker: CircuitBreaker | None


def key_of(address: str) -> str:
    """The keyed hash of an address as somebody typed it; ValueError says what is wrong with it."""
    return address_key(normalise_address(address))


def read(key: str) -> Reader:
    """All that is known of this address beside the ledger: four queries."""
    subscriber = Subscriber.objects.filter(address_key=key).first()
    rows = Subscription.objects.filter(subscriber=subscriber) if subscriber else ()
    subscriptions = tuple(rows.select_related("newsletter").order_by("id")) if rows else ()
    told = histories(Subject.SUBSCRIPTION, [row.pk for row in subscriptions])
    return Reader(
        key,
        subscriber,
        Suppression.objects.filter(address_key=key).first(),
        subscriptions,
        {row.newsletter_id: _consents(row, told[row.pk]) for row in subscriptions},
    )


def standing(reader: Reader) -> Iterator[tuple[Newsletter, str, str]]:
    """(newsletter, level, sentence) of each subscription: whether the next issue goes to them, and why."""
    for row in reader.subscriptions:
        zone = _zone(row.newsletter)
        if suppressed := _suppressed(reader, zone):
            yield row.newsletter, "bad", f"Gets nothing: {suppressed}."
        elif reader.subscriber and not reader.subscriber.address:
            yield row.newsletter, "bad", "Gets nothing: the address was erased."
        else:
            yield row.newsletter, *_state_now(row, zone)


def page(reader: Reader, number: int = 1) -> Page:
    """So many issues of the reader's newsletters, and what the reader did meanwhile.

    The same number of queries however many rows there are; each by an index.
    """
    start = ISSUES * (number - 1)
    found = list(_issues(reader)[max(0, start - 1) : start + ISSUES + 1])
    before = found.pop(0) if start and found else None
    shown, is_last = found[:ISSUES], len(found) <= ISSUES
    since = None if is_last or not shown else _moment(shown[-1])
    until = _moment(before) if before else None
    own = [
        entry
        for entry in _own_entries(reader)
        if (since is None or entry.at >= since) and (until is None or entry.at < until)
    ]
    if start and before is None:
        own = []  # beyond the end
    entries = [*own, *_issue_entries(reader, shown)]
    return Page(sorted(entries, key=_as_noted, reverse=True), is_last)


def told_in_words(told: list[Transition]) -> Iterator[Line]:
    """A delivery's history, as `histories` gives it."""
    yield from _cut([_in_words(row) for row in told])


def events_in_words(events: list[ProviderEvent]) -> Iterator[Line]:
    """What providers told of a message afterwards, as `events_of` gives it."""
    yield from _cut([_event_in_words(event) for event in events])


def histories(subject: Subject, ids: list[int]) -> defaultdict[int, list[Transition]]:
    """By the subject's id, each in its order: the newest `MOST` and one more, where something is left out."""
    rows = Transition.objects.filter(subject=subject, subject_id__in=ids)
    found: defaultdict[int, list[Transition]] = defaultdict(list)
    for row in rows.filter(_is_new("subject_id")).order_by("id") if ids else ():
        found[row.subject_id].append(row)
    return found


def events_of(ids: list[int]) -> defaultdict[int, list[ProviderEvent]]:
    """By the delivery's id, as they came in, as many as in `histories`; without their raw text."""
    rows = ProviderEvent.objects.filter(delivery_id__in=ids).defer("raw")
    found: defaultdict[int, list[ProviderEvent]] = defaultdict(list)
    for row in rows.filter(_is_new("delivery_id")).order_by("id") if ids else ():
        found[row.delivery_id or 0].append(row)
    return found


def _is_new(whose: str) -> LessThanOrEqual:
    """One more than is shown: where it is there, something is left out."""
    place = Window(RowNumber(), partition_by=whose, order_by="-id")
    return LessThanOrEqual(place, MOST + 1)


def _cut(lines: list[Line]) -> list[Line]:
    if len(lines) <= MOST:
        return lines
    said = f"Older lines are left out: the newest {MOST} follow"
    return [Line(lines[0].at, said, level="warn"), *lines[1:]]


def _as_noted(told: Line | Entry | Consent) -> datetime:
    """To the millisecond, which is all that SQLite notes: what Python noted to the microsecond, before, is no later."""
    return told.at.replace(microsecond=told.at.microsecond // 1000 * 1000)


def _in_words(row: Transition) -> Line:
    told, level = _MOVES.get((row.old, row.new), ("Noted", ""))
    if (row.old, row.new) not in _MOVES and row.old != row.new:
        told = f"{row.old} → {row.new}"
    return Line(row.at, and_reason(told, row.reason), row.actor, level)


def _event_in_words(event: ProviderEvent) -> Line:
    said = EVENTS.get(event.kind, event.kind)
    text = f"{event.provider} {said}" + (f" ({event.note})" if event.note else "")
    level = "bad" if event.kind in BAD_EVENTS else "good" if event.kind == "delivered" else ""
    return Line(event.occurred_at or event.received_at, text, level=level)


def _state_now(row: Subscription, zone: ZoneInfo) -> tuple[str, str]:
    if row.state == SubscriptionState.CONFIRMED and row.consent_at:
        since = f"Confirmed since {when(row.consent_at, zone)} ({row.consent_source})"
        return "good", f"{since}: the next issue goes to them."
    if row.state == SubscriptionState.UNSUBSCRIBED:
        at = f" at {when(row.unsubscribed_at, zone)}" if row.unsubscribed_at else ""
        return "warn", f"Gets nothing: unsubscribed{at}."
    return "warn", "Gets nothing until they confirm: they have not yet."


def _consents(row: Subscription, told: list[Transition]) -> list[Consent]:
    """Their history; and where an import wrote none, what the row itself says."""
    found = [Consent(each.at, each.new, each.reason, each.actor) for each in told]
    if len(found) > MOST:
        found[0] = Consent(found[0].at, LEFT_OUT, f"the newest {MOST} lines follow")
    states = {each.state for each in found}
    if row.consent_at and SubscriptionState.CONFIRMED not in states:
        found.insert(0, Consent(row.consent_at, SubscriptionState.CONFIRMED, row.consent_source))
    if row.unsubscribed_at and SubscriptionState.UNSUBSCRIBED not in states:
        found.append(Consent(row.unsubscribed_at, SubscriptionState.UNSUBSCRIBED, ""))
    return sorted(found, key=_as_noted)


def _own_entries(reader: Reader) -> Iterator[Entry]:
    """Of one and the same moment the later comes first."""
    if reader.suppression:
        text = _suppression_in_words(reader.suppression)
        yield Entry(reader.suppression.created_at, UTC, "The address was suppressed", "bad", text)
    for row in reader.subscriptions:
        zone = _zone(row.newsletter)
        for consent in reversed(reader.consents[row.newsletter_id]):
            title, level = _CONSENTS[consent.state]
            said = f"{consent.reason}, by {consent.by}" if consent.by else consent.reason
            yield Entry(consent.at, zone, title.format(row.newsletter.name), level, said)
    if reader.subscriber:
        yield Entry(reader.subscriber.created_at, UTC, "The address was added")


_CONSENTS: dict[str, tuple[str, str]] = {
    SubscriptionState.PENDING: ("Was asked to confirm {}", ""),
    SubscriptionState.CONFIRMED: ("Confirmed {}", "good"),
    SubscriptionState.UNSUBSCRIBED: ("Unsubscribed from {}", "warn"),
    LEFT_OUT: ("Older lines about {} are left out", "warn"),
}


def _issues(reader: Reader) -> QuerySet[Issue]:
    """Of their newsletters; and of others where the ledger knows the address. Each issue costs a look into an index."""
    known = EmailDelivery.objects.filter(issue_id=OuterRef("pk"), address_key=reader.key)
    newsletters = [row.newsletter_id for row in reader.subscriptions]
    return (
        Issue.objects.filter(Q(newsletter_id__in=newsletters) | Q(Exists(known)))
        .exclude(state=IssueState.DRAFT)
        .order_by(Coalesce("audience_frozen_at", "approved_at", "created_at").desc(), "-id")
        .select_related("newsletter")
        .defer("markdown", "snapshot")
    )


def _moment(issue: Issue) -> datetime:
    """Where it stands in the timeline: as the order of `_issues` says."""
    return issue.audience_frozen_at or issue.approved_at or issue.created_at


def _issue_entries(reader: Reader, issues: list[Issue]) -> Iterator[Entry]:
    ids = [issue.pk for issue in issues]
    rows = EmailDelivery.objects.filter(issue_id__in=ids, address_key=reader.key)
    by_issue = {row.issue_id: row for row in rows.select_related("sender", "subscription")}
    deliveries = [row.pk for row in by_issue.values()]
    told = histories(Subject.DELIVERY, deliveries)
    events = events_of(deliveries)
    held = _held()
    for issue in issues:
        row = by_issue.get(issue.pk)
        if row is None:
            yield _absent(reader, issue)
        else:
            yield _present(reader, issue, row, told[row.pk], events[row.pk], held)


def _absent(reader: Reader, issue: Issue) -> Entry:
    at, zone = _moment(issue), _zone(issue.newsletter)
    if issue.audience_frozen_at:
        text = f"Not in the audience: {_why_absent(reader, issue, issue.audience_frozen_at)}."
        return Entry(at, zone, issue.title, "warn", text, issue)
    if issue.state == IssueState.CANCELLED:
        text = "It was cancelled before it had an audience: nobody got it."
    else:
        text = "Its audience is not frozen yet: who is confirmed then gets it."
    return Entry(at, zone, issue.title, "", text, issue)


def _why_absent(reader: Reader, issue: Issue, frozen: datetime) -> str:
    """By the audience rule, at the time of the freeze; all that stood against it."""
    zone = _zone(issue.newsletter)
    if issue.newsletter_id not in reader.consents:
        return f"no subscription to {issue.newsletter.name}"
    found = list(_no_consent(reader.consents[issue.newsletter_id], frozen, zone))
    if reader.suppression and reader.suppression.created_at <= frozen:
        found.append(_suppressed(reader, zone))
    if reader.subscriber and reader.subscriber.created_at > frozen:
        found.insert(
            0, f"the address was added later, at {when(reader.subscriber.created_at, zone)}"
        )
    if not found and reader.subscriber and not reader.subscriber.address:
        found.append("the address was erased")
    unexplained = "nothing on record explains it; perhaps it was confirmed in that very moment"
    return "; ".join(found) or unexplained


def _no_consent(consents: list[Consent], frozen: datetime, zone: ZoneInfo) -> Iterator[str]:
    settled = [each for each in consents if each.state in SETTLED]
    before = [each for each in settled if each.at <= frozen]
    later = [each for each in settled if each.at > frozen and each.state == "confirmed"]
    if before and before[-1].state == SubscriptionState.UNSUBSCRIBED:
        yield f"had unsubscribed at {when(before[-1].at, zone)}"
    elif not before and any(each.state == LEFT_OUT for each in consents):
        yield "their history of that time is left out here"
    elif not before and later:
        frozen_at = f"after the audience was frozen at {when(frozen, zone)}"
        yield f"confirmed at {when(later[0].at, zone)}, {frozen_at}; the next issue counts"
    elif not before:
        yield "had not confirmed by then, and was still pending"


def _suppressed(reader: Reader, zone: ZoneInfo) -> str:
    if reader.suppression is None:
        return ""
    since = when(reader.suppression.created_at, zone)
    return f"suppressed since {since}, because {_suppression_in_words(reader.suppression)}"


def _suppression_in_words(row: Suppression) -> str:
    why = SUPPRESSIONS.get(row.reason, row.reason)
    return f"{why} ({row.detail})" if row.detail else why


def _present(
    reader: Reader,
    issue: Issue,
    row: EmailDelivery,
    told: list[Transition],
    events: list[ProviderEvent],
    held: Held,
) -> Entry:
    zone = _zone(issue.newsletter)
    text = and_reason(f"In the audience; {STATUSES[row.status]}", row.reason) + "."
    lines = sorted([*_lines(issue, row, told), *events_in_words(events)], key=_as_noted)
    return Entry(
        _moment(issue),
        zone,
        issue.title,
        LEVELS.get(DeliveryStatus(row.status), ""),
        text,
        issue,
        row,
        tuple(lines),
        row.reply,
        _next(reader, issue, row, held, zone),
    )


def _lines(issue: Issue, row: EmailDelivery, told: list[Transition]) -> Iterator[Line]:
    if issue.audience_frozen_at:
        yield Line(issue.audience_frozen_at, "In the audience, which was frozen then")
    if row.sending_at:
        yield Line(row.sending_at, f"Attempt {row.attempt} was put on the wire")
    yield from told_in_words(told)
    # The plain way pending -> sending -> sent has no history: the row's own columns tell it.
    if row.status == DeliveryStatus.SENT and row.settled_at and not _tells_the_end(told):
        yield Line(row.settled_at, "Accepted", f"attempt {row.attempt}", "good")


def _tells_the_end(told: list[Transition]) -> bool:
    moves = [each for each in told if each.old != each.new]
    return bool(moves) and moves[-1].new == DeliveryStatus.SENT


# From and to -> how it is told, and how bad it is.
_MOVES = {
    ("sending", "pending"): ("Not accepted, and tried again", "warn"),
    ("sending", "failed"): ("Refused for good", "bad"),
    ("sending", "unknown"): ("Nobody can tell whether it was accepted", "bad"),
    ("sending", "skipped"): ("Not accepted, and not tried again", "warn"),
    ("pending", "failed"): ("Given up", "bad"),
    ("pending", "skipped"): ("Not sent", "warn"),
    ("unknown", "sent"): ("Settled: it was accepted", "good"),
    ("unknown", "failed"): ("Settled: it was not delivered", "bad"),
    ("unknown", "pending"): ("To be sent again", "warn"),
    ("unknown", "skipped"): ("Not accepted after all, and not tried again", "warn"),
    ("failed", "sent"): ("It was accepted after all", "good"),
}


def _next(reader: Reader, issue: Issue, row: EmailDelivery, held: Held, zone: ZoneInfo) -> str:
    if row.status == DeliveryStatus.UNKNOWN:
        return "It is never sent again by itself: evidence settles it, or an operator."
    if row.status == DeliveryStatus.SENDING:
        holder = f" by {row.sender.holder}" if row.sender and row.sender.fence == row.fence else ""
        return f"It is on the wire{holder}; what comes of it is written down when it is known."
    if row.status != DeliveryStatus.PENDING:
        return ""
    if no := _will_be_skipped(reader, issue, row):
        return f"It will be skipped: {no}."
    return f"{_waits_for(issue, row, held, zone)} {_bound(issue, row, zone)}".strip()


def _will_be_skipped(reader: Reader, issue: Issue, row: EmailDelivery) -> str:
    if issue.state == IssueState.CANCELLED:
        return "the issue is cancelled"
    if reader.suppression:
        return "the address is suppressed"
    if row.subscription is None or row.subscription.state != SubscriptionState.CONFIRMED:
        return "there is no consent any more"
    return ""


def _waits_for(issue: Issue, row: EmailDelivery, held: Held, zone: ZoneInfo) -> str:
    """What keeps it back, the strongest first."""
    if held.house.is_held:
        return f"It waits: nothing leaves this house ({held.house.why_held})."
    if issue.paused_at:
        why = f"since {when(issue.paused_at, zone)} ({issue.paused_reason})"
        return f"It waits: the issue is paused {why}."
    if issue.blocked_reason:
        return f"It waits: the issue is blocked ({issue.blocked_reason})."
    if held.lane:
        return f"It waits: the lane bulk is paused by {held.lane.actor} ({held.lane.reason})."
    if held.breaker and held.breaker.until:
        at = when(held.breaker.until, zone)
        return f"It waits: the mail server does not answer, and is asked again at {at}."
    if row.next_attempt_at and row.next_attempt_at > held.now:
        spent = f"{row.attempts_spent} of {settings.DELIVERY_ATTEMPTS} attempts are spent"
        return f"The next attempt is due at {when(row.next_attempt_at, zone)}; {spent}."
    return "It is due: the next sender that is free takes it."


def _bound(issue: Issue, row: EmailDelivery, zone: ZoneInfo) -> str:
    since = row.resent_at or issue.audience_frozen_at
    if since is None:
        return ""
    end = since + timedelta(hours=settings.DELIVERY_EXPIRY_HOURS)
    return f"What still waits at {when(end, zone)} fails."


def _held() -> Held:
    breaker = CircuitBreaker.objects.filter(name=CHANNEL).exclude(state=BreakerState.CLOSED)
    lane = LanePause.objects.filter(lane=Lane.BULK)
    return Held(database_now(), House.read(), lane.first(), breaker.first())


def _zone(newsletter: Newsletter) -> ZoneInfo:
    return ZoneInfo(newsletter.zone)
