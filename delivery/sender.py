"""One sender: claims rows of an issue's ledger, puts them on the wire, writes down what came of them.

All statements run in one thread; the network is in the others. The order of things is the promise:
a row is `sending`, committed, before the first byte of it that could lead to acceptance.
"""

from __future__ import annotations

import queue as queues
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import F

from newsletter.models import Issue, database_now, update_returning
from newsletter.models.gate import queue_for_house, queue_for_issue

from . import limits, moves
from .breakers import Breaker
from .channel import CHANNEL
from .copies import Copies, Row, read_rows
from .ledger import move
from .models import CompiledIssue, EmailDelivery, House, Lease
from .models.email_delivery import EmailDeliveryQuerySet
from .patience import until_written
from .pool import ConnectionPool
from .results import Result, record
from .stopping import stopping
from .transports import Connection
from .transports.outcomes import Outcome, Phase, Verdict

log = structlog.get_logger(__name__)

BATCH = 200
# It is ours where the servers refuse many for policy: pause, before a reputation is gone (design, section 5).
POLICY_LAST, POLICY_COUNT, POLICY_SHARE = 50, 5, 0.2
# And where the first of an issue are refused for good, for whatever reason: that is no list of people who asked for it.
FIRST, REFUSED_SHARE = 200, 0.05
# Outcomes of what was marked and not begun: it goes back, and is nobody's trouble.
LEASE_OVER, TURN_OVER = "lease_over", "turn_over"
DOUBTFUL = 5
TICK = 0.5
# SQLite has one writer, and who waits for the lock asks for it only now and then: senders that commit back to back
# kept an unsubscribe waiting for 3.6 s. Results gather meanwhile.
SQLITE_TURN = 0.02
STANDING = ("state", "paused_at", "blocked_reason")  # not the text of the issue, at each commit
OPENING = (Phase.CONNECT, Phase.TLS, Phase.GREETING, Phase.EHLO)

