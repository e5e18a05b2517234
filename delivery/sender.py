"""One sender: claims rows of an issue's ledger, puts them on the wire, writes down what came of them.

One thread: its conversations wait for the network together, and stand still while a statement runs; only copies are
made meanwhile. The order of things is the promise: a row is `sending`, committed, before the first byte of it that
could lead to acceptance.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.db import Error, transaction
from django.db.models import F

from newsletter.models import Issue, run_together, update_returning
from newsletter.models.gate import both_gates

from . import limits, moves
from .breakers import Breaker
from .channel import CHANNEL
from .claims import claim
from .copies import Copies, Row, read_rows
from .exchange import Exchange, prepared_start
from .ledger import move
from .models import CompiledIssue, EmailDelivery, House, Lease
from .models.ledger_tally import Changes
from .patience import until_written
from .pool import ConnectionPool
from .results import Result, accepted, prepared_accept, record
from .stopping import stopping
from .transports import Connection, Envelope
from .transports.outcomes import Outcome, Phase, Verdict
from .transports.steps import Steps

log = structlog.get_logger(__name__)

# Rows that are claimed at once, and for how many windows the first time: a small list is shared by all senders.
BATCH, FIRST_WINDOWS = 1000, 4
# It is ours where the servers refuse many for policy: pause, before a reputation is gone (design, section 5).
POLICY_LAST, POLICY_COUNT, POLICY_SHARE = 50, 5, 0.2
# And where the first of an issue are refused for good, for whatever reason: that is no list of people who asked for it.
FIRST, REFUSED_SHARE = 200, 0.05
# Outcomes of what was marked and not begun: it goes back, and is nobody's trouble.
LEASE_OVER, TURN_OVER = "lease_over", "turn_over"
DOUBTFUL = 5
TICK = 0.5
# Results gather for as long as the last commit took, and no longer than this: groups pay for the commit, and on SQLite,
# which has one writer, the others have their turn: senders that commit back to back kept an unsubscribe waiting 3.6 s.
LONGEST_GATHERING = 0.02
STANDING = ("state", "paused_at", "blocked_reason")  # not the text of the issue, at each commit
OPENING = (Phase.CONNECT, Phase.TLS, Phase.GREETING, Phase.EHLO)

T = TypeVar("T")


def _with_attempts(batch: list[Row], won: list[tuple[Any, ...]]) -> list[tuple[Row, int]]:
    """The rows of it that START won."""
    attempts: dict[int, int] = dict(won)
    return [(row, attempts[row.id]) for row in batch if row.id in attempts]


class Sender:
    def __init__(self, issue: Issue, lease: Lease, breaker: Breaker, leased_at: float) -> None:
        """`leased_at`: a monotonic time before the lease was taken."""
        compiled = CompiledIssue.objects.get(pk=issue.pk)
        self.issue = issue
        self.lease = lease
        self.breaker = breaker
        self.copies = Copies(compiled)
        self.first = compiled.results < FIRST
        self.claimed: deque[Row] = deque()
        self.ahead: dict[int, Envelope] = {}  # copies that were made while something was waited for
        self.on_wire: dict[int, int] = {}  # delivery -> attempt
        self.results: list[Result] = []
        self.policy: deque[bool] = deque(maxlen=POLICY_LAST)
        self.cursor = 0
        self.batch = min(BATCH, FIRST_WINDOWS * settings.DELIVERY_WINDOW)
        self.sent = 0
        self.pause_reason = ""
        self.channel_trouble = ""
        self.retry_after: float | None = None  # seconds that the other side named
        # Rows on the wire at once: less by each connection that the server would not open; one as a breaker's probe.
        self.room = 1 if breaker.probing else settings.DELIVERY_WINDOW
        self.opened = False  # the server has let one of our connections in
        self.answered = False  # it has said something about a recipient
        self.doubted = False  # so many that it is the channel's trouble, whatever else it answered
        self.unknown = 0  # how many in a row had no word from it
        self.refused_opening = ""
        self.held = True  # the lease, and the issue's word that it may be sent
        self.wait_for_rate = 0.0
        self.renewed_at = leased_at
        self.deadline = time.monotonic() + settings.SENDER_SECONDS
        # A statement failed: perhaps its COMMIT was heard, and only the reply was lost.
        self.shaken = False
        self.took = 0.0  # seconds of the last commit
        self.wire: ConnectionPool  # while it runs
        self.accept = prepared_accept(issue.pk)
        self.start = prepared_start(issue.pk, lease)
        self.exchange = Exchange(issue.pk, self.accept, self.start, lease.pk)

    def run(self) -> None:
        """Drain until the ledger has nothing for us, the turn is over, or something says stop."""
        size = min(settings.DELIVERY_CONNECTIONS, settings.DELIVERY_WINDOW)
        with ConnectionPool(size) as wire:
            self.wire = wire
            while self._step():
                pass
            if self.answered:
                self._until_written(self.breaker.succeeded)
        if self.refused_opening and not self.opened:
            self.channel_trouble = self.refused_opening

    def _step(self) -> bool:
        """Results and next starts share a commit. False: finished."""
        results = self._collect()
        self._count(results)  # first: what says stop is heard before the next start
        if self.breaker.probing and self.answered:
            self._until_written(self.breaker.succeeded)
            self.room = settings.DELIVERY_WINDOW
        starting = self._may_start()
        if starting:
            self._until_written(self._claim)
        won = self._until_written(lambda: self._commit(results, starting))
        for row, attempt in won:
            self.on_wire[row.id] = attempt
            self.wire.submit(self._deliver, row, attempt)
        return bool(self.on_wire) or (self._may_start() and self._has_more(won))

    def _collect(self) -> list[Result]:
        """What the wire has answered; waits for it where there is nothing else to do."""
        full = len(self.on_wire) >= self.room
        idle = full or not self.claimed or self.wait_for_rate or not self._may_start()
        if self.on_wire and idle and not self.results:
            self._pump(min(TICK, self.wait_for_rate or TICK))
        elif self.on_wire:
            self.wire.pump(0)
        elif self.wait_for_rate:
            time.sleep(min(TICK, self.wait_for_rate))
        self._gather()
        found, self.results = self.results, []
        return found

    def _gather(self) -> None:
        """Until all of the wire has answered, or the time is over."""
        end = time.monotonic() + min(self.took, LONGEST_GATHERING)
        while len(self.results) < len(self.on_wire) and (left := end - time.monotonic()) > 0:
            self._pump(left)

    def _pump(self, seconds: float) -> None:
        """Let deliveries go on until one has ended, or the time is over; while all wait, the next copies are made."""
        end, had = time.monotonic() + seconds, len(self.results)
        for _ in self._making(self._coming()):
            self.wire.pump(0)
            if len(self.results) > had or time.monotonic() >= end:
                return
        self.wire.pump(max(0.0, end - time.monotonic()))

    def _coming(self) -> Iterable[Row]:
        """What is sent next: no more than a window of copies is kept."""
        return islice(self.claimed, max(0, self.room) if self._may_start() else 0)

    def _making(self, rows: Iterable[Row]) -> Iterator[None]:
        """Make their copies ahead; it stops before each, so that whoever waits for something can look after it."""
        for row in rows:
            if row.id not in self.ahead:
                yield
                # `_attempt` meets a fault again, and says what became of the row.
                with suppress(Exception):
                    self.ahead[row.id] = self.copies.envelope(row)

    def _may_start(self) -> bool:
        return (
            self.held
            and not self.pause_reason
            and not self.channel_trouble
            and not stopping()
            and time.monotonic() < self.deadline
        )

    def _has_more(self, won: list[Any]) -> bool:
        if self.wait_for_rate > settings.SENDER_SECONDS / 2:
            return False
        return bool(won or self.claimed or self.wait_for_rate)

    def _claim(self) -> None:
        """Read a batch ahead by an id cursor; once past the end it wraps, for the rows that came back."""
        if self.claimed:
            return
        self.ahead.clear()
        for start in {self.cursor: None, 0: None}:
            rows = claim(self.issue.pk, self.lease, start, self.batch)
            if rows is None:
                self.held = False
                return
            if rows:
                self.claimed.extend(rows)
                self.cursor = self.claimed[-1].id
                self.batch = min(BATCH, 2 * self.batch)
                return
        self.cursor = 0
        self.wait_for_rate = 0.0  # nothing is left that would wait

    def _commit(self, results: list[Result], starting: bool) -> list[tuple[Row, int]]:
        """Results in, lease renewed, next rows marked `sending`: the rows that were won, committed."""
        renewing = self._renewal_is_due()
        if not (results or renewing or self.shaken or (starting and self.claimed)):
            return []
        now, claimed = time.monotonic(), self.claimed.copy()
        try:
            if self._is_plain(results, renewing):
                won = self._exchange(results, starting)
            else:
                with transaction.atomic():
                    won = self._write(results, starting, renewing)
        except Error:
            self.claimed = claimed
            raise
        if renewing:
            self.renewed_at = now
        self.shaken = False
        self.took = time.monotonic() - now
        return won

    def _is_plain(self, results: list[Result], renewing: bool) -> bool:
        """Whether no result decides about the next starts, and nothing else is to be done or looked at."""
        if self.first or renewing or self.shaken:
            return False
        # The rate's row is locked after the gates, by everybody: nobody waits at a gate who holds it.
        if settings.DELIVERY_RATE or settings.DELIVERY_DAILY_QUOTA:
            return False
        return all(result.outcome.verdict is Verdict.SENT for result in results)

    def _exchange(self, results: list[Result], starting: bool) -> list[tuple[Row, int]]:
        batch = self._next_batch(0) if starting else []
        booked, marked = self.exchange.run(
            [accepted(result) for result in results],
            [(row.id,) for row in batch],
            self._making(chain(batch, self._coming())),
        )
        if (len(booked), len(marked)) == (len(results), len(batch)):
            return _with_attempts(batch, marked)
        # What was won is committed. Should this fail, the results are looked at again, and the marked rows adopted.
        with transaction.atomic():
            run_together([both_gates(self.issue.pk)])
            changes = Changes(self.lease.pk)
            self._book(results, booked, changes)
            won = self._mark_sending(batch, marked, changes)
            changes.write()
        return won

    def _write(
        self, results: list[Result], starting: bool, renewing: bool
    ) -> list[tuple[Row, int]]:
        """One after the other: what came of the results may forbid the next starts."""
        changes = Changes(self.lease.pk)
        taken = [result for result in results if result.outcome.verdict is Verdict.SENT]
        _, booked = run_together(
            [
                both_gates(self.issue.pk),
                self.accept.statement([accepted(result) for result in taken]),
            ]
        )
        self._book(results, self.accept.counted(booked, changes), changes)
        if renewing:
            self._renew()
        won = self._adopt([]) if self.shaken else []
        if starting and self.held and not self.pause_reason:
            batch = self._next_batch(len(won))
            (marked,) = run_together([self.start.statement([(row.id,) for row in batch])])
            won += self._mark_sending(batch, self.start.counted(marked, changes), changes)
        if self.shaken:
            # PostgreSQL may have been about to commit when we looked: the mark waited for that, and won nothing.
            won += self._adopt([row.id for row, _ in won])
        changes.write()
        return won

    def _book(self, results: list[Result], booked: list[tuple[Any, ...]], changes: Changes) -> None:
        """What was not taken, or not any more this attempt's to book, one by one."""
        known = {id for (id,) in booked}
        rest = [result for result in results if result.delivery_id not in known]
        late = record(self._read_standing(), rest, changes)
        if self.first:
            self._count_first([r for r in results if r.delivery_id in known] + late)

    def _read_standing(self) -> Issue:
        """The issue, as it stays until our commit: who pauses or cancels it waits at the gate."""
        issue: Issue = Issue.objects.only(*STANDING).get(pk=self.issue.pk)
        self.held = self.held and issue.may_send and not House.objects.held().exists()
        return issue

    def _renewal_is_due(self) -> bool:
        return bool(time.monotonic() - self.renewed_at >= settings.LEASE_SECONDS / 3)

    def _renew(self) -> None:
        alive = self.lease.renew()  # also while paused: rows are on the wire
        self.held = self.held and alive
        self.breaker.renew()

    def _next_batch(self, adopted: int) -> list[Row]:
        room = max(0, self.room - len(self.on_wire) - adopted)
        granted, self.wait_for_rate = limits.take(CHANNEL, min(room, len(self.claimed)))
        return [self.claimed.popleft() for _ in range(granted)]

    def _mark_sending(
        self, batch: list[Row], won: list[tuple[Any, ...]], changes: Changes
    ) -> list[tuple[Row, int]]:
        """The rows that START won, of those that it was asked for."""
        if len(won) < len(batch):
            self._read_standing()
            self._skip_unwilling([row.id for row in batch], changes)
        return _with_attempts(batch, won)

    def _skip_unwilling(self, ids: list[int], changes: Changes) -> None:
        for id in ids:
            self.ahead.pop(id, None)
        move(
            moves.SKIP_UNWILLING,
            EmailDelivery.objects.filter(id__in=ids),
            facts={"lease": self.lease},
            reason="unsubscribed or suppressed",
            note="unsubscribed or suppressed before the wire",
            actor="sender",
            changes=changes,
            fence=None,
        )

    def _adopt(self, known: list[int]) -> list[tuple[Row, int]]:
        """Rows that a COMMIT marked whose reply never came: they are ours, and no byte of them has left."""
        marked = EmailDelivery.objects.of(self.issue.pk).filter(
            status=moves.SENDING, sender_id=self.lease.pk, fence=self.lease.fence
        )
        if not self.lease.mine().held().exists():
            return []
        begun = [*self.on_wire, *known]
        attempts = dict(marked.exclude(id__in=begun).values_list("id", "attempt"))
        self.claimed = deque(row for row in self.claimed if row.id not in attempts)
        return [(row, attempts[row.id]) for row in read_rows(list(attempts))]

    def _count_first(self, results: list[Result]) -> None:
        """By all senders together, in one row: a list that was bought is known by its first answers."""
        verdicts = [result.outcome.verdict for result in results]
        refused = verdicts.count(Verdict.FAILED)
        answers = verdicts.count(Verdict.SENT) + refused
        if not answers:
            return
        rows = CompiledIssue.objects.filter(pk=self.issue.pk, results__lt=FIRST)
        counted = update_returning(
            rows,
            ("results", "refusals"),
            results=F("results") + answers,
            refusals=F("refusals") + refused,
        )
        self.first = bool(counted)
        for total, refusals in counted:
            if refused and refusals > REFUSED_SHARE * FIRST:
                self.pause_reason = f"{refusals} of the first {total} were refused for good"

    def _deliver(self, connection: Connection, row: Row, attempt: int) -> Steps[bool]:
        """No statement, no exception. False: this connection is better not taken next."""
        outcome = yield from self._attempt(connection, row)
        self.results.append(Result(row.id, attempt, outcome))
        return outcome.verdict is not Verdict.RETRY_CHANNEL

    def _attempt(self, connection: Connection, row: Row) -> Steps[Outcome]:
        now = time.monotonic()
        if now > self.renewed_at + settings.LEASE_SECONDS:
            # This process was stopped for so long that others may have taken the row.
            return Outcome(Verdict.RETRY_CHANNEL, LEASE_OVER, "", Phase.CONNECT)
        if now > self.deadline:
            # It waited for a connection: with a slow server the rest would outlive the job.
            return Outcome(Verdict.RETRY_CHANNEL, TURN_OVER, "", Phase.CONNECT)
        try:
            envelope = self.ahead.pop(row.id, None) or self.copies.envelope(row)
        except Exception as error:
            if not isinstance(error, ValueError):
                log.exception("sender.copy_fault", delivery=row.id)
            return Outcome(Verdict.FAILED, "cannot_be_made", "", Phase.MAIL)
        try:
            return (yield from connection.attempt(envelope))
        except Exception:
            # A fault of ours, nobody knows where in the dialogue: the row must not stay `sending` for ever.
            log.exception("sender.transport_fault", delivery=row.id)
            return Outcome(Verdict.UNKNOWN, "transport_fault", "", Phase.DOT)

    def _count(self, results: list[Result]) -> None:
        for result in results:
            self.on_wire.pop(result.delivery_id, None)
            outcome = result.outcome
            self.sent += outcome.verdict is Verdict.SENT
            self.policy.append(outcome.policy_refusal)
            self.opened = self.opened or outcome.phase not in OPENING
            if outcome.reason in (LEASE_OVER, TURN_OVER):
                self.held = False
                continue
            if outcome.verdict is Verdict.RETRY_CHANNEL:
                self._heed(outcome)
                continue
            if outcome.verdict is Verdict.UNKNOWN:
                self._doubt(outcome)
                continue
            self.answered, self.unknown = True, 0
            if outcome.verdict is Verdict.PAUSE:
                self.pause_reason = f"{outcome.reason} {outcome.reply}".strip()
        refused = sum(self.policy)
        if refused >= POLICY_COUNT and refused >= POLICY_SHARE * len(self.policy):
            self.pause_reason = f"{refused} of the last {len(self.policy)} were refused by policy"

    def _doubt(self, outcome: Outcome) -> None:
        """A server that takes the mail and then says nothing would make the whole audience unknown."""
        self.unknown += 1
        if self.unknown >= (1 if self.breaker.probing else DOUBTFUL):
            self.doubted = True
            self.channel_trouble = f"no word after the end of DATA, {self.unknown} times in a row"

    def _heed(self, outcome: Outcome) -> None:
        """A server that opens only some connections (421 at the greeting) is used with those; else it is trouble."""
        said = f"{outcome.reason} {outcome.reply}".strip()
        if outcome.phase in OPENING:
            self.refused_opening = said
            self.room -= 1
        if outcome.phase not in OPENING or self.room <= 0:
            self.channel_trouble = said
            self.retry_after = outcome.retry_after

    def _until_written(self, commit: Callable[[], T]) -> T:
        def watched() -> T:
            try:
                return commit()
            except Error:
                self.shaken = True
                raise

        # Until shortly before the job's own end: what was heard is lost with it.
        job_ends = self.deadline - settings.SENDER_SECONDS + settings.JOB_TIMEOUT_SECONDS * 0.9
        patience = max(job_ends - time.monotonic(), settings.JOB_TIMEOUT_SECONDS / 3)
        return until_written(watched, patience, self.wire.pump)
