"""One lane's django-q2 cluster, in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import structlog
from django.conf import settings
from django.db import connections
from django_q.cluster import Cluster
from django_q.conf import Conf

from .broker import LaneBroker
from .wakeups import own_key

log = structlog.get_logger(__name__)


def workers_of(lane: str) -> int:
    return int(getattr(settings, f"WORKERS_{lane.upper()}"))


def run_cluster(lane: str, work: str, stopping: Callable[[], bool]) -> NoReturn:
    """Run the lane's pool until `stopping`. Called in a fresh fork, with SIGTERM and SIGINT blocked.

    django-q2 reads its configuration once at import: Q_CLUSTER_NAME would cost an interpreter for each lane, so its
    class is told here instead.
    """
    code = 1
    try:
        code = _run(lane, work, stopping)
    except Exception:
        log.exception("work.lane_failed", lane=lane)
    finally:
        sys.stderr.flush()
        os._exit(code)  # the fork's caller is the supervisor's code: it must not go on here


def _run(lane: str, work: str, stopping: Callable[[], bool]) -> int:
    connections.close_all()
    os.setsid()  # so that the whole pool can be killed as a group
    Conf.CLUSTER_NAME = lane
    Conf.WORKERS = workers_of(lane)
    Conf.QUEUE_LIMIT = Conf.WORKERS
    # Never: a row of its table that is old enough, or malformed, keeps the sentinel in a loop, in a transaction that
    # holds SQLite's one lock. Our schedules are in delivery/schedules.py.
    Conf.SCHEDULER = False
    cluster = Cluster(LaneBroker(lane, own_key(work, lane)))
    cluster.start()
    while cluster.sentinel.is_alive():
        if stopping():
            cluster.stop_event.set()
        cluster.sentinel.join(0.1)
    return 0 if cluster.sentinel.exitcode == 0 else 1
