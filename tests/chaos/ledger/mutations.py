"""Deliberate faults of ours, patched into the processes that are forked: each is what a careless change would do."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import connection, transaction
from django.db.backends.signals import connection_created
from django.db.models import Q

from delivery import moves, queue, recovery, sending
from delivery.copies import Copies
from delivery.models import EmailDelivery, House, Lease
from delivery.models.email_delivery import CONDITIONS
from delivery.moves import Need
from delivery.sender import Sender
from delivery.transports import Envelope
from delivery.transports.outcomes import Outcome, Phase, Verdict
from delivery.transports.smtp import SmtpConnection
from delivery.transports.steps import Aside, Steps, Wait
from delivery.transports.wire import BrokenWire, Wire
from newsletter.models import Issue, Transition
from newsletter.models.transition import Subject

Mutation = Callable[[], None]


def no_sending_commit() -> None:
    """`sending` is only known to the sender: the ledger says pending while the copy is on the wire."""
    commit = Sender._commit

    @functools.wraps(commit)
    def mutated(self: Sender, results: Any, *args: Any) -> Any:
        mine = EmailDelivery.objects.filter(id__in=[result.delivery_id for result in results])
        mine.filter(status="pending").update(status="sending")
        won = commit(self, results, *args)
        ids = [row.id for row, _ in won]
        EmailDelivery.objects.filter(id__in=ids).update(status="pending")
        return won

    _patch(Sender, "_commit", mutated)


def unknown_requeued() -> None:
    """What a dead sender had on the wire is sent again."""
    recover = recovery.recover

    def mutated() -> dict[str, int]:
        rows = EmailDelivery.objects.open_to(moves.LOSE)
        rows.update(status="pending", sender=None, fence=None)
        return recover()

    recovery.recover = mutated


def fence_ignored() -> None:
    """A sender that was away for longer than its lease goes on with what it had read ahead, by the rows' ids alone."""
    known = ("pending", "sending", "sent", "unknown")
    moves.START = replace(moves.START, old=known, needs=frozenset({Need.CONSENT}))
    renew, attempt = Lease.renew, Sender._attempt
    _patch(Lease, "renew", lambda self: renew(self) or True)

    def mutated(self: Sender, *args: Any) -> Steps[Any]:
        steps = attempt(self, *args)
        self.renewed_at += 3600
        try:
            step = next(steps)  # as far as the first wait: by then it has looked at the clock
        except StopIteration as end:
            return end.value
        finally:
            self.renewed_at -= 3600
        return (yield from _rest(steps, step))

    _patch(Sender, "_attempt", mutated)


def consent_at_freeze_only() -> None:
    CONDITIONS[Need.CONSENT] = lambda facts: Q()


def long_line_is_permanent() -> None:
    """What smtplib makes of it: `500 Line too long`."""
    get = Wire.replying

    def mutated(self: Wire) -> Steps[tuple[int, bytes]]:
        try:
            return (yield from get(self))
        except BrokenWire as broken:
            if broken.error != "over_long_reply":
                raise
            return 500, b"Line too long."

    _patch(Wire, "replying", mutated)


def quit_error_is_failure() -> None:
    """As Django's `send_messages`: an error of QUIT is the error of the message."""
    attempt = SmtpConnection.attempt

    def mutated(self: SmtpConnection, envelope: Envelope) -> Steps[Outcome]:
        outcome = yield from attempt(self, envelope)
        wire = self._wire
        if outcome.verdict is not Verdict.SENT or wire is None:
            return outcome
        try:
            wire.limit(1)
            yield from wire.sending("QUIT\r\n")
            good = (yield from wire.replying())[0] == 221
        except BrokenWire:
            good = False
        self._drop()
        return outcome if good else Outcome(Verdict.RETRY_CHANNEL, "quit_failed", "", Phase.QUIT)

    _patch(SmtpConnection, "attempt", mutated)


def random_message_id() -> None:
    """As `email.utils.make_msgid` at each attempt."""
    make = Copies.envelope

    def mutated(self: Copies, *args: Any) -> Envelope:
        made = make(self, *args)
        head, _, rest = made.data.partition(b"Message-ID: <")
        data = head + b"Message-ID: <" + secrets.token_hex(8).encode() + rest
        return made._replace(data=data)

    _patch(Copies, "envelope", mutated)


