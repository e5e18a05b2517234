"""What was seen is written down, also when the database is away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection

log = structlog.get_logger(__name__)

PAUSE = 0.5

T = TypeVar("T")


def until_written(commit: Callable[[], T], seconds: float) -> T:
    """Call `commit`, a whole transaction that may be repeated, until it gets through; after `seconds` its error."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            return commit()
        except (OperationalError, InterfaceError):
            if time.monotonic() > give_up:
                raise
            log.warning("database.trouble")
            connection.close()
            time.sleep(PAUSE)
