"""Jobs that are nothing but load: each leaves one row in a table of their own, in the transaction of its finish.

Only `run_errands` imports it: production knows no errands. Nothing keeps the rows apart, so that a second effect of one
errand is seen.
"""

from __future__ import annotations

import io
import random
import signal
import time
from datetime import timedelta
from functools import partial
from types import FrameType

from django.core.management import call_command
from django.db import connection

from delivery import watchdog
from delivery.errors import EdgeError
from delivery.models.job import Lane
from delivery.outcome import Done, Outcome
from delivery.queue import ensure, job, rows
from delivery.retries import HOUR, Fixed, On
from newsletter.models import Issue
from newsletter.models.issue import IssueState

ASKED_AGAIN = (On(EdgeError, Fixed(0.5), times=1000, within=HOUR),)
SLOW, REFUSED, DELAYED = 0.03, 0.05, 0.1  # shares of the errands
MAIL_EVERY = 20.0  # seconds


def errand(number: int, seconds: float, refused: float, due: float) -> Outcome:
    """Work for so long, be refused with this probability, and leave a row: how many seconds after `due`."""
    time.sleep(seconds)
    if random.random() < refused:
        raise EdgeError("the errand is refused")
    return Done(advance=partial(_leave, number, due))


for _lane in Lane:
    job(f"errand_{_lane}", lane=_lane, retries=ASKED_AGAIN)(errand)


def shorten_the_minute(seconds: float) -> None:
    """For a portion in CI: so soon a lost wake-up is made again, and so often the tick comes."""
    rows.WAKE_AGAIN_AFTER = timedelta(seconds=seconds)
    watchdog.MINUTE = seconds


def forgive_crashes(number: int) -> None:
    """A storm may hit one innocent job three times: so many are borne here before it is dead."""
    vars(rows)["MAX_CRASHES"] = number


def some(count: int, seconds: float) -> int:
    """So many in each lane, due now, each of so many seconds; how many in all."""
    for number, lane in enumerate(Lane.values * count):
        put(number, lane, seconds=seconds)
    return count * len(Lane)


def load(rate: float, seed: int) -> int:
    """Until SIGTERM enqueue so many errands a second in all lanes, and release an issue now and then; how many."""
    chances = random.Random(seed)
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, stop)
    start = time.monotonic()
    made, mail_at = 0, start + MAIL_EVERY / 4
    while not asked:
        put_any(made, chances)
        made += 1
        if time.monotonic() > mail_at:
            _release_one()
            mail_at += MAIL_EVERY
        time.sleep(max(0.0, start + made / rate - time.monotonic()))
    return made


def put_any(number: int, chances: random.Random) -> None:
    """In any lane; some are slow, some refused at first, some due later."""
    put(
        number,
        chances.choice(Lane.values),
        seconds=chances.uniform(0, 1) if chances.random() < SLOW else 0.0,
        refused=0.5 if chances.random() < REFUSED else 0.0,
        delay=chances.uniform(0, 10) if chances.random() < DELAYED else 0.0,
    )


def put(
    number: int, lane: str, *, seconds: float = 0, refused: float = 0, delay: float = 0
) -> None:
    """Enqueue one errand."""
    ensure(
        f"errand_{lane}",
        key=f"errand:{number}",
        delay=delay,
        number=number,
        seconds=seconds,
        refused=refused,
        due=time.time() + delay,
    )


def _leave(number: int, due: float) -> None:
    with connection.cursor() as cursor:
        statement = "INSERT INTO errand_effect (number, late) VALUES (%s, %s)"
        cursor.execute(statement, [number, time.time() - due])


def _release_one() -> None:
    issue = Issue.objects.filter(state=IssueState.APPROVED).order_by("id").first()
    if issue:
        call_command("release", str(issue.pk), "--now", stdout=io.StringIO())
