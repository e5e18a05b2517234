"""Who works here: the name of this host's `work`, and of this process in it."""

from __future__ import annotations

import os
import socket

_work = ""


def name_work() -> str:
    """Called by the supervisor, before it forks: from here on its processes bear its name."""
    global _work
    _work = f"{socket.gethostname()[:60]}:{os.getpid()}"
    return _work


def me() -> str:
    """work/pid, or host:pid/pid where no supervisor is."""
    return f"{_work or name_work()}/{os.getpid()}"
