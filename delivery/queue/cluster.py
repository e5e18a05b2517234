"""One lane's django-q2 cluster, in this process."""

from __future__ import annotations

import os
import signal
import sys

from django.conf import settings
from django.db import connections
from django_q.cluster import Cluster
from django_q.conf import Conf

from delivery.models.job import Lane


def workers_of(lane: str) -> int:
    return int(getattr(settings, f"WORKERS_{lane.upper()}"))


def run_cluster(lane: str) -> None:
    """Run the lane's pool until SIGTERM; does not return. Called in a fresh fork.

    django-q2 reads its configuration once at import: Q_CLUSTER_NAME would cost an interpreter for each lane, so its
    class is told here instead.
    """
    connections.close_all()
    os.setsid()  # a signal to our terminal's or service's group must not reach the pool: it hangs django-q2
    Conf.CLUSTER_NAME = lane
    Conf.WORKERS = workers_of(lane)
    Conf.QUEUE_LIMIT = Conf.WORKERS
    Conf.SCHEDULER = lane == Lane.DEFAULT
    cluster = Cluster()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cluster.start()
    sentinel = cluster.sentinel
    sentinel.join()
    sys.stderr.flush()
    os._exit(0 if sentinel.exitcode == 0 else 1)
