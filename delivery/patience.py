"""What was seen is written down, also when the database is away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import InterfaceError, InternalError, OperationalError, connection

log = structlog.get_logger(__name__)

PAUSE = 0.5
# A database that is away, or that may not be written just now: PostgreSQL calls a demoted primary an InternalError.
AWAY = (OperationalError, InterfaceError, InternalError)

T = TypeVar("T")


def until_written(
    commit: Callable[[], T], seconds: float, pause: Callable[[float], object] = time.sleep
) -> T:
    """Call `commit`, a whole transaction that may be repeated, until it gets through; after `seconds` its error.

    `pause` passes the time between two tries.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            return commit()
        except AWAY:
            if time.monotonic() > give_up:
                raise
            log.warning("database.trouble")
            connection.close()
            pause(PAUSE)