def not_durable() -> None:
    """SQLite's `synchronous=NORMAL`, PostgreSQL's `synchronous_commit=off`."""
    soft = "PRAGMA synchronous=NORMAL"
    if connection.vendor == "postgresql":
        soft = "SET synchronous_commit = off"

    def mutated(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(soft)

    connection_created.connect(mutated, weak=False)


def count_trusted() -> None:
    """The UPDATE won some rows: so it won the batch."""
    mark = Sender._mark_sending

    def mutated(self: Sender, batch: Any, *args: Any) -> Any:
        won = mark(self, batch, *args)
        attempts = {row.id: attempt for row, attempt in won}
        return [(row, attempts.get(row.id, 1)) for row in batch] if won else []

    _patch(Sender, "_mark_sending", mutated)


def lease_not_renewed() -> None:
    _patch(Lease, "renew", lambda self: True)


def pause_ignored() -> None:
    """Read once, at the beginning of the run."""
    CONDITIONS[Need.MAY_SEND] = lambda facts: Q()
    _patch(Issue, "may_send", True)


def hold_ignored() -> None:
    """A pause of everything is known to the next turn, not to the one that runs."""
    CONDITIONS[Need.MAY_SEND] = lambda facts: Q()
    _patch(House.objects, "held", House.objects.none)


def cancel_ignored() -> None:
    """The cancel changes the issue, and leaves its rows to senders that do not ask."""
    pause_ignored()
    CONDITIONS[Need.CANCELLED] = lambda facts: Q(pk=None)
    moves.SKIP_CANCELLED = replace(moves.SKIP_CANCELLED, needs=frozenset({Need.CANCELLED}))


def duplicate_close() -> None:
    """Whoever finds nothing open closes, whatever state the issue is in."""

    def mutated(issue: Issue) -> None:
        with transaction.atomic():
            Issue.objects.filter(pk=issue.pk).update(state="sent")
            Transition.objects.record(
                Subject.ISSUE, [issue.pk], "sending", "sent", "closed", "close"
            )
            queue.enqueue("report", key=f"report:{issue.pk}", issue_id=issue.pk, id=issue.pk)

    sending._close = mutated
    ready = sending.close
    sending.close = lambda issue: ready(_as_sending(issue))


def window_ignored() -> None:
    """All that is claimed goes on the wire at once."""
    create = Sender.__init__

    def mutated(self: Sender, *args: Any) -> None:
        create(self, *args)
        self.room = 1000

    _patch(Sender, "__init__", mutated)


def sent_before_the_reply() -> None:
    """What was handed over is booked as sent."""
    commit = Sender._commit

    @functools.wraps(commit)
    def mutated(self: Sender, *args: Any) -> Any:
        won = commit(self, *args)
        ids = [row.id for row, _ in won]
        EmailDelivery.objects.filter(id__in=ids).update(status="sent", sender=None)
        return won

    _patch(Sender, "_commit", mutated)


def drop_is_not_sent() -> None:
    """`SMTPServerDisconnected` looks the same before and after the dot: tried again."""
    _change_outcome(
        lambda outcome: (
            outcome._replace(verdict=Verdict.RETRY_CHANNEL)
            if outcome.verdict is Verdict.UNKNOWN
            else outcome
        )
    )


def client_retries() -> None:
    """The client library sends once more by itself."""
    attempt = SmtpConnection.attempt

    def mutated(self: SmtpConnection, envelope: Envelope) -> Steps[Outcome]:
        outcome = yield from attempt(self, envelope)
        return (yield from attempt(self, envelope)) if outcome.reason == "dropped" else outcome

    _patch(SmtpConnection, "attempt", mutated)


def audience_grows() -> None:
    """Who confirms after the freeze is mailed with the others."""
    recover = recovery.recover

    def mutated() -> dict[str, int]:
        row = EmailDelivery.objects.filter(issue__state="sending").first()
        if row is not None:
            late = {"address": f"late-{row.issue_id}@example.org", "address_key": str(row.issue_id)}
            new = EmailDelivery(
                issue_id=row.issue_id,
                subscription_id=row.subscription_id,
                status="pending",
                **late,
            )
            EmailDelivery.objects.bulk_create([new], ignore_conflicts=True)
        return recover()

    recovery.recover = mutated


def sdk_retries() -> None:
    """boto3's default: a SendEmail that met a 503 is sent again."""
    from delivery.transports.providers import ses

    create = ses.Backend.__init__

    def mutated(self: Any, *args: Any, **options: Any) -> None:
        options["client_params"]["config"]["retries"] = {
            "total_max_attempts": 3,
            "mode": "standard",
        }
        create(self, *args, **options)

    _patch(ses.Backend, "__init__", mutated)


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        no_sending_commit,
        unknown_requeued,
        fence_ignored,
        consent_at_freeze_only,
        long_line_is_permanent,
        quit_error_is_failure,
        random_message_id,
        not_durable,
        count_trusted,
        lease_not_renewed,
        pause_ignored,
        hold_ignored,
        cancel_ignored,
        duplicate_close,
        window_ignored,
        sent_before_the_reply,
        drop_is_not_sent,
        client_retries,
        audience_grows,
        sdk_retries,
    )
}


def apply(name: str) -> None:
    """Patch the fault into this process; "" is none."""
    if name:
        MUTATIONS[name]()


def _patch(owner: Any, name: str, value: object) -> None:
    setattr(owner, name, value)


def _rest(steps: Steps[Any], step: Wait | Aside) -> Steps[Any]:
    """Go on with steps of which the first was taken already."""
    while True:
        try:
            go_on = functools.partial(steps.send, (yield step))
        except Exception as fault:  # noqa: BLE001  (it is thrown into the steps)
            go_on = functools.partial(steps.throw, fault)
        try:
            step = go_on()
        except StopIteration as end:
            return end.value


def _as_sending(issue: Issue) -> Issue:
    issue.state = "sending"
    return issue


def _change_outcome(change: Callable[[Outcome], Outcome]) -> None:
    attempt = SmtpConnection.attempt

    def mutated(self: SmtpConnection, envelope: Envelope) -> Steps[Outcome]:
        return change((yield from attempt(self, envelope)))

    _patch(SmtpConnection, "attempt", mutated)