T = TypeVar("T")


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
        self.on_wire: dict[int, int] = {}  # delivery -> attempt
        self.results: queues.SimpleQueue[Result] = queues.SimpleQueue()
        self.policy: deque[bool] = deque(maxlen=POLICY_LAST)
        self.cursor = 0
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

    def run(self) -> None:
        """Drain until the ledger has nothing for us, the turn is over, or something says stop."""
        threads = min(settings.DELIVERY_CONNECTIONS, settings.DELIVERY_WINDOW)
        with ConnectionPool(threads) as wire:
            while self._step(wire):
                pass
        if self.refused_opening and not self.opened:
            self.channel_trouble = self.refused_opening
        if self.answered:
            self._until_written(self.breaker.succeeded)

    def _step(self, wire: ConnectionPool) -> bool:
        """Results and next starts share a commit. False: finished."""
        if connection.vendor == "sqlite":
            time.sleep(SQLITE_TURN)
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
            wire.submit(self._deliver, row, attempt)
        return bool(self.on_wire) or (self._may_start() and self._has_more(won))

    def _collect(self) -> list[Result]:
        """What the wire has answered; waits for it where there is nothing else to do."""
        found: list[Result] = []
        full = len(self.on_wire) >= self.room
        if self.on_wire and (
            full or not self.claimed or self.wait_for_rate or not self._may_start()
        ):
            try:
                found.append(self.results.get(timeout=min(TICK, self.wait_for_rate or TICK)))
            except queues.Empty:
                pass
        elif self.wait_for_rate:
            time.sleep(min(TICK, self.wait_for_rate))
        while not self.results.empty():
            found.append(self.results.get())
        return found

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
        """Lease a batch by an id cursor; once past the end it wraps, for the rows that came back."""
        if self.claimed:
            return
        for start in {self.cursor: None, 0: None}:
            self.claimed.extend(self._lease_batch(start))
            if self.claimed:
                self.cursor = self.claimed[-1].id
                return
        self.cursor = 0

    def _lease_batch(self, start: int) -> list[Row]:
        free = EmailDelivery.objects.of(self.issue.pk).open_to(moves.CLAIM).filter(id__gt=start)
        with transaction.atomic():
            batch = free.order_by("id").select_for_update(skip_locked=True)[:BATCH]
            # A list, not a subquery: PostgreSQL runs that again for each row that it meets, and claims them all.
            ids = list(batch.values_list("id", flat=True))
            alive = self.lease.mine().held().exists()
            if not alive:
                self.held = False
                return []
            rows = EmailDelivery.objects.filter(id__in=ids)
            won = move(moves.CLAIM, rows, sender=self.lease.pk, fence=self.lease.fence)
            return read_rows([id for (id,) in won])

    def _commit(self, results: list[Result], starting: bool) -> list[tuple[Row, int]]:
        """One transaction: results in, lease renewed, next rows marked `sending`. The rows that were won."""
        renewing = self._renewal_is_due()
        if not results and not starting and not renewing and not self.shaken:
            return []
        now, claimed = time.monotonic(), self.claimed.copy()
        try:
            with transaction.atomic():
                won = self._write(results, starting, renewing)
        except Error:
            self.claimed = claimed
            raise
        if renewing:
            self.renewed_at = now
        self.shaken = False
        return won

    def _write(
        self, results: list[Result], starting: bool, renewing: bool
    ) -> list[tuple[Row, int]]:
        issue = self._read_standing()
        changed = record(issue, results)
        if self.first:
            self._count_first(changed)
        if renewing:
            self._renew()
        won = self._adopt([]) if self.shaken else []
        if starting and self.held and not self.pause_reason:
            won += self._mark_sending(len(won))
            if self.shaken:
                # PostgreSQL may have been about to commit when we looked: the mark waited for that, and won nothing.
                won += self._adopt([row.id for row, _ in won])
        return won

    def _read_standing(self) -> Issue:
        """The issue, FOR SHARE against the FOR UPDATE of pause and cancel; SQLite has one writer anyway."""
        queue_for_house(shared=True)
        queue_for_issue(self.issue.pk, shared=True)
        rows = Issue.objects.only(*STANDING).filter(pk=self.issue.pk)
        if connection.vendor == "postgresql":
            sql, params = rows.query.sql_with_params()
            issue: Issue = Issue.objects.raw(f"{sql} FOR SHARE", params)[0]
        else:
            issue = rows.get()
        self.held = self.held and issue.may_send and not House.objects.held().exists()
        return issue

    def _renewal_is_due(self) -> bool:
        return bool(time.monotonic() - self.renewed_at >= settings.LEASE_SECONDS / 3)

    def _renew(self) -> None:
        alive = self.lease.renew()  # also while paused: rows are on the wire
        self.held = self.held and alive
        self.breaker.renew()

    def _mark_sending(self, adopted: int) -> list[tuple[Row, int]]:
        room = max(0, self.room - len(self.on_wire) - adopted)
        granted, self.wait_for_rate = limits.take(CHANNEL, min(room, len(self.claimed)))
        batch = {row.id: row for row in (self.claimed.popleft() for _ in range(granted))}
        if not batch:
            return []
        rows = EmailDelivery.objects.filter(id__in=batch)
        won = move(
            moves.START,
            rows,
            facts={"lease": self.lease},
            fields=("id", "attempt"),
            attempt=F("attempt") + 1,
            sending_at=database_now(),
            next_attempt_at=None,
            reason="",
            reply="",
        )
        if len(won) < len(batch):
            self._skip_unwilling(rows)
        return [(batch[id], attempt) for id, attempt in won]

    def _skip_unwilling(self, rows: EmailDeliveryQuerySet) -> None:
        move(
            moves.SKIP_UNWILLING,
            rows,
            facts={"lease": self.lease},
            reason="unsubscribed or suppressed",
            note="unsubscribed or suppressed before the wire",
            actor="sender",
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

    def _deliver(self, connection: Connection, row: Row, attempt: int) -> bool:
        """In a thread of the wire: no statement, no exception. False: this connection is better not taken next."""
        outcome = self._attempt(connection, row)
        self.results.put(Result(row.id, attempt, outcome))
        return outcome.verdict is not Verdict.RETRY_CHANNEL

    def _attempt(self, connection: Connection, row: Row) -> Outcome:
        if time.monotonic() > self.renewed_at + settings.LEASE_SECONDS:
            # This process was stopped for so long that others may have taken the row.
            return Outcome(Verdict.RETRY_CHANNEL, LEASE_OVER, "", Phase.CONNECT)
        if time.monotonic() > self.deadline:
            # It waited for a connection: with a slow server the rest would outlive the job.
            return Outcome(Verdict.RETRY_CHANNEL, TURN_OVER, "", Phase.CONNECT)
        try:
            envelope = self.copies.envelope(row)
        except Exception as error:
            if not isinstance(error, ValueError):
                log.exception("sender.copy_fault", delivery=row.id)
            return Outcome(Verdict.FAILED, "cannot_be_made", "", Phase.MAIL)
        try:
            return connection.send(envelope)
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
        return until_written(watched, patience)
