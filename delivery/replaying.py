"""An `unknown` copy is handed over once more under the same key, to a provider that then sends nothing twice.

Only while the provider honours the key, and only where the copy could be started now: nothing holds it, and its reader
has not said no since. The row stays `unknown` until there is an answer.
"""

from __future__ import annotations

import time
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from newsletter.models import database_now, run_together
from newsletter.models.gate import both_gates

from . import breakers, channel, limits, queue, settling, witness
from .channel import CHANNEL
from .copies import Copies, Row, read_rows
from .models import CompiledIssue, EmailDelivery, House
from .models.email_delivery import CONDITIONS, EmailDeliveryQuerySet
from .moves import UNKNOWN, Need
from .outcome import Discard, Done, Outcome, Wait
from .stopping import stopping
from .transports import Connection, Envelope
from .transports.outcomes import Verdict

MARGIN = timedelta(minutes=15)  # before the end of the provider's time; its clock is not ours
PAUSE = 300.0  # seconds between two rounds over what stays unknown
ROUND = 200  # rows
SOURCE = "same-key replay"


def enqueue_replays() -> int:
    """A job for each issue that has such rows and none yet; how many were new. For the minute tick."""
    if not channel.replays() or House.read().is_held:
        return 0
    issues = _replayable().values_list("issue_id", flat=True).order_by("issue_id").distinct()
    return sum(
        queue.ensure("replay_unknowns", key=f"replay_unknowns:{id}", issue_id=id, id=id)
        for id in issues
    )


def replay(issue_id: int) -> Outcome:
    """One round, for SENDER_SECONDS at most: what gets a clear answer is settled by it.

    Raises WitnessTrouble or BreakerOpen: then nothing was handed over.
    """
    compiled = CompiledIssue.objects.filter(pk=issue_id).first()
    if compiled is None:
        return Discard("the issue is gone")
    if not channel.replays():
        return Done("this way out knows no keys")
    if held := witness.look().why_held:
        return Wait(PAUSE, f"nothing leaves: {held}")
    witness.testify()
    breaker = breakers.enter(CHANNEL)
    connection = channel.transport().connect()
    try:
        settled = Round(Copies(compiled), connection, breaker).run(issue_id)
    finally:
        connection.close()
        breaker.leave()
    if _replayable().of(issue_id).exists():
        return Wait(PAUSE, f"{settled} settled; the others are asked for again", items=settled)
    return Done(f"{settled} settled", items=settled)


class Round:
    def __init__(self, copies: Copies, connection: Connection, breaker: breakers.Breaker) -> None:
        self.copies = copies
        self.connection = connection
        self.breaker = breaker
        self.settled = 0

    def run(self, issue_id: int) -> int:
        """The number of rows that are settled."""
        end = time.monotonic() + settings.SENDER_SECONDS
        ids = _replayable().of(issue_id).order_by("id").values_list("pk", flat=True)
        for id in list(ids[:ROUND]):
            if stopping() or time.monotonic() > end or not self._replay(issue_id, id, end):
                break
        return self.settled

    def _replay(self, issue_id: int, id: int, end: float) -> bool:
        """False: this round is better ended."""
        row, wait = _start(issue_id, id)
        while row is None and wait and time.monotonic() + wait < end and not stopping():
            time.sleep(min(wait, 1.0))
            row, wait = _start(issue_id, id)
        if row is None:
            return not wait
        try:
            envelope = self.copies.envelope(row)
        except ValueError:  # its name or address was changed by other hands
            return True
        return self._hand_over(row, envelope)

    def _hand_over(self, row: Row, envelope: Envelope) -> bool:
        outcome = self.connection.send(envelope)
        if outcome.verdict in (Verdict.SENT, Verdict.FAILED):
            self.breaker.succeeded()
            self.settled += settling.prove(
                [row.id],
                sent=outcome.verdict is Verdict.SENT,
                resend_no=row.resend_no,
                source=SOURCE,
                detail=f"{outcome.reason} {outcome.reply}".strip(),
                provider_message_id=outcome.message_id,
            )
            return True
        if outcome.verdict is Verdict.RETRY_CHANNEL:
            self.breaker.failed(outcome.reason, outcome.retry_after)
        return outcome.verdict in (Verdict.UNKNOWN, Verdict.RETRY_RECIPIENT)


def _replayable() -> EmailDeliveryQuerySet:
    """Within the provider's time, and free to be started: this may be the hand-over that the first one was not."""
    since = database_now() - timedelta(seconds=channel.replays()) + MARGIN
    free = (CONDITIONS[need]({}) for need in (Need.CONSENT, Need.MAY_SEND))
    return EmailDelivery.objects.filter(*free, status=UNKNOWN, sending_at__gt=since)


def _start(issue_id: int, id: int) -> tuple[Row | None, float]:
    """The row, where it may go now: what a sender asks before it starts one. Else the seconds to wait for the rate."""
    with transaction.atomic():
        run_together([both_gates(issue_id)])
        if not _replayable().filter(pk=id).exists():
            return None, 0.0
        granted, wait = limits.take(CHANNEL, 1)
        return (read_rows([id])[0], 0.0) if granted else (None, wait)
