"""Circuit breakers: a service that does not answer is left alone for a while, by all workers of all hosts together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import models, transaction
from django.db.models import Exists, F, Q

from newsletter.models import database_now

from .errors import BreakerOpen, EdgeError
from .models import CircuitBreaker, Lease
from .models.circuit_breaker import BreakerState
from .redaction import redact_text
from .signals import breaker_changed

log = structlog.get_logger(__name__)

FAILURES = 5  # in a row: then it opens
LONGEST_SECONDS = 600.0  # that it stays open, unless the other side named a longer time
PROBE_SECONDS = 3.0  # who finds a probe on its way looks again after so long
LOOK_SECONDS = 1.0  # a long use that goes well looks at the row no more often
LONGEST_NAME = 90  # the lease's name holds it, and a prefix


@contextmanager
def guard(name: str) -> Iterator[None]:
    """Around one use of the service; raises BreakerOpen where it is left alone just now.

    An EdgeError inside is a failure of the service, unless it is permanent: then the service did answer, and it is
    ours. Any other exception says nothing about it.
    """
    breaker = enter(name)
    try:
        yield
    except BreakerOpen:  # of another service, asked inside
        raise
    except EdgeError as error:
        if error.permanent:
            breaker.succeeded()
        else:
            breaker.failed(error.message, error.retry_after)
        raise
    else:
        breaker.succeeded()
    finally:
        breaker.leave()


def enter(name: str) -> Breaker:
    """The same for a long use: say `succeeded` or `failed` as often as there is news, and `leave` at its end."""
    name = name[:LONGEST_NAME]
    row = CircuitBreaker.objects.filter(name=name).first()
    if row is None or row.state == BreakerState.CLOSED:
        return Breaker(name)
    now = database_now()
    # It was not opened in the future: a clock that was put back by an hour must not keep it open for that hour.
    if row.until and row.until > now and row.changed_at <= now:
        raise BreakerOpen(name, row.until, row.reason)
    lease = Lease.acquire(f"breaker:{name}")
    if lease is None:
        raise BreakerOpen(name, now + timedelta(seconds=PROBE_SECONDS), row.reason)
    if _half_open(name, now):
        return Breaker(name, lease, row.opened)
    lease.release()  # another's probe has ended since we looked
    return enter(name)


class Breaker:
    """One use of a service, which was let through. Its methods are for one thread, outside of a transaction."""

    def __init__(self, name: str, lease: Lease | None = None, opened: int = 0) -> None:
        self.name = name
        self._lease = lease
        self._opened = opened
        self._look_at = 0.0

    @property
    def probing(self) -> bool:
        """It is the one that finds out whether the service answers again; nothing was said yet."""
        return self._lease is not None

    def succeeded(self) -> None:
        """The service answers: a probe closes the breaker at once. Cheap where there is nothing to change."""
        if self._lease:
            self._close(self._lease)
        elif time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            failing = self._in(BreakerState.CLOSED).filter(failures__gt=0)
            if failing.exists():  # an UPDATE of nothing would still wait for SQLite's one writer
                failing.update(failures=0)

    def failed(self, reason: str, retry_after: float | None = None) -> None:
        """The service does not answer, for this reason; `retry_after` is the wait that it named, in seconds."""
        self._look_at = 0.0
        reason = redact_text(reason)[:500] or "no reason given"
        if self._lease:
            self._open_again(self._lease, reason, retry_after)
        else:
            self._count(reason, retry_after)

    def renew(self) -> None:
        """A probe that takes long stays the only one."""
        if self._lease:
            self._lease.renew()

    def leave(self) -> None:
        """Free the probe, if nothing was said: the next caller makes it."""
        if self._lease is None:
            return
        now = database_now()
        with transaction.atomic():
            self._probed(self._lease).update(state=BreakerState.OPEN, until=now, changed_at=now)
            self._lease.release()
        self._lease = None

    def _close(self, lease: Lease) -> None:
        """Also where the lease is over: that the service answered stays true."""
        with transaction.atomic():
            closed = self._in(BreakerState.HALF_OPEN).update(
                state=BreakerState.CLOSED,
                failures=0,
                opened=0,
                reason="",
                until=None,
                changed_at=database_now(),
            )
            lease.release()
            if closed:
                log.info("breaker.closed", breaker=self.name)
                self._tell(is_open=False)
        self._lease = None

    def _open_again(self, lease: Lease, reason: str, retry_after: float | None) -> None:
        with transaction.atomic():
            probed = self._probed(lease)
            probed.update(failures=F("failures") + 1)
            self._open(probed, self._opened + 1, reason, retry_after)
            lease.release()
        self._lease = None

    def _count(self, reason: str, retry_after: float | None) -> None:
        """One more in a row; the last of FAILURES opens it, for whoever sees it first."""
        row = CircuitBreaker(name=self.name, changed_at=database_now())
        with transaction.atomic():
            CircuitBreaker.objects.bulk_create([row], ignore_conflicts=True)
            closed = self._in(BreakerState.CLOSED)
            closed.update(failures=F("failures") + 1)
            until = self._open(closed.filter(failures__gte=FAILURES), 1, reason, retry_after)
            if until:
                self._tell(is_open=True, reason=reason, until=until)

    def _open(
        self,
        rows: models.QuerySet[CircuitBreaker],
        times: int,
        reason: str,
        retry_after: float | None,
    ) -> datetime | None:
        """-> open, for longer each time that it opens in a row; until when, or None where it is not ours to open."""
        now = database_now()
        seconds = min(settings.BREAKER_SECONDS * 2.0 ** min(times - 1, 30), LONGEST_SECONDS)
        seconds = max(seconds, retry_after or 0.0)
        until = now + timedelta(seconds=seconds)
        won = rows.update(
            state=BreakerState.OPEN, opened=times, reason=reason, until=until, changed_at=now
        )
        if not won:
            return None
        log.warning("breaker.opened", breaker=self.name, times=times, seconds=round(seconds))
        return until

    def _in(self, state: BreakerState) -> models.QuerySet[CircuitBreaker]:
        return CircuitBreaker.objects.filter(name=self.name, state=state)

    def _probed(self, lease: Lease) -> models.QuerySet[CircuitBreaker]:
        """Half-open, and the probe still ours: no failure of an old one ends the next."""
        return self._in(BreakerState.HALF_OPEN).filter(Exists(lease.mine()))

    def _tell(self, *, is_open: bool, reason: str = "", until: datetime | None = None) -> None:
        breaker_changed.send(
            CircuitBreaker, name=self.name, is_open=is_open, reason=reason, until=until
        )


def _half_open(name: str, now: datetime) -> bool:
    """-> half-open, by the holder of the lease; False where it is not due for a probe any more."""
    over = Q(until__lte=now) | Q(changed_at__gt=now)
    due = CircuitBreaker.objects.filter(over, name=name).exclude(state=BreakerState.CLOSED)
    return bool(due.update(state=BreakerState.HALF_OPEN, until=now, changed_at=now))
